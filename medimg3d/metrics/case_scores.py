"""Every metric of one case, class by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medimg3d.metrics.masks import Mask, Spacing, Values, union_masks
from medimg3d.metrics.overlap import dice
from medimg3d.metrics.surface import surface_distances
from medimg3d.metrics.volume import relative_volume_difference, volume_ml

FoundIn = Literal["both", "prediction only", "reference only", "neither"]
_FOUND_IN: dict[tuple[bool, bool], FoundIn] = {
    (True, True): "both",
    (True, False): "prediction only",
    (False, True): "reference only",
    (False, False): "neither",
}


@dataclass(frozen=True)
class ClassScore:
    """The metrics of one class in one case; NaN is undefined, None is unknown for want of a voxel size.

    Attributes:
        found_in: Which of the two label maps have the class.
        dice: 0 to 1; 0 if one map lacks the class, NaN if both do.
        hd95_mm: 95th percentile Hausdorff distance in mm; inf if one map lacks the class, NaN if both do.
        surface_dice: 0 to 1, at a tolerance; 0 if one map lacks the class, NaN if both do. This and ``hd95_mm`` are
            NaN, too, where a mask has no surface among the voxels whose truth is known.
        volume_difference_ml: Predicted minus true volume in mL; None for a 2D image, as both volumes.
        relative_volume_difference: The same as a share of the true volume; inf or NaN if that is 0.
        pred_volume_ml: Predicted volume in mL.
        truth_volume_ml: True volume in mL.
    """

    found_in: FoundIn
    dice: float
    hd95_mm: float | None
    surface_dice: float | None
    volume_difference_ml: float | None
    relative_volume_difference: float
    pred_volume_ml: float | None
    truth_volume_ml: float | None


def score_classes(
    pred: NDArray[np.integer[Any]],
    truth: NDArray[np.integer[Any]],
    classes: Sequence[int],
    *,
    spacing_mm: Spacing | None,
    tolerance_mm: float,
) -> dict[int, ClassScore]:
    """Score each class of a case.

    Args:
        pred: Predicted label map, shape (I, J, K), or (I, J) of a 2D image.
        truth: True label map, same shape and grid.
        classes: Labels to score, each at least 1.
        spacing_mm: Voxel size along each axis, in mm; None if unknown, which leaves mm and mL unknown.
        tolerance_mm: Tolerance of the surface Dice, in mm.

    Returns:
        Label → scores.

    Raises:
        ValueError: The shapes differ, or a setting is out of range.
    """
    unions = {label: ((label,), (label,)) for label in classes}
    return score_unions(pred, truth, unions, spacing_mm=spacing_mm, tolerance_mm=tolerance_mm)


def score_unions(
    pred: NDArray[np.integer[Any]],
    truth: NDArray[np.integer[Any]],
    unions: Mapping[int, tuple[Values, Values]],
    *,
    spacing_mm: Spacing | None,
    tolerance_mm: float,
    ignored: int | None = None,
) -> dict[int, ClassScore]:
    """Score each union of labels (a region), which may overlap.

    Args:
        pred: Predicted label map, shape (I, J, K), or (I, J) of a 2D image.
        truth: True label map, same shape and grid.
        unions: Number of a structure → the values that make it in the prediction, and those in the truth.
        spacing_mm: As for :func:`score_classes`.
        tolerance_mm: As for :func:`score_classes`.
        ignored: Value of the truth where nobody labelled: such voxels count in no score, nor do surface elements
            that touch them.

    Returns:
        Number → scores.

    Raises:
        ValueError: The shapes differ, or a setting is out of range.
    """
    if pred.shape != truth.shape:
        raise ValueError(f"Found label maps of shapes {pred.shape} and {truth.shape}; expected one grid.")
    known = None if ignored is None else truth != ignored
    if known is not None:
        pred, truth = np.where(known, pred, 0), np.where(known, truth, 0)
    return {
        number: score_class(
            masks.pred,
            masks.truth,
            spacing_mm=spacing_mm,
            tolerance_mm=tolerance_mm,
            known=None if known is None else known[masks.box],
        )
        for number, masks in union_masks(pred, truth, unions, margin=0 if known is None else 1)
    }


def score_class(
    pred: Mask, truth: Mask, *, spacing_mm: Spacing | None, tolerance_mm: float, known: Mask | None = None
) -> ClassScore:
    """Score one class; the distances are computed once for both surface metrics.

    Args:
        pred: Predicted mask.
        truth: True mask, same shape.
        spacing_mm: As for :func:`score_classes`.
        tolerance_mm: As for :func:`score_classes`.
        known: As for :func:`medimg3d.metrics.surface.surface_distances`; with what lies around the masks.
    """
    hd95_mm = surface = pred_ml = truth_ml = difference_ml = None
    if spacing_mm is not None:
        distances = surface_distances(pred, truth, spacing_mm=spacing_mm, known=known)
        hd95_mm, surface = distances.hausdorff_mm(95), distances.surface_dice(tolerance_mm)
        if pred.ndim == 3:
            pred_ml, truth_ml = (volume_ml(mask, spacing_mm=spacing_mm) for mask in (pred, truth))
            difference_ml = pred_ml - truth_ml
    return ClassScore(
        found_in=_FOUND_IN[bool(pred.any()), bool(truth.any())],
        dice=dice(pred, truth),
        hd95_mm=hd95_mm,
        surface_dice=surface,
        volume_difference_ml=difference_ml,
        relative_volume_difference=relative_volume_difference(pred, truth),
        pred_volume_ml=pred_ml,
        truth_volume_ml=truth_ml,
    )
