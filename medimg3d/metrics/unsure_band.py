"""Which cases a classifier leaves to a human: a band of probabilities around its threshold."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medimg3d.metrics.threshold import Cuts, all_cuts


@dataclass(frozen=True)
class UnsureBand:
    """A band of probabilities, and what it does on the cases that it was chosen on.

    Attributes:
        low: Cases with a lower probability are decided as negative.
        high: Cases with a higher probability are decided as positive.
        share: Share of the cases that lie in the band and go to a human.
        error_outside: Share of wrong decisions among the others; on the cases of the choice, so a little
            too low.
        error_without_band: Share of wrong decisions among all cases at the threshold.
    """

    low: float
    high: float
    share: float
    error_outside: float
    error_without_band: float


@dataclass(frozen=True)
class LowestConfidence:
    """The least probability of the decided class that is trusted, for several classes.

    Attributes:
        value: Cases with a lower probability of their decided class go to a human.
        share: Share of the cases that do.
        error_outside: Share of wrong decisions among the others.
        error_without: Share of wrong decisions among all cases.
    """

    value: float
    share: float
    error_outside: float
    error_without: float


def unsure_band(
    probabilities: ArrayLike,
    labels: ArrayLike,
    threshold: float,
    *,
    share: float | None = None,
    max_error: float | None = None,
) -> UnsureBand | None:
    """The band around a threshold that is sent to a human, chosen on validation cases.

    With ``max_error`` the band with the fewest cases whose error rate outside is at most that; with
    ``share`` the band with the fewest errors outside that holds at most that share. Among equals: the fewest
    errors outside, the fewest cases inside, the narrowest. It need not be symmetric: its ends lie between
    scores, on either side of the threshold.

    Args:
        probabilities: Probability of the positive class, shape (n,).
        labels: 1 or true for positive cases, shape (n,).
        threshold: What parts the decisions; the band holds it.
        share: Largest share of the cases to send to a human, 0 to below 1.
        max_error: Largest share of wrong decisions among the cases outside, 0 to 1.

    Returns:
        The band; low and high equal the threshold where none is needed. None where no band reaches
        ``max_error`` and still leaves a case to decide.

    Raises:
        ValueError: Neither or both of ``share`` and ``max_error``, one out of range, or as for
            :func:`medimg3d.metrics.threshold.all_cuts`.
    """
    _check(share, max_error)
    cuts = all_cuts(probabilities, labels)
    at = _at_threshold(probabilities, labels, threshold)
    left, right = _sides(cuts, threshold, at)
    best = _best_ends(left, right, cuts.num_cases, share, max_error)
    if best is None:
        return None
    low, high, inside, errors = best
    return UnsureBand(
        float(low),
        float(high),
        float(inside / cuts.num_cases),
        float(errors / (cuts.num_cases - inside)) if inside < cuts.num_cases else math.nan,
        float(at[2] / cuts.num_cases),
    )


def lowest_confidence(
    confidence: ArrayLike,
    correct: ArrayLike,
    *,
    share: float | None = None,
    max_error: float | None = None,
) -> LowestConfidence | None:
    """The least probability of the decided class that is trusted, for any number of classes.

    Args:
        confidence: Probability of the decided class, shape (n,).
        correct: Whether the decision is right, shape (n,).
        share: Largest share of the cases to send to a human, 0 to below 1.
        max_error: Largest share of wrong decisions among the others; the fewest cases are sent that reach it.

    Returns:
        The confidence; None where none reaches ``max_error`` and still leaves a case to decide.

    Raises:
        ValueError: Neither or both of ``share`` and ``max_error``, one out of range, or no case.
    """
    _check(share, max_error)
    scores, right = np.asarray(confidence, dtype=np.float64), np.asarray(correct).astype(bool)
    if scores.ndim != 1 or scores.shape != right.shape or not scores.size or not np.all(np.isfinite(scores)):
        raise ValueError("Expected one finite confidence and one correct or wrong a case, and at least one.")
    distinct, index = np.unique(scores, return_inverse=True)
    counts = np.bincount(index)
    wrong = np.bincount(index, weights=~right)
    below = np.concatenate([[0], np.cumsum(counts)])[:-1]
    left_wrong = wrong.sum() - np.concatenate([[0], np.cumsum(wrong)])[:-1]
    decided = scores.size - below
    if share is not None:
        allowed = np.flatnonzero(below <= share * scores.size + 1e-9)
        chosen = int(allowed[-1])
    else:
        assert max_error is not None  # _check
        allowed = np.flatnonzero(left_wrong <= max_error * decided + 1e-9)
        if not len(allowed):
            return None
        chosen = int(allowed[0])
    value = (distinct[chosen - 1] + distinct[chosen]) / 2 if chosen else 0.0
    return LowestConfidence(
        float(value),
        float(below[chosen] / scores.size),
        float(left_wrong[chosen] / decided[chosen]),
        float(wrong.sum() / scores.size),
    )


def _best_ends(
    left: NDArray[np.float64],
    right: NDArray[np.float64],
    num_cases: int,
    share: float | None,
    max_error: float | None,
) -> tuple[float, float, float, float] | None:
    """Ends of the best band, the cases inside it and the errors outside; None if none is allowed."""
    best: tuple[float, ...] | None = None
    for low, below, missed in left:
        inside = right[:, 1] - below
        errors = missed + right[:, 2]
        outside = num_cases - inside
        if share is not None:
            allowed = inside <= share * num_cases + 1e-9
            first, second = errors, inside
        else:
            assert max_error is not None  # _check
            allowed = (outside > 0) & (errors <= max_error * outside + 1e-9)
            first, second = inside, errors
        for i in np.flatnonzero(allowed):
            if best is None or first[i] <= best[0]:
                key = (first[i], second[i], right[i, 0] - low, low, right[i, 0], inside[i], errors[i])
                best = key if best is None else min(best, key)
    return None if best is None else (best[3], best[4], best[5], best[6])


def _check(share: float | None, max_error: float | None) -> None:
    if (share is None) == (max_error is None):
        raise ValueError("Expected exactly one of share and max_error.")
    if share is not None and not 0 <= share < 1:
        raise ValueError(f"share must be at least 0 and below 1, got {share}.")
    if max_error is not None and not 0 <= max_error <= 1:
        raise ValueError(f"max_error must be between 0 and 1, got {max_error}.")


def _at_threshold(probabilities: ArrayLike, labels: ArrayLike, threshold: float) -> tuple[int, int, int]:
    """Cases below the threshold, positives among them, and wrong decisions in all."""
    scores, positive = np.asarray(probabilities, dtype=np.float64), np.asarray(labels).astype(bool)
    below = scores <= threshold
    missed = int((below & positive).sum())
    return int(below.sum()), missed, missed + int((~below & ~positive).sum())


def _sides(
    cuts: Cuts, threshold: float, at: tuple[int, int, int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The possible lower and upper ends, the threshold among both.

    Returns:
        Rows of (end, cases below it, positives missed below it), and of (end, cases below it, negatives
        called positive above it).
    """
    below, missed, wrong = at
    table = np.stack([cuts.thresholds, cuts.below, cuts.missed, cuts.false_alarms], axis=1)
    lower = table[(cuts.thresholds < threshold) & (cuts.below < below)][:, [0, 1, 2]]
    upper = table[(cuts.thresholds > threshold) & (cuts.below > below)][:, [0, 1, 3]]
    left = np.concatenate([lower, [[threshold, below, missed]]])
    right = np.concatenate([[[threshold, below, wrong - missed]], upper])
    return left, right
