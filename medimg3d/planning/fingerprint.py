"""The fingerprint of every case of a data set, read in parallel and kept on disk.

What is kept of a case is a small JSON file named by the content of the case's files: a second plan of the same data
reads no image, and one that was stopped goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medimg3d.data.case_facts import class_name, named_images
from medimg3d.data.content_hash import content_sha256
from medimg3d.data.datalist import Case, Datalist, Section
from medimg3d.data.fingerprint import percentiles_of
from medimg3d.data.image_facts import PICTURE_ENDINGS, image_ending
from medimg3d.data.json_file import write_json
from medimg3d.data.pixels import Pixels, read_pixels
from medimg3d.data.training_record import read_json
from medimg3d.errors import DataError, GeometryError

FORMAT = 3
"""Part of the names in the cache: what was kept in another form is read anew."""
SAMPLE = 400
"""Values that are kept of an image, and of its labelled part, for statistics over all cases."""

MOST_COUNTED = 65535
"""Label values up to this are counted in a table."""
PART = 2**22
"""Voxels that are counted at once."""

Labels = NDArray[np.integer[Any]]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ImagePrint:
    """What is kept of one channel: an image, or an entry of the fourth axis of one.

    Attributes:
        shape: Voxels along the axes in RAS order (those of the file for pictures).
        spacing_mm: Along the same axes; None where the file does not state it.
        affine: RAS affine in mm of the axes as they stand in the file, shape (4, 4); None for pictures and films.
        is_picture: A film or photograph (PNG, JPEG, one DICOM film), not a volume.
        percentiles: At 0.5, 5, 50, 95 and 99.5.
        zero_share: Share of the values that are exactly 0.
        sample: Values at random places.
        inside: Values at random places where the label is not 0; empty without a label map.
    """

    shape: tuple[int, ...]
    spacing_mm: tuple[float, ...] | None
    affine: tuple[tuple[float, ...], ...] | None
    is_picture: bool
    percentiles: tuple[float, ...]
    zero_share: float
    sample: tuple[float, ...]
    inside: tuple[float, ...] = ()

    @property
    def orientation(self) -> str:
        """Where the axes of the file run, ``RAS``; empty in 2D, and where the file states no grid."""
        if not self._states_grid:
            return ""
        from nibabel.orientations import aff2axcodes

        return "".join(aff2axcodes(np.array(self.affine)))

    @property
    def voxel_ml(self) -> float | None:
        """Volume of a voxel in mL; None in 2D, and where the file states no grid."""
        return abs(float(np.linalg.det(np.array(self.affine)[:3, :3]))) / 1000 if self._states_grid else None

    @property
    def _states_grid(self) -> bool:
        return self.affine is not None and self.spacing_mm is not None and len(self.shape) == 3


@dataclass(frozen=True)
class CasePrint:
    """What is kept of one case.

    Attributes:
        name: Its name in the datalist.
        section: The list it stands in.
        class_name: Class of the whole image; None where it has none.
        images: Channel to facts. One file with several channels along its fourth axis has an entry for each, called as
            as many files would be: by the datalist's modality, else ``image 1``, ``image 2``.
        voxels: Label value to number of voxels; empty without a label map.
        labelled_slices: Share of the slices, along the last axis, that hold another value than the ignored one;
            1 where no value is ignored.
        box: The smallest box with all labelled voxels, along the axes in RAS order: its first voxel, and the one
            after its last; empty where nothing is labelled. An axis that the file holds the other way round is
            counted as in the file.
        problem: Why it cannot be used; empty if it can.
    """

    name: str
    section: Section
    class_name: str | None
    images: Mapping[str, ImagePrint] = field(default_factory=dict)
    voxels: Mapping[int, int] = field(default_factory=dict)
    labelled_slices: float = 1.0
    box: tuple[tuple[int, int], ...] = ()
    problem: str = ""


def fingerprint_cases(
    datalist: Datalist,
    cache_dir: Path,
    *,
    workers: int | None = None,
    ignore_label: int | None = None,
    progress: Progress | None = None,
) -> list[CasePrint]:
    """Read what is not in the cache yet; the fingerprints of all cases, in the order of ``named_cases``.

    Args:
        datalist: The cases.
        cache_dir: Folder of the small files; made if need be.
        workers: Processes; by default one a processor, at most 8. 1 reads in this process.
        ignore_label: Label value that marks voxels nobody labelled.
        progress: Called with the numbers of cases done and of all cases.

    Returns:
        A fingerprint a case; what failed has its ``problem``.
    """
    named = datalist.named_cases()
    count = min(workers or min(8, os.cpu_count() or 1), max(1, len(named)))
    jobs = [
        (
            {"name": name, "section": section, "class_name": class_name(case, datalist)},
            case,
            named_images(case, datalist),
            datalist.modality,
            cache_dir,
            ignore_label,
        )
        for name, section, case in named
    ]
    prints: dict[str, CasePrint] = {}
    if count == 1:
        for job in jobs:
            one = _cached_print(*job)
            prints[one.name] = one
            _tell(progress, len(prints), len(named))
    else:
        # spawned, since torch may hold threads in this process that a fork would lose
        with ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn")) as pool:
            try:
                for done in as_completed([pool.submit(_cached_print, *job) for job in jobs]):
                    one = done.result()
                    prints[one.name] = one
                    _tell(progress, len(prints), len(named))
            except BrokenProcessPool as err:
                raise DataError(
                    f"A process that reads cases was ended from outside after {len(prints)} of {len(named)}, most "
                    f"likely as {count} cases at once need more memory than there is. Read one at once: --workers 1."
                ) from err
    return [prints[name] for name, _, _ in named]


def _tell(progress: Progress | None, done: int, total: int) -> None:
    if progress is not None:
        progress(done, total)


def _cached_print(
    about: Mapping[str, Any],
    case: Case,
    images: Mapping[str, Path],
    modality: Mapping[str, str],
    cache_dir: Path,
    ignore_label: int | None,
) -> CasePrint:
    try:
        path = cache_dir / f"{_key(case, images, ignore_label)}.json"
        kept = read_json(path)
        is_new = not kept
        if is_new:
            kept = _read(case, images, ignore_label)
    except (DataError, GeometryError) as err:
        return CasePrint(**about, problem=str(err))
    except OSError as err:
        return CasePrint(**about, problem=f"a file cannot be read ({type(err).__name__})")
    except MemoryError:
        return CasePrint(
            **about, problem="it needs more memory than is free; --workers 1 reads one case at once"
        )
    if is_new:
        write_json(kept, path)
    return _from_json(kept, about, modality)


def _key(case: Case, images: Mapping[str, Path], ignore_label: int | None) -> str:
    """Name of a case's file in the cache: the hash of the content of its files and of what is asked."""
    files = [*images.items(), *([("label", case.label)] if case.label else [])]
    parts = [f"{word} {content_sha256(path)}" for word, path in files]
    return hashlib.sha256(json.dumps([FORMAT, ignore_label, parts]).encode()).hexdigest()


