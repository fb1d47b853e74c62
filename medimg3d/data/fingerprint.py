"""The facts of one image and its label map, as numbers: sizes, hashes, percentiles, borders, volumes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medimg3d.data.content_hash import content_sha256
from medimg3d.data.pixels import Pixels
from medimg3d.errors import DataError

PERCENTILES = (0.5, 5.0, 50.0, 95.0, 99.5)
SAMPLE_SIZE = 1000
BORDER_LEVEL = 0.05
MAX_LABEL = 65535


@dataclass(frozen=True, eq=False)
class ImageFingerprint:
    """What one image is, without its values.

    Attributes:
        shape: Values along I, J (, K (, T)).
        spacing_mm: Along I, J (, K); None where the file does not state it.
        sha256: Hash of the file's bytes (of a folder: of its files).
        pixel_hash: Hash of the decoded values and their shape: the same for the same picture in another file
            format, data type or compression without loss.
        num_bytes: Size of the file, or of the folder's files.
        percentiles: At :data:`PERCENTILES`, of the finite values.
        mean: Mean of the finite values.
        border_share: Share of the image that lies in dark lines at its edges; see :func:`border_share`.
        num_not_finite: Number of NaN and infinite values.
        sample: Values at random places, the same places for the same shape; up to :data:`SAMPLE_SIZE`.
    """

    shape: tuple[int, ...]
    spacing_mm: tuple[float, ...] | None
    sha256: str
    pixel_hash: str
    num_bytes: int
    percentiles: tuple[float, ...]
    mean: float
    border_share: float
    num_not_finite: int
    sample: NDArray[np.float32]

    @property
    def is_constant(self) -> bool:
        """Whether nearly all values are the same: nothing to learn from."""
        return self.percentiles[0] == self.percentiles[-1]


@dataclass(frozen=True, eq=False)
class StructureFingerprint:
    """What one value of a label map marks.

    Attributes:
        voxels: Number of voxels (pixels).
        volume_ml: Their volume; None in 2D, and where the voxel size is not known.
        percentiles: Of the image's values inside, at :data:`PERCENTILES`.
        sample: Some of these values.
    """

    voxels: int
    volume_ml: float | None
    percentiles: tuple[float, ...]
    sample: NDArray[np.float32]


def fingerprint_image(pixels: Pixels, path: Path) -> ImageFingerprint:
    """The facts of an image.

    Args:
        pixels: Its values, as :func:`medimg3d.data.pixels.read_pixels` gives them.
        path: Where they come from, for the hash and the size of the file.

    Raises:
        DataError: Not one value is finite.
    """
    array = pixels.array
    finite = _finite(array)
    if not finite.size:
        raise DataError("holds no finite value; expected an image")
    percentiles = percentiles_of(finite)
    return ImageFingerprint(
        shape=tuple(int(size) for size in array.shape),
        spacing_mm=pixels.spacing_mm,
        sha256=content_sha256(path),
        pixel_hash=pixel_hash(array),
        num_bytes=_num_bytes(path),
        percentiles=percentiles,
        mean=float(finite.mean(dtype=np.float64)),
        border_share=border_share(array, low=percentiles[0], high=percentiles[-1]),
        num_not_finite=int(array.size - finite.size),
        sample=_sample(finite),
    )


def fingerprint_structures(label: Pixels, image: Pixels) -> dict[int, StructureFingerprint]:
    """The facts of each structure: label value to facts; the background (0) counts as one.

    Args:
        label: Label map.
        image: Image on the same grid; of a time series the first point is taken.

    Raises:
        DataError: The shapes differ, or the label map holds anything but whole numbers from 0. Messages start
            with a verb.
    """
    values = image.array[..., 0] if image.array.ndim > label.array.ndim else image.array
    if values.shape != label.array.shape:
        raise DataError(f"has the shape {_times(label.array.shape)}, its image {_times(image.array.shape)}")
    labels = _whole_numbers(label.array)
    counts = np.bincount(labels.ravel())
    facts = {}
    for value in np.flatnonzero(counts):
        inside = _finite(values[labels == value])
        facts[int(value)] = StructureFingerprint(
            voxels=int(counts[value]),
            volume_ml=None if label.voxel_ml is None else float(counts[value] * label.voxel_ml),
            percentiles=percentiles_of(inside),
            sample=_sample(inside),
        )
    return facts


def percentiles_of(values: NDArray[Any]) -> tuple[float, ...]:
    """At :data:`PERCENTILES`, between neighbours by a straight line; empty for no value."""
    return tuple(float(value) for value in np.percentile(values, PERCENTILES)) if values.size else ()


def pixel_hash(array: NDArray[Any]) -> str:
    """Hash of shape and values, whatever the data type: 8 bits, 16 bits and floats of the same numbers agree.

    Returns:
        32 hexadecimal digits.
    """
    kind = _narrowest(array)
    hasher = hashlib.blake2b(f"{array.shape} {kind}".encode(), digest_size=16)
    for plane in np.moveaxis(array, -1, 0) if array.ndim > 2 else (array,):  # bounds the memory
        hasher.update(np.ascontiguousarray(plane, dtype=kind).tobytes())
    return hasher.hexdigest()


def border_share(array: NDArray[Any], *, low: float, high: float) -> float:
    """Share of an image that lies in dark lines (planes) at its edges, as a black frame or empty air does.

    A line is dark where its mean is below ``low`` plus 5 % of the range from ``low`` to ``high``.

    Args:
        array: Shape (I, J), (I, J, K) or (I, J, K, T), of which the first T counts.
        low: Dark end of the image's range, for instance its 0.5th percentile.
        high: Bright end.

    Returns:
        0 to 1; 0 for an image of one value.
    """
    space = array[..., 0] if array.ndim == 4 else array
    level = low + BORDER_LEVEL * (high - low)
    kept = 1.0
    for axis, size in enumerate(space.shape):
        others = tuple(other for other in range(space.ndim) if other != axis)
        bright = np.flatnonzero(~(space.mean(axis=others, dtype=np.float64) < level))
        kept *= (bright[-1] - bright[0] + 1) / size if bright.size else 0.0
    return 0.0 if high <= low else float(1.0 - kept)


def _narrowest(array: NDArray[Any]) -> str:
    """A data type that holds the values exactly, chosen by the values alone."""
    is_float = array.dtype.kind == "f"
    if not array.size or (is_float and not (np.isfinite(array).all() and (array == np.rint(array)).all())):
        return "<f8"
    low, high = int(array.min()), int(array.max())
    known = (("<u1", 0, 2**8 - 1), ("<u2", 0, 2**16 - 1), ("<i8", -(2**53), 2**53))
    return next((kind for kind, first, last in known if first <= low and high <= last), "<f8")


def _finite(array: NDArray[Any]) -> NDArray[Any]:
    flat = array.reshape(-1)
    return flat if flat.dtype.kind in "uib" or np.isfinite(flat).all() else flat[np.isfinite(flat)]


def _sample(values: NDArray[Any]) -> NDArray[np.float32]:
    if values.size <= SAMPLE_SIZE:
        return values.astype(np.float32)
    places = np.random.default_rng(0).integers(0, values.size, SAMPLE_SIZE)
    return values[places].astype(np.float32)


def _whole_numbers(array: NDArray[Any]) -> NDArray[np.intp]:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise DataError("holds NaN or infinity; expected whole numbers from 0")
    if array.size and (array.min() < 0 or array.max() > MAX_LABEL):
        raise DataError(f"holds values below 0 or above {MAX_LABEL}; expected whole numbers from 0")
    labels = array.astype(np.intp)
    if array.dtype.kind == "f" and not np.array_equal(labels, array):
        raise DataError("holds fractions; expected whole numbers from 0")
    return labels


def _num_bytes(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else (path,)
    return sum(file.stat().st_size for file in files if file.is_file())


def _times(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))
