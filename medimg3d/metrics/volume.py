"""Volume of a mask and by how much two volumes differ."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medimg3d.metrics.masks import Spacing, checked_spacing, mask_pair

MM3_PER_ML = 1000.0


def volume_ml(mask: NDArray[Any], *, spacing_mm: Spacing) -> float:
    """Volume of a mask: voxels inside times the size of one.

    Args:
        mask: Mask, shape (I, J, K); non-zero is inside.
        spacing_mm: Voxel size along I, J, K, in mm.

    Returns:
        Volume in mL; 0 if the mask is empty.

    Raises:
        ValueError: The mask has not three axes, or the voxel size is not three positive numbers.
    """
    mask = np.asarray(mask)
    if mask.ndim != 3:
        raise ValueError(f"Found a mask with {mask.ndim} axes; a volume needs three (I, J, K).")
    voxel_mm3 = float(np.prod(checked_spacing(spacing_mm, 3)))
    return np.count_nonzero(mask) * voxel_mm3 / MM3_PER_ML


def volume_difference_ml(pred: NDArray[Any], truth: NDArray[Any], *, spacing_mm: Spacing) -> float:
    """Predicted minus true volume, in mL: positive where the prediction is too big; 0 if both are empty.

    Args:
        pred: Mask, shape (I, J, K).
        truth: Mask, same shape and grid.
        spacing_mm: Voxel size along I, J, K, in mm.

    Raises:
        ValueError: The shapes differ, or :func:`volume_ml` refuses a mask.
    """
    pred, truth = mask_pair(pred, truth)
    return volume_ml(pred, spacing_mm=spacing_mm) - volume_ml(truth, spacing_mm=spacing_mm)


def relative_volume_difference(pred: NDArray[Any], truth: NDArray[Any]) -> float:
    """Predicted minus true volume, as a share of the true one; needs no voxel size.

    Args:
        pred: Mask, any shape.
        truth: Mask, same shape and grid.

    Returns:
        From -1 (nothing found) up, 0 where the volumes agree; inf if only the truth is empty, NaN if both.

    Raises:
        ValueError: The shapes differ.
    """
    pred, truth = mask_pair(pred, truth)
    found, expected = np.count_nonzero(pred), np.count_nonzero(truth)
    if expected == 0:
        return float("inf") if found else float("nan")
    return (found - expected) / expected
