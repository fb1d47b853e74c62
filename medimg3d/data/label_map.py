"""Reads label maps to measure: whole numbers, and a voxel size that is known or said to be unknown."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medimg3d.data.volume_file import read_volume
from medimg3d.errors import DataError, GeometryError

GRID_TOLERANCE_MM = 0.1
"""Largest distance between the corners of two grids that count as one, in mm; the same for the cases of a datalist."""


@dataclass(frozen=True, eq=False)
class LabelMap:
    """A label map and its grid.

    Attributes:
        labels: Whole numbers from 0, shape (I, J, K), or (I, J) of a 2D image.
        affine: RAS affine in mm, shape (4, 4); of no meaning where ``spacing_mm`` is None.
        spacing_mm: Voxel size along each axis of ``labels``, in mm; None where the file does not state it.
    """

    labels: NDArray[np.integer[Any]]
    affine: NDArray[np.float64]
    spacing_mm: tuple[float, ...] | None


def read_label_map(path: Path) -> LabelMap:
    """Read a label map: NIfTI, NRRD or MetaImage. One of a single plane, (I, J, 1), is a 2D image's, too: (I, J).

    The voxel size counts as unknown as :class:`medimg3d.data.volume_file.Volume` says: a NIfTI header that
    has neither an sform nor a qform and names no unit of length.

    Raises:
        DataError: Unreadable, neither 2D nor 3D, or values that are not whole numbers from 0. Messages start with a
            verb and hold no path.
        GeometryError: An affine that is not finite or flattens the volume, or lengths that are not in mm.
    """
    volume = read_volume(path)
    array = volume.array
    if array.ndim not in (2, 3):
        raise DataError(
            f"has shape {array.shape}; expected one label map with the axes (I, J, K), or (I, J) of a 2D image"
        )
    if array.shape[2:] == (1,):
        array = array[..., 0]
    spacing_mm = volume.spacing_mm[: array.ndim] if volume.has_known_size else None
    return LabelMap(_whole_numbers(array), volume.affine, spacing_mm)


def check_same_grid(pred: LabelMap, truth: LabelMap) -> None:
    """Refuse two label maps whose voxels are not at the same places.

    Raises:
        GeometryError: The shapes differ, or the affines place a corner more than 0.1 mm apart. Affines are not
            compared where the truth's is unknown.
    """
    if pred.labels.shape != truth.labels.shape:
        raise GeometryError(
            f"Prediction has shape {pred.labels.shape}, reference {truth.labels.shape}; expected one grid. "
            "Save the prediction on the grid of its image."
        )
    if truth.spacing_mm is None:
        return
    apart_mm = _corners_apart_mm(pred.affine, truth.affine, truth.labels.shape)
    if apart_mm > GRID_TOLERANCE_MM:
        raise GeometryError(
            f"Prediction and reference have affines that place their corners {apart_mm:.3g} mm apart; expected at most "
            f"{GRID_TOLERANCE_MM:g} mm. Save the prediction on the grid of its image."
        )


def _corners_apart_mm(
    first: NDArray[np.float64], second: NDArray[np.float64], shape: tuple[int, ...]
) -> float:
    sizes = (*shape, 1)[:3]
    corners = np.array([[*corner, 1] for corner in np.ndindex(2, 2, 2)]) * [*(size - 1 for size in sizes), 1]
    return float(np.linalg.norm((corners @ (first - second).T)[:, :3], axis=1).max())


def _whole_numbers(array: NDArray[Any]) -> NDArray[np.integer[Any]]:
    if array.dtype.kind == "u":
        return array
    if array.dtype.kind not in "fib":
        raise DataError(f"holds values of type {array.dtype}; expected whole numbers from 0")
    if array.size and (not np.isfinite(array).all() or array.min() < 0 or array.max() > 65535):
        raise DataError("holds values below 0, above 65535 or not finite; expected labels from 0")
    labels: NDArray[np.integer[Any]] = array.astype(np.uint16)
    if not np.array_equal(labels, array):
        raise DataError("holds fractions; expected whole labels. Take the arg max of probabilities")
    return labels
