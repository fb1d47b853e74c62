"""Where to cut a probability: thresholds between the scores, and two classifiers at equal sensitivity.

Choose a threshold on validation cases, never on the cases that are reported. A threshold is the midpoint of
two neighbouring scores, never a score itself, so that it does not matter whether "at least" or "above" is
meant, nor how the number was rounded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Threshold:
    """A threshold and what it does on the cases that it was chosen on.

    Attributes:
        value: Cases with a higher probability are called positive.
        sensitivity: Share of the positive cases that it finds.
        specificity: Share of the negative cases that it leaves alone.
        ties: The other thresholds that meet the rule just as well, rising; usually empty.
        margin: Distance to the nearest score.
    """

    value: float
    sensitivity: float
    specificity: float
    ties: tuple[float, ...] = ()
    margin: float = 0.0


@dataclass(frozen=True)
class EqualSensitivity:
    """Two classifiers on the same cases, the other one cut so that it finds at least as many positives.

    Attributes:
        reference: Of the reference, at the threshold given.
        other: Of the other.
        false_positives_reference: Negative cases that the reference calls positive.
        false_positives_other: Negative cases that the other calls positive.
    """

    reference: Threshold
    other: Threshold
    false_positives_reference: int
    false_positives_other: int

    @property
    def specificity_gain(self) -> float:
        """Specificity of the other minus that of the reference; above 0 means fewer false alarms."""
        return self.other.specificity - self.reference.specificity


@dataclass(frozen=True)
class Cuts:
    """Every way to part the cases by a threshold, from the lowest to the highest.

    Attributes:
        thresholds: Rising, shape (cuts,): below all scores, between neighbours, above all.
        missed: Positive cases below each, shape (cuts,).
        below: Cases below each, shape (cuts,).
        margins: Distance to the nearest score, shape (cuts,).
        num_positive: Number of positive cases.
        num_cases: Number of cases.
    """

    thresholds: Floats
    missed: NDArray[np.int64]
    below: NDArray[np.int64]
    margins: Floats
    num_positive: int
    num_cases: int

    @property
    def num_negative(self) -> int:
        """Number of negative cases."""
        return self.num_cases - self.num_positive

    @property
    def false_alarms(self) -> NDArray[np.int64]:
        """Negative cases above each threshold, shape (cuts,)."""
        return self.num_negative - (self.below - self.missed)

    @property
    def sensitivity(self) -> Floats:
        """Of each threshold, shape (cuts,)."""
        return (self.num_positive - self.missed) / self.num_positive

    @property
    def specificity(self) -> Floats:
        """Of each threshold, shape (cuts,)."""
        return (self.below - self.missed) / self.num_negative


def youden_threshold(probabilities: ArrayLike, labels: ArrayLike) -> Threshold:
    """The threshold with the highest sensitivity + specificity − 1.

    Of several as good, the one farthest from any score (the next cases move it least), then the lowest; the
    others are in ``ties``.

    Args:
        probabilities: Probability of the positive class, shape (n,).
        labels: 1 or true for positive cases, shape (n,).

    Returns:
        The threshold.

    Raises:
        ValueError: The lengths differ, a probability is not finite, or a class has no case.

    Source: Youden 1950, doi:10.1002/1097-0142(1950)3:1<32::AID-CNCR2820030106>3.0.CO;2-3.
    """
    cuts = all_cuts(probabilities, labels)
    # Compared as whole numbers, so that rounding makes no winner.
    gain = -(cuts.missed * cuts.num_negative + cuts.false_alarms * cuts.num_positive)
    return _best(cuts, gain == gain.max())


def threshold_at_sensitivity(probabilities: ArrayLike, labels: ArrayLike, sensitivity: float) -> Threshold:
    """The most specific threshold that finds at least this share of the positive cases.

    Args:
        probabilities: Probability of the positive class, shape (n,).
        labels: 1 or true for positive cases, shape (n,).
        sensitivity: Share to find, above 0 to 1.

    Returns:
        The threshold; of several as specific, the most sensitive.

    Raises:
        ValueError: As for :func:`youden_threshold`, or the share is out of range.
    """
    _check_share("sensitivity", sensitivity)
    cuts = all_cuts(probabilities, labels)
    allowed = cuts.sensitivity >= sensitivity - _ROUNDING
    return _lexicographic(cuts, allowed, cuts.false_alarms, cuts.missed)


def threshold_at_specificity(probabilities: ArrayLike, labels: ArrayLike, specificity: float) -> Threshold:
    """The most sensitive threshold that leaves at least this share of the negative cases alone.

    Args:
        probabilities: Probability of the positive class, shape (n,).
        labels: 1 or true for positive cases, shape (n,).
        specificity: Share to leave alone, above 0 to 1.

    Returns:
        The threshold; of several as sensitive, the most specific.

    Raises:
        ValueError: As for :func:`youden_threshold`, or the share is out of range.
    """
    _check_share("specificity", specificity)
    cuts = all_cuts(probabilities, labels)
    allowed = cuts.specificity >= specificity - _ROUNDING
    return _lexicographic(cuts, allowed, cuts.missed, cuts.false_alarms)


def specificity_at_equal_sensitivity(
    reference: ArrayLike, other: ArrayLike, labels: ArrayLike, *, reference_threshold: float
) -> EqualSensitivity:
    """How many false alarms another classifier gives when it finds no fewer positive cases.

    The other's threshold is chosen on these very cases, which flatters it a little: report the comparison on
    cases of its own, or with an interval that chooses the threshold anew in each resample.

    Args:
        reference: Probabilities of the classifier in use, shape (n,).
        other: Probabilities of the one that might replace it, shape (n,), same cases in the same order.
        labels: 1 or true for positive cases, shape (n,).
        reference_threshold: Threshold of the classifier in use; probabilities above it are positive.

    Returns:
        Both classifiers at the reference's sensitivity, or the other's next higher one.

    Raises:
        ValueError: As for :func:`youden_threshold`, or the reference finds no positive case.
    """
    scores, positive = _checked(reference, labels)
    called = scores > reference_threshold
    sensitivity = float(called[positive].mean())
    if sensitivity == 0:
        raise ValueError(
            f"The reference finds no positive case above {reference_threshold}; choose a lower threshold."
        )
    specificity = float((~called[~positive]).mean())
    margin = float(np.abs(scores - reference_threshold).min())
    found = threshold_at_sensitivity(other, labels, sensitivity)
    return EqualSensitivity(
        Threshold(reference_threshold, sensitivity, specificity, (), margin),
        found,
        int(called[~positive].sum()),
        int((np.asarray(other, dtype=np.float64)[~positive] > found.value).sum()),
    )


def all_cuts(probabilities: ArrayLike, labels: ArrayLike) -> Cuts:
    """Every way to part the cases by a threshold between their scores.

    Args:
        probabilities: Probability of the positive class, shape (n,).
        labels: 1 or true for positive cases, shape (n,).

    Returns:
        Distinct scores + 1 thresholds, fewer where no number lies between two scores.

    Raises:
        ValueError: The lengths differ, a probability is not finite, or a class has no case.
    """
    scores, positive = _checked(probabilities, labels)
    distinct, index = np.unique(scores, return_inverse=True)
    positives = np.bincount(index, weights=positive, minlength=len(distinct)).astype(np.int64)
    counts = np.bincount(index, minlength=len(distinct))
    low, high = distinct[0], distinct[-1]
    first = low / 2 if low > 0 else low - 1e-6
    last = (high + 1) / 2 if high < 1 else high + 1e-6
    middles = distinct[:-1] + np.diff(distinct) / 2
    apart = np.concatenate([[True], (middles > distinct[:-1]) & (middles < distinct[1:]), [True]])
    thresholds = np.concatenate([[first], middles, [last]])
    margins = np.concatenate([[low - first], np.diff(distinct) / 2, [last - high]])
    missed = np.concatenate([[0], np.cumsum(positives)])
    below = np.concatenate([[0], np.cumsum(counts)])
    return Cuts(
        thresholds[apart], missed[apart], below[apart], margins[apart], int(positives.sum()), len(scores)
    )


def _best(cuts: Cuts, allowed: NDArray[np.bool_]) -> Threshold:
    """The allowed cut with the widest margin, the lowest of several; the rest become its ties."""
    candidates = np.flatnonzero(allowed)
    chosen = candidates[np.argmax(cuts.margins[candidates])]
    return _threshold(cuts, int(chosen), tuple(float(cuts.thresholds[i]) for i in candidates if i != chosen))


def _lexicographic(
    cuts: Cuts, allowed: NDArray[np.bool_], first: NDArray[np.int64], second: NDArray[np.int64]
) -> Threshold:
    """The allowed cut with the least first, then the least second cost; no two cuts have both alike."""
    candidates = np.flatnonzero(allowed)
    order: Callable[[int], tuple[int, int]] = lambda i: (int(first[i]), int(second[i]))  # noqa: E731
    return _threshold(cuts, min(candidates.tolist(), key=order), ())


def _threshold(cuts: Cuts, index: int, ties: tuple[float, ...]) -> Threshold:
    return Threshold(
        float(cuts.thresholds[index]),
        float(cuts.sensitivity[index]),
        float(cuts.specificity[index]),
        ties,
        float(cuts.margins[index]),
    )


def _checked(probabilities: ArrayLike, labels: ArrayLike) -> tuple[Floats, NDArray[np.bool_]]:
    scores, truth = np.asarray(probabilities, dtype=np.float64), np.asarray(labels)
    if scores.ndim != 1 or scores.shape != truth.shape:
        raise ValueError(
            f"probabilities and labels have the shapes {scores.shape} and {truth.shape}; expected one a case."
        )
    if not np.all(np.isfinite(scores)):
        raise ValueError("A probability is NaN or infinite; expected a finite number for every case.")
    if not np.all((truth == 0) | (truth == 1)):
        raise ValueError("A label is neither 0 nor 1; expected 1 for positive cases and 0 for negative ones.")
    positive = truth.astype(bool)
    if positive.all() or not positive.any():
        which = "negative" if len(positive) and positive.all() else "positive"
        raise ValueError(f"No {which} case among {len(positive)}; expected cases of both classes.")
    return scores, positive


def _check_share(name: str, share: float) -> None:
    if not 0 < share <= 1:
        raise ValueError(f"{name} must be above 0 and at most 1, got {share}.")
