"""How well scores order the cases, whatever the threshold: ROC, precision-recall, and the areas below.

The areas are vectorised over resamples, which makes their bootstrap cheap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class RocCurve:
    """Sensitivity against the share of false alarms, from the strictest threshold to the loosest.

    Attributes:
        false_positive_rate: 1 − specificity, rising from 0 to 1, shape (points,).
        sensitivity: Rising from 0 to 1, shape (points,).
        scores: The cases with at least this score are called positive; inf at the first point.
        auc: Area below the curve.
    """

    false_positive_rate: Floats
    sensitivity: Floats
    scores: Floats
    auc: float


@dataclass(frozen=True)
class PrecisionRecallCurve:
    """Precision against recall, from the strictest threshold to the loosest.

    Attributes:
        recall: Rising to 1, shape (points,).
        precision: Shape (points,).
        scores: The cases with at least this score are called positive.
        average_precision: Precision averaged over the steps of the recall.
        prevalence: Share of positives: the precision of calling every case positive.
    """

    recall: Floats
    precision: Floats
    scores: Floats
    average_precision: float
    prevalence: float


def auc(scores: ArrayLike, positive: ArrayLike) -> float:
    """Chance that a positive case scores higher than a negative one; a tie counts half.

    Args:
        scores: One finite number a case, higher for the positive class, shape (n,).
        positive: Whether each case is positive, shape (n,).

    Returns:
        0 to 1; NaN if there is no positive or no negative case.

    Raises:
        ValueError: The lengths differ, or a score is not finite.

    Source: Hanley and McNeil 1982, doi:10.1148/radiology.143.1.7063747; scikit-learn's ``roc_auc_score``.
    """
    return float(weighted_auc(scores, positive, np.ones((1, np.size(positive))))[0])


def average_precision(scores: ArrayLike, positive: ArrayLike) -> float:
    """Precision at each step of the recall, weighed by the step; no interpolation.

    Depends on the share of positives: compare it on the same cases only.

    Args:
        scores: One finite number a case, higher for the positive class, shape (n,).
        positive: Whether each case is positive, shape (n,).

    Returns:
        0 to 1; NaN if there is no positive or no negative case.

    Raises:
        ValueError: The lengths differ, or a score is not finite.

    Source: scikit-learn's ``average_precision_score``.
    """
    return float(weighted_average_precision(scores, positive, np.ones((1, np.size(positive))))[0])


def weighted_auc(scores: ArrayLike, positive: ArrayLike, weights: Floats) -> Floats:
    """:func:`auc` of many resamples at once.

    Args:
        scores: One finite number a case, shape (n,).
        positive: Whether each case is positive, shape (n,).
        weights: How often each case counts, shape (resamples, n).

    Returns:
        Shape (resamples,); NaN where no positive or no negative case counts.

    Raises:
        ValueError: The lengths differ, or a score is not finite.
    """
    positives, negatives, _ = _by_rising_score(scores, positive, weights)
    below = np.cumsum(negatives, axis=1) - negatives / 2
    pairs = positives.sum(1) * negatives.sum(1)
    return _ratio((positives * below).sum(1), pairs)


def weighted_average_precision(scores: ArrayLike, positive: ArrayLike, weights: Floats) -> Floats:
    """:func:`average_precision` of many resamples at once; arguments as for :func:`weighted_auc`."""
    positives, negatives, _ = _by_rising_score(scores, positive, weights)
    positives, negatives = positives[:, ::-1], negatives[:, ::-1]
    found = np.cumsum(positives, axis=1)
    called = found + np.cumsum(negatives, axis=1)
    precision = np.divide(found, called, out=np.zeros_like(found), where=called > 0)
    result = _ratio((positives * precision).sum(1), positives.sum(1))
    result[negatives.sum(1) == 0] = np.nan
    return result


def weighted_specificity_at_sensitivity(
    scores: ArrayLike, positive: ArrayLike, weights: Floats, sensitivity: Floats
) -> Floats:
    """The highest specificity of any threshold that still finds this share of the positives.

    The threshold is chosen anew in each resample, on the very cases that it is judged on.

    Args:
        scores: One finite number a case, shape (n,).
        positive: Whether each case is positive, shape (n,).
        weights: How often each case counts, shape (resamples, n).
        sensitivity: Share of the positives to find, 0 to 1, shape (resamples,).

    Returns:
        Shape (resamples,); NaN where no positive or no negative case counts, or the share is NaN.

    Raises:
        ValueError: The lengths differ, or a score is not finite.
    """
    positives, negatives, _ = _by_rising_score(scores, positive, weights)
    found, alone = positives.sum(1), negatives.sum(1)
    may_miss = (1 - sensitivity) * found * (1 + 1e-9) + 1e-9
    below = np.cumsum(positives, axis=1) <= may_miss[:, None]  # the cut may lie above this distinct score
    left_alone = (negatives * below).sum(1)
    result = _ratio(left_alone, alone)
    result[(found == 0) | np.isnan(sensitivity)] = np.nan
    return result


def roc_curve(scores: ArrayLike, positive: ArrayLike) -> RocCurve:
    """The ROC curve with a point for every distinct score.

    Args:
        scores: One finite number a case, higher for the positive class, shape (n,).
        positive: Whether each case is positive, shape (n,).

    Returns:
        The curve; NaN along the axis whose class has no case.

    Raises:
        ValueError: The lengths differ, or a score is not finite.
    """
    found, false_alarms, distinct = _counts_from_the_top(scores, positive)
    return RocCurve(
        _ratio(np.concatenate([[0.0], false_alarms]), false_alarms[-1] if len(distinct) else 0.0),
        _ratio(np.concatenate([[0.0], found]), found[-1] if len(distinct) else 0.0),
        np.concatenate([[np.inf], distinct]),
        auc(scores, positive),
    )


def precision_recall_curve(scores: ArrayLike, positive: ArrayLike) -> PrecisionRecallCurve:
    """The precision-recall curve with a point for every distinct score; arguments as for :func:`roc_curve`."""
    found, false_alarms, distinct = _counts_from_the_top(scores, positive)
    total = found[-1] if len(distinct) else 0.0
    count = np.size(positive)
    return PrecisionRecallCurve(
        _ratio(found, total),
        _ratio(found, found + false_alarms),
        distinct,
        average_precision(scores, positive),
        float(total / count) if count else float("nan"),
    )


def _counts_from_the_top(scores: ArrayLike, positive: ArrayLike) -> tuple[Floats, Floats, Floats]:
    """Positives and negatives with at least each distinct score, and the scores, highest first."""
    ones = np.ones((1, np.size(positive)))
    positives, negatives, distinct = _by_rising_score(scores, positive, ones)
    return np.cumsum(positives[0, ::-1]), np.cumsum(negatives[0, ::-1]), distinct[::-1]


def _by_rising_score(
    scores: ArrayLike, positive: ArrayLike, weights: Floats
) -> tuple[Floats, Floats, Floats]:
    """Weight of the positives and of the negatives at each distinct score, and the scores, rising."""
    values, labels = np.asarray(scores, dtype=np.float64), np.asarray(positive).astype(bool)
    if values.ndim != 1 or values.shape != labels.shape or weights.shape[1:] != values.shape:
        raise ValueError(
            f"scores, positive and weights have the shapes {values.shape}, {labels.shape} and {weights.shape}; "
            "expected (n,), (n,) and (resamples, n)."
        )
    if not np.all(np.isfinite(values)):
        raise ValueError("A score is NaN or infinite; expected a finite number for every case.")
    order = np.argsort(values, kind="stable")
    values, labels = values[order], labels[order]
    if not len(values):
        nothing = np.zeros((len(weights), 0))
        return nothing, nothing, values
    starts = np.flatnonzero(np.concatenate([[True], np.diff(values) > 0]))
    sorted_weights = weights[:, order].astype(np.float64, copy=False)
    positives = np.add.reduceat(sorted_weights * labels, starts, axis=1)
    negatives = np.add.reduceat(sorted_weights * ~labels, starts, axis=1)
    return positives, negatives, values[starts]


def _ratio(part: Floats, whole: Any) -> Floats:
    """Part over whole; NaN where the whole is 0."""
    result = np.full(part.shape, np.nan)
    np.divide(part, whole, out=result, where=np.asarray(whole) > 0)
    return result
