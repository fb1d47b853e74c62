"""Pairs of masks on one grid: what every overlap, surface and volume metric takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Spacing = Sequence[float]
Values = Sequence[int]


@dataclass(frozen=True, eq=False)
class CroppedMasks:
    """The two masks of one structure, cropped to the box that holds both.

    Attributes:
        pred: Predicted mask; of size 0, as the other, where both are empty.
        truth: True mask, same shape.
        box: Where in the label maps they lie.
    """

    pred: Mask
    truth: Mask
    box: tuple[slice, ...]


def mask_pair(pred: NDArray[Any], truth: NDArray[Any]) -> tuple[Mask, Mask]:
    """The two masks as booleans (non-zero is inside), on one grid.

    Raises:
        ValueError: The shapes differ.
    """
    pred, truth = np.asarray(pred), np.asarray(truth)
    if pred.shape != truth.shape:
        raise ValueError(
            f"Found masks of shapes {pred.shape} and {truth.shape}; expected one grid. "
            "Resample one onto the other."
        )
    return pred.astype(bool, copy=False), truth.astype(bool, copy=False)


def checked_spacing(spacing_mm: Spacing, num_axes: int) -> NDArray[np.float64]:
    """Voxel size as an array, one positive finite number an axis, in mm.

    Raises:
        ValueError: Another number of axes, or a size that is not positive and finite.
    """
    spacing = np.asarray(spacing_mm, dtype=np.float64)
    if spacing.shape != (num_axes,) or not np.all(np.isfinite(spacing) & (spacing > 0)):
        raise ValueError(
            f"spacing_mm must be {num_axes} positive numbers (mm), got {tuple(spacing.ravel().tolist())}."
        )
    return spacing


def union_box(pred: Mask, truth: Mask) -> tuple[slice, ...] | None:
    """The smallest box that holds both masks, or None if both are empty."""
    union = pred | truth
    if not union.any():
        return None
    box = []
    for axis in range(union.ndim):
        others = tuple(other for other in range(union.ndim) if other != axis)
        inside = np.flatnonzero(union.any(axis=others))
        box.append(slice(int(inside[0]), int(inside[-1]) + 1))
    return tuple(box)


def labels_in(labels: NDArray[np.integer[Any]]) -> list[int]:
    """The labels of a map, ascending, without the background 0; needs no copy of the map."""
    from scipy.ndimage import find_objects

    return [label for label, box in enumerate(find_objects(labels), start=1) if box is not None]


def class_masks(
    pred: NDArray[np.integer[Any]], truth: NDArray[np.integer[Any]], classes: Sequence[int]
) -> Iterator[tuple[int, Mask, Mask]]:
    """Each class's two masks, cropped to the box that holds both; one pass over each map finds all boxes.

    Args:
        pred: Label map, any shape, values from 0.
        truth: Label map, same shape.
        classes: Labels to look for, each at least 1.

    Yields:
        Label, predicted mask and true mask; both masks have size 0 if the class is in neither map.
    """
    for label, masks in union_masks(pred, truth, {label: ((label,), (label,)) for label in classes}):
        yield label, masks.pred, masks.truth


def union_masks(
    pred: NDArray[np.integer[Any]],
    truth: NDArray[np.integer[Any]],
    unions: Mapping[int, tuple[Values, Values]],
    *,
    margin: int = 0,
) -> Iterator[tuple[int, CroppedMasks]]:
    """The two masks of each union of labels, which may overlap; one pass over each map finds all boxes.

    Args:
        pred: Label map, any shape, values from 0.
        truth: Label map, same shape.
        unions: Number of a structure → the values that make it in the prediction, and those in the truth; each at
            least 1.
        margin: Voxels by which the boxes are wider, within the maps.

    Yields:
        Number and masks.
    """
    from scipy.ndimage import find_objects

    sides = [[value for pair in unions.values() for value in pair[side]] for side in (0, 1)]
    boxes = [
        find_objects(labels, max_label=max(values, default=0))
        for labels, values in zip((pred, truth), sides, strict=True)
    ]
    for number, pair in unions.items():
        found = [
            own[value - 1]
            for own, values in zip(boxes, pair, strict=True)
            for value in values
            if own[value - 1] is not None
        ]
        box = tuple(
            slice(
                max(0, min(one[axis].start for one in found) - margin),
                max(one[axis].stop for one in found) + margin,
            )
            if found
            else slice(0, 0)
            for axis in range(pred.ndim)
        )
        yield number, CroppedMasks(_inside(pred[box], pair[0]), _inside(truth[box], pair[1]), box)


def _inside(labels: NDArray[np.integer[Any]], values: Values) -> Mask:
    return labels == values[0] if len(values) == 1 else np.isin(labels, values)
