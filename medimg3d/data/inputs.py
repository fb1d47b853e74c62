"""Finds the image files among what a person names: each file ends as a case, rejected or ignored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from medimg3d.data.image_facts import NIFTI_ENDINGS, PICTURE_ENDINGS
from medimg3d.errors import UsageError

VOLUME_ENDINGS = (*NIFTI_ENDINGS, ".nrrd", ".nhdr", ".mha", ".mhd")
FILM_ENDINGS = (*PICTURE_ENDINGS, ".dcm", ".dicom")
SIDECAR_ENDINGS = (
    *(".json", ".txt", ".csv", ".tsv", ".md", ".html", ".xml", ".yaml", ".yml", ".pdf", ".log"),
    *(".bval", ".bvec", ".raw", ".zraw"),
)
IGNORED = "not an image"


@dataclass(frozen=True)
class InputFile:
    """One image to predict on: a file, or several of one grid that are its channels.

    Attributes:
        case: Name of the case, unlike every other; output files are called by it.
        path: The image; of several files the first channel.
        key: The file as a person finds it: the path as given, or below the folder given. Of several files what their
            names have in common, or the name of the case.
        further: Files of the further channels, in order.
    """

    case: str
    path: Path
    key: str
    further: tuple[Path, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file, in the order of the channels."""
        return (self.path, *self.further)


@dataclass(frozen=True)
class FoundInputs:
    """What became of each file.

    Attributes:
        images: Files to read, in order of their path.
        rejected: File → reason.
        ignored: File → reason; hidden files and sidecars in folders, which nobody expects to be read.

    Raises:
        ValueError: A file is listed twice, or two images have one case name.
    """

    images: tuple[InputFile, ...]
    rejected: dict[str, str]
    ignored: dict[str, str]

    def __post_init__(self) -> None:
        keys = [image.key for image in self.images] + [*self.rejected, *self.ignored]
        names = [image.case for image in self.images]
        twice = [name for name, count in (Counter(keys) + Counter()).items() if count > 1]
        twice += [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise ValueError(f"Listed twice: {', '.join(sorted(twice))}.")


def find_inputs(paths: Sequence[Path], *, without: Path | None = None, films: bool = False) -> FoundInputs:
    """Look at each file and, recursively, at each folder; nothing is opened.

    Files of the same name get distinct cases: the names of their folders come in front (``visit1_t1``,
    ``visit2_t1``), and a number behind where that is not enough. A file that is reached twice counts once.

    Args:
        paths: Files and folders.
        without: Folder to pass over, for example the output folder inside the input folder.
        films: Look for 2D films (pictures, and DICOM whatever its ending) instead of volumes.

    Returns:
        Every regular file, as image, rejected or ignored.

    Raises:
        UsageError: No path is given, one does not exist, or no file is found that could be an image.
    """
    if not paths:
        raise UsageError("No input is given; expected image files, or folders that hold them.")
    images: dict[Path, str] = {}
    rejected: dict[str, str] = {}
    ignored: dict[str, str] = {}
    for path, key, named in walk_files(paths, without):
        reason = _why_no_film(path) if films else why_no_volume(path)
        if not reason:
            images.setdefault(path.resolve(), key)
        elif reason == IGNORED and not named:
            ignored[key] = IGNORED
        else:
            rejected[key] = reason
    if not images and not rejected:
        raise UsageError(
            f"No image is found in {', '.join(map(str, paths))} ({len(ignored)} other files); "
            f"expected {', '.join(FILM_ENDINGS if films else VOLUME_ENDINGS)}."
        )
    return FoundInputs(with_cases(images), rejected, ignored)


def file_stem(path: Path) -> str:
    """Name without the ending of a volume: ``t1.nii.gz`` → ``t1``."""
    ending = next((e for e in (*VOLUME_ENDINGS, *FILM_ENDINGS) if path.name.lower().endswith(e)), path.suffix)
    return path.name[: len(path.name) - len(ending)]


def walk_files(paths: Sequence[Path], without: Path | None) -> Iterator[tuple[Path, str, bool]]:
    """Path, key, and whether the file itself was named, not its folder.

    Raises:
        UsageError: A path does not exist.
    """
    passed_over = without.resolve() if without else None
    for given in paths:
        if given.is_file():
            yield given, str(given), True
        elif given.is_dir():
            for path in sorted(given.rglob("*")):
                if path.is_file() and not (passed_over and path.resolve().is_relative_to(passed_over)):
                    yield path, str(path), False
        else:
            raise UsageError(f"{given} does not exist; expected an image file, or a folder that holds some.")


def why_no_volume(path: Path) -> str:
    """Why a file, by its name, is no volume to predict on; empty if it may be one."""
    name = path.name.lower()
    if name.startswith(".") or name.endswith(SIDECAR_ENDINGS):
        return IGNORED
    if name.endswith(VOLUME_ENDINGS):
        return ""
    if name.endswith(".dcm"):
        return "is DICOM; expected a volume in one file. Convert the series to NIfTI first"
    if name.endswith(PICTURE_ENDINGS):
        return "is a 2D picture; expected a volume with a known voxel size"
    return f"is of an unknown kind ({path.suffix or 'no ending'}); expected {', '.join(VOLUME_ENDINGS)}"


def _why_no_film(path: Path) -> str:
    name = path.name.lower()
    if name.startswith(".") or name.endswith(SIDECAR_ENDINGS):
        return IGNORED
    if name.endswith(VOLUME_ENDINGS):
        return "is a volume; expected a 2D film"
    if name.endswith(FILM_ENDINGS) or _has_dicom_mark(path):
        return ""
    return f"is of an unknown kind ({path.suffix or 'no ending'}); expected {', '.join(FILM_ENDINGS)}"


def _has_dicom_mark(path: Path) -> bool:
    with open(path, "rb") as file:
        file.seek(128)  # PS3.10 7.1
        return file.read(4) == b"DICM"


def with_cases(images: dict[Path, str]) -> tuple[InputFile, ...]:
    """Name the cases: by the file, then with as many folders in front as tell them apart, then by number.

    Args:
        images: File → key.
    """
    names = {path: file_stem(path) for path in images}
    for depth in range(1, max((len(path.parts) for path in images), default=0)):
        same = {name for name, count in Counter(names.values()).items() if count > 1}
        for path, name in names.items():
            if name in same and len(path.parts) > depth + 1:
                names[path] = "_".join([*path.parts[-1 - depth : -1], file_stem(path)])
    found: list[InputFile] = []
    taken: set[str] = set()
    for path in sorted(images):
        case = _free_name(names[path], taken)
        taken.add(case)
        found.append(InputFile(case, path, images[path]))
    return tuple(found)


def _free_name(name: str, taken: set[str]) -> str:
    number = 2
    free = name
    while free in taken:
        free = f"{name}_{number}"
        number += 1
    return free
