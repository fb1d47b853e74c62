"""Pairs of masks on one grid: what every overlap, surface and volume metric takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Spacing = Sequence[float]


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
    from scipy.ndimage import find_objects

    boxes = [find_objects(labels, max_label=max(classes, default=0)) for labels in (pred, truth)]
    for label in classes:
        found = [box[label - 1] for box in boxes if box[label - 1] is not None]
        crop = tuple(
            slice(min(box[axis].start for box in found), max(box[axis].stop for box in found))
            if found
            else slice(0, 0)
            for axis in range(pred.ndim)
        )
        yield label, pred[crop] == label, truth[crop] == label
