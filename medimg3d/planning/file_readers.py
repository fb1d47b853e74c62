"""Which packages stock MONAI needs for the files of a data set, and which endings it should look for."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec

from medimg3d.data.image_facts import ITK_ENDINGS
from medimg3d.errors import DataError
from medimg3d.planning.data_facts import DataFacts

_SERIES = ""
"""The ending of a folder, which is a DICOM series."""

_READERS = {".nrrd": ("itk", "nrrd"), ".dcm": ("pydicom", "itk"), _SERIES: ("pydicom", "itk")}
"""Import names of the packages by which MONAI's ``LoadImaged`` reads an ending, any of them; ``itk`` for the others."""


def reading_packages(facts: DataFacts) -> tuple[str, ...]:
    """The packages, besides nibabel, that read all files of the training cases."""
    needed = {_readers(ending)[0] for ending in _itk_endings(facts)}
    return tuple(sorted(needed))


def refuse_unreadable(facts: DataFacts) -> None:
    """Refuse files that MONAI has no reader for on this machine: no training would read them.

    Raises:
        DataError: The packages that read an ending are not installed.
    """
    for ending in _itk_endings(facts):
        if not any(find_spec(package) for package in _readers(ending)):
            found = "are folders of DICOM files" if ending == _SERIES else f"end in {ending}"
            raise DataError(
                f"Images of the training cases {found}, which MONAI reads with {_readers(ending)[0]}; it is not "
                "installed. Install it: `pip install itk-io`, or save the files as .nii.gz."
            )


def volumes_below(facts: DataFacts, *, deep: bool) -> str:
    """Config expression of all volumes in ``@dataset_dir``: NIfTI, and what else the training images are.

    Where training images are folders, each a DICOM series, all folders in it are taken for such.

    Args:
        facts: The data.
        deep: Look for files in the folders below, too.
    """
    found = (".nii", ".nii.gz", *_known(facts.image_endings))
    endings = ", ".join(repr(ending.removeprefix(".")) for ending in found)
    place, recursive = ("'**', ", ", recursive=True") if deep else ("", "")
    files = f"sorted(p for e in ({endings}) for p in glob.glob(os.path.join(@dataset_dir, {place}'*.' + e){recursive}))"
    if _SERIES not in facts.image_endings:
        return f"${files}"
    return f"${files} + sorted(p for p in glob.glob(os.path.join(@dataset_dir, '*')) if os.path.isdir(p))"


def _itk_endings(facts: DataFacts) -> tuple[str, ...]:
    endings = (*facts.image_endings, *facts.label_endings)
    return (*_known(endings), *(ending for ending in (_SERIES,) if ending in endings))


def _known(endings: Iterable[str]) -> tuple[str, ...]:
    return tuple(ending for ending in ITK_ENDINGS if ending in endings)


def _readers(ending: str) -> tuple[str, ...]:
    return _READERS.get(ending, ("itk",))
