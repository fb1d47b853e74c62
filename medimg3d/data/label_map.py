"""Reads label maps to measure: whole numbers, and a voxel size that is known or said to be unknown."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medimg3d.errors import DataError, GeometryError

GRID_TOLERANCE_MM = 1e-3
_MM_PER_UNIT = {"meter": 1000.0, "micron": 1e-3}


@dataclass(frozen=True, eq=False)
class LabelMap:
    """A label map and its grid.

    Attributes:
        labels: Whole numbers from 0, shape (I, J, K).
        affine: RAS affine in mm, shape (4, 4); of no meaning where ``spacing_mm`` is None.
        spacing_mm: Voxel size along I, J, K, in mm; None where the file does not state it.
    """

    labels: NDArray[np.integer[Any]]
    affine: NDArray[np.float64]
    spacing_mm: tuple[float, float, float] | None


def read_label_map(path: Path) -> LabelMap:
    """Read a NIfTI label map.

    The voxel size counts as unknown if the header has neither an sform nor a qform (both codes 0) and names
    no unit of length: its numbers are then a program's defaults, not a measurement.

    Raises:
        DataError: No NIfTI file, not 3D, or values that are not whole numbers from 0.
        GeometryError: An affine that is not finite or flattens the volume.
    """
    import nibabel

    try:
        image: Any = nibabel.load(path)
        array = np.asanyarray(image.dataobj)
    except Exception as err:  # nibabel raises many kinds; each means an unreadable file
        raise DataError(
            f"{path.name} cannot be read ({type(err).__name__}); expected a whole NIfTI file."
        ) from err
    affine, spacing_mm = _grid(image.header, np.asarray(image.affine, dtype=np.float64), path.name)
    return LabelMap(_whole_numbers(_three_axes(array, path.name), path.name), affine, spacing_mm)


def check_same_grid(pred: LabelMap, truth: LabelMap) -> None:
    """Refuse two label maps whose voxels are not at the same places.

    Raises:
        GeometryError: The shapes differ, or an entry of the affines by more than 1e-3 mm. Affines are not
            compared where the truth's is unknown.
    """
    if pred.labels.shape != truth.labels.shape:
        raise GeometryError(
            f"Prediction has shape {pred.labels.shape}, reference {truth.labels.shape}; expected one grid. "
            "Save the prediction on the grid of its image."
        )
    if truth.spacing_mm is None:
        return
    apart_mm = float(np.abs(pred.affine - truth.affine).max())
    if apart_mm > GRID_TOLERANCE_MM:
        raise GeometryError(
            f"Prediction and reference have affines that differ by {apart_mm:.3g} mm; expected at most "
            f"{GRID_TOLERANCE_MM:g} mm. Save the prediction on the grid of its image."
        )


def _grid(
    header: Any, affine: NDArray[np.float64], name: str
) -> tuple[NDArray[np.float64], tuple[float, float, float] | None]:
    has_codes = "sform_code" in header and "qform_code" in header
    unit = header.get_xyzt_units()[0] if hasattr(header, "get_xyzt_units") else "mm"
    if has_codes and int(header["sform_code"]) == 0 and int(header["qform_code"]) == 0 and unit == "unknown":
        return affine, None
    scale = np.diag([*[_MM_PER_UNIT.get(unit, 1.0)] * 3, 1.0])
    affine = scale @ affine
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise GeometryError(
            f"{name} has an affine that is not finite or flattens the volume; mend its header."
        )
    i, j, k = (float(size) for size in np.linalg.norm(affine[:3, :3], axis=0))
    return affine, (i, j, k)


def _three_axes(array: NDArray[Any], name: str) -> NDArray[Any]:
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim != 3:
        raise DataError(f"{name} has shape {array.shape}; expected one label map with three axes (I, J, K).")
    return array


def _whole_numbers(array: NDArray[Any], name: str) -> NDArray[np.integer[Any]]:
    if array.dtype.kind == "u":
        return array
    if array.dtype.kind not in "fib":
        raise DataError(f"{name} holds values of type {array.dtype}; expected whole numbers from 0.")
    if array.size and (not np.isfinite(array).all() or array.min() < 0 or array.max() > 65535):
        raise DataError(f"{name} holds values below 0, above 65535 or not finite; expected labels from 0.")
    labels: NDArray[np.integer[Any]] = array.astype(np.uint16)
    if not np.array_equal(labels, array):
        raise DataError(f"{name} holds fractions; expected whole labels. Take the arg max of probabilities.")
    return labels