def _read(case: Case, images: Mapping[str, Path], ignore_label: int | None) -> dict[str, Any]:
    label = None if case.label is None else _as_labels(read_pixels(case.label, as_label=True))
    prints = {}
    for word, path in images.items():
        try:
            pixels = read_pixels(path)
            channels = _channels(pixels, is_alone=not case.images and len(images) == 1)
        except (DataError, GeometryError) as err:
            raise type(err)(f"{word} {err}") from err
        prints[word] = [asdict(_image_print(channel, path, label, ignore_label)) for channel in channels]
    kept: dict[str, Any] = {"images": prints, "voxels": {}, "labelled_slices": 1.0, "box": []}
    if label is not None:
        kept["voxels"] = _counts(label)
        if ignore_label is not None:
            known = (label != ignore_label).any(axis=tuple(range(label.ndim - 1)))
            kept["labelled_slices"] = float(known.mean())
        kept["box"] = _box(label, ignore_label, _ras_order(pixels))
    return kept


def _counts(label: Labels) -> dict[str, int]:
    """Voxels of each value that occurs; part by part, since numpy counts copies of 8 bytes a voxel."""
    values = label.ravel(order="K")
    most = int(values.max(initial=0))
    if most > MOST_COUNTED:
        return {
            str(value): int(count)
            for value, count in zip(*np.unique(values, return_counts=True), strict=True)
        }
    counts = np.zeros(most + 1, np.intp)
    for start in range(0, values.size, PART):
        counts += np.bincount(values[start : start + PART].astype(np.intp), minlength=most + 1)
    return {str(value): int(counts[value]) for value in np.flatnonzero(counts)}


def _labelled(label: Labels, ignore_label: int | None) -> NDArray[np.bool_]:
    return label > 0 if ignore_label is None else (label > 0) & (label != ignore_label)


def _box(label: Labels, ignore_label: int | None, order: Sequence[int]) -> list[list[int]]:
    """First labelled voxel and the one after the last, along the axes in an order; empty where there is none."""
    labelled = _labelled(label, ignore_label)
    sides = []
    for axis in order:
        where = np.flatnonzero(labelled.any(axis=tuple(a for a in range(label.ndim) if a != axis)))
        if not where.size:
            return []
        sides.append([int(where[0]), int(where[-1]) + 1])
    return sides


