"""Writes label maps as NIfTI in a fraction of a second: they are mostly zero, and ISA-L is fast at that."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from medimg3d.atomic import atomic_file
from medimg3d.data.fast_gzip import gzip_writer
from medimg3d.data.nifti_header import geometry_header, geometry_of
from medimg3d.errors import DataError, GeometryError

_SLAB_PLANES = 64  # planes of uint8 that fill a cache line of the array they come from


def write_label_nifti(labels: NDArray[Any], header: Any, path: Path | str) -> Path:
    """Write a label map as NIfTI-1 in the smallest type, whole or not at all.

    Of the header the geometry is kept, to the bit, and nothing else. The same labels give the same bytes on
    every run of one machine.

    Args:
        labels: Label map, shape (I, J, K) or (I, J), whole numbers from 0 to 65535, in any memory order (first
            axis fastest is fastest).
        header: Header of the NIfTI image that the labels lie on, or its RAS affine in mm, shape (4, 4).
        path: ``.nii.gz`` or ``.nii`` file to write.

    Returns:
        ``path``.

    Raises:
        DataError: Values that are no labels.
        GeometryError: The label map has another shape than the image.
        ValueError: Another ending, or another number of axes.
    """
    path = Path(path)
    if not path.name.lower().endswith((".nii", ".nii.gz")):
        raise ValueError(f"path must end in .nii.gz or .nii, got {path.suffix!r}")
    if labels.ndim not in (2, 3):
        raise ValueError(f"labels must have the axes (I, J, K) or (I, J), got shape {labels.shape}")
    own = _header(labels.shape, header)
    own.set_data_dtype(_smallest_type(labels))
    own.set_slope_inter(1, 0)
    with atomic_file(path) as temporary, open(temporary, "wb") as file:
        if path.suffix.lower() == ".nii":
            _write(labels, own, file)
        else:
            with gzip_writer(file) as stream:
                _write(labels, own, stream)
    return path


def _header(shape: tuple[int, ...], header: Any) -> Any:
    if isinstance(header, np.ndarray):
        return geometry_header(shape, header)
    if shape != tuple(header.get_data_shape())[:3]:
        raise GeometryError(
            f"Label map has shape {shape}, its image {tuple(header.get_data_shape())}; expected one grid."
        )
    return geometry_of(header, shape)


def _smallest_type(labels: NDArray[Any]) -> np.dtype[Any]:
    if labels.dtype.kind not in "bui":
        raise DataError(f"Labels are of type {labels.dtype}; expected whole numbers from 0 to 65535.")
    if labels.dtype.itemsize == 1 and labels.dtype.kind in "bu":
        return np.dtype(np.uint8)
    lowest, highest = (int(labels.min()), int(labels.max())) if labels.size else (0, 0)
    if lowest < 0 or highest > 65535:
        raise DataError(f"Labels go from {lowest} to {highest}; expected whole numbers from 0 to 65535.")
    return np.dtype(np.uint8 if highest < 256 else np.uint16)


def _write(labels: NDArray[Any], header: Any, stream: IO[bytes] | gzip.GzipFile) -> None:
    header.write_to(stream)
    kind = header.get_data_dtype()
    for slab in _slabs(labels if labels.ndim == 3 else labels[..., None], kind):
        stream.write(slab.data.cast("B"))


def _slabs(labels: NDArray[Any], kind: np.dtype[Any]) -> Iterator[NDArray[Any]]:
    """The labels in the file's order, a few planes at a time, shape (planes, J, I)."""
    for k in range(0, labels.shape[2], _SLAB_PLANES):
        planes = labels[:, :, k : k + _SLAB_PLANES]
        if planes.flags.f_contiguous:
            yield planes.T.astype(kind, copy=False)
            continue
        slab = np.empty(planes.shape[::-1], kind)
        for j in range(planes.shape[1]):  # row by row and packed first: a transposed copy misses every cache
            slab[:, j] = np.ascontiguousarray(planes[:, j]).T
        yield slab
