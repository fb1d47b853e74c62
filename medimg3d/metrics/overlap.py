"""Overlap of two masks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medimg3d.metrics.masks import mask_pair


def dice(pred: NDArray[Any], truth: NDArray[Any]) -> float:
    """Share of the two masks that they have in common: 2 |A ∩ B| / (|A| + |B|).

    Args:
        pred: Mask, any shape; non-zero is inside.
        truth: Mask, same shape and grid.

    Returns:
        0 to 1, without unit; 0 if one mask is empty, NaN if both are (nothing to find and nothing found
        is no overlap of 1: such a case is left out of a mean and counted).

    Raises:
        ValueError: The shapes differ.

    Source: Dice 1945, doi:10.2307/1932409; MONAI's ``DiceMetric`` gives NaN for an empty truth as well.
    """
    pred, truth = mask_pair(pred, truth)
    size = np.count_nonzero(pred) + np.count_nonzero(truth)
    if size == 0:
        return float("nan")
    return 2.0 * np.count_nonzero(pred & truth) / size