def _channels(pixels: Pixels, *, is_alone: bool) -> list[Pixels]:
    """The channels along the fourth axis, each by itself; the image as it is where it has no such axis.

    Args:
        pixels: An image.
        is_alone: The case is this one file, and it is not a named one: files beside each other are a channel each.

    Raises:
        DataError: More axes than that, or a fourth axis of a file that is not alone.
    """
    array = pixels.array
    shape = " x ".join(map(str, array.shape))
    if array.ndim > 4:
        raise DataError(
            f"has {array.ndim} axes ({shape}); expected 3, or 4 with the channels along the fourth. Save it so"
        )
    if array.ndim < 4:
        return [pixels]
    if not is_alone:
        raise DataError(
            f"is 4D ({shape}) among several or named files; expected one volume a file there. Save one volume a "
            'file, or all channels in one 4D file under "image"'
        )
    return [replace(pixels, array=array[..., number]) for number in range(array.shape[3])]


def _image_print(pixels: Pixels, path: Path, label: Labels | None, ignore_label: int | None) -> ImagePrint:
    array = pixels.array
    finite = _finite(array)
    if not finite.size:
        raise DataError("image holds no finite value; expected an image")
    order = _ras_order(pixels)
    inside: NDArray[Any] = np.empty(0)
    if label is not None:
        if label.shape != array.shape:
            raise DataError("label has another shape than its image")
        inside = array[_labelled(label, ignore_label)]
    return ImagePrint(
        shape=tuple(array.shape[axis] for axis in order),
        spacing_mm=None if pixels.spacing_mm is None else tuple(pixels.spacing_mm[axis] for axis in order),
        affine=None if pixels.affine is None else tuple(tuple(map(float, row)) for row in pixels.affine),
        is_picture=path.is_file()
        and (image_ending(path) in PICTURE_ENDINGS or (image_ending(path) == ".dcm" and array.ndim == 2)),
        percentiles=percentiles_of(finite.ravel(order="K")),
        zero_share=float(np.mean(finite == 0)),
        sample=_sample(finite),
        inside=_sample(inside),
    )


def _ras_order(pixels: Pixels) -> list[int]:
    """Which axis of the array becomes the first, second (, third) when it is turned to RAS."""
    axes = min(pixels.array.ndim, 3)
    if pixels.affine is None or axes < 3:
        return list(range(axes))
    from nibabel.orientations import io_orientation

    target = io_orientation(pixels.affine)[:, 0]
    return [int(np.flatnonzero(target == axis)[0]) for axis in range(3)]


def _as_labels(pixels: Pixels) -> Labels:
    """The label map in its own integer type; of floats in 16 bits where they fit."""
    array = pixels.array
    if array.dtype.kind == "b":
        return array.view(np.uint8)
    labels: Labels = array
    low, high = array.min(initial=0), array.max(initial=0)
    is_whole = bool(low >= 0 and np.isfinite(high))  # NaN is neither
    if is_whole and array.dtype.kind not in "ui":
        labels = array.astype(np.uint16 if high <= MOST_COUNTED else np.int64)
        is_whole = np.array_equal(labels, array)
    if not is_whole:
        raise DataError("label holds fractions or values below 0; expected whole numbers from 0")
    return labels


def _finite(array: NDArray[Any]) -> NDArray[Any]:
    """The finite values; the array itself, in its shape, where all are."""
    if array.dtype.kind != "f":
        return array
    known = np.isfinite(array)
    return array if known.all() else array[known]


def _sample(values: NDArray[Any]) -> tuple[float, ...]:
    if values.size > SAMPLE:  # flat counts row by row without a copy, however the values lie in memory
        values = values.flat[np.random.default_rng(0).integers(0, values.size, SAMPLE)]
    return tuple(float(value) for value in values.flat)


def _from_json(kept: Mapping[str, Any], about: Mapping[str, Any], modality: Mapping[str, str]) -> CasePrint:
    images = {}
    for word, channels in kept["images"].items():
        for own_word, own in zip(_words(word, len(channels), modality), channels, strict=True):
            images[own_word] = ImagePrint(**{key: _as_tuple(value) for key, value in own.items()})
    voxels = {int(value): count for value, count in kept["voxels"].items()}
    box = tuple((int(start), int(stop)) for start, stop in kept["box"])
    return CasePrint(**about, images=images, voxels=voxels, labelled_slices=kept["labelled_slices"], box=box)


def _words(word: str, count: int, modality: Mapping[str, str]) -> list[str]:
    """What the channels of one file are called: the words that as many files would get."""
    if count == 1:
        return [word]
    return list(named_images(Case(image=(Path(word),) * count), Datalist(modality=modality)))


def _as_tuple(value: Any) -> Any:
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value


def readable(prints: Sequence[CasePrint]) -> list[CasePrint]:
    """The cases without a problem."""
    return [one for one in prints if not one.problem]
