"""Whether probabilities mean what they say: temperature scaling, calibration error, Brier score.

Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", arXiv 1706.04599.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Binning = Literal["width", "mass"]

LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.05, 20.0
_LARGEST_BIAS = 10.0


@dataclass(frozen=True)
class Temperature:
    """The number that logits are divided by before the softmax.

    Attributes:
        value: The temperature; above 1 makes a model less sure of itself. 1 where none could be fitted.
        reason: Why none could be fitted; empty if one was.
        nll_before: Mean negative log likelihood at temperature 1; NaN if it could not be computed.
        nll_after: The same at ``value``.
    """

    value: float
    reason: str = ""
    nll_before: float = float("nan")
    nll_after: float = float("nan")

    def __float__(self) -> float:
        return self.value


@dataclass(frozen=True)
class Scaling:
    """What logits are divided by, and what is then added to them, before the softmax.

    Attributes:
        temperature: As :class:`Temperature`; 1 where none could be fitted.
        bias: One number a class, of mean 0, shape (classes,): above 0 makes the class likelier.
        reason: Why temperature or bias could not be fitted; empty if both were.
        nll_before: Mean negative log likelihood of the logits as they are; NaN if it could not be computed.
        nll_after: The same of the scaled ones.
    """

    temperature: float
    bias: tuple[float, ...]
    reason: str = ""
    nll_before: float = float("nan")
    nll_after: float = float("nan")


@dataclass(frozen=True)
class ReliabilityBin:
    """Cases of about the same confidence.

    Attributes:
        low: Lower end of the bin.
        high: Upper end of the bin.
        count: Number of cases.
        mean_confidence: Mean probability of its cases; NaN without any.
        observed_share: Share of its cases where the event took place; NaN without any.
    """

    low: float
    high: float
    count: int
    mean_confidence: float
    observed_share: float


def softmax(logits: ArrayLike, temperature: float = 1.0) -> Floats:
    """Probabilities of logits, shape (n, classes), divided by a temperature."""
    return np.exp(_log_softmax(np.asarray(logits, dtype=np.float64) / temperature))


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> Temperature:
    """The temperature with the least negative log likelihood; it changes no order and no argmax.

    Fit it on validation cases, never on the cases that are reported. The likelihood has one optimum in the
    temperature, which is sought between 0.05 and 20.

    Args:
        logits: Raw outputs, shape (n, classes).
        labels: Class index of each case, shape (n,).

    Returns:
        The temperature; 1 with the reason where none can be fitted: fewer than two cases or classes, logits
        that are not finite, or an optimum at an end of the range (every case right by a margin, or logits
        that say nothing).

    Raises:
        ValueError: The shapes do not fit, or a label is not that of a class.

    Source: Guo et al. 2017, section 4.2.
    """
    values, classes = np.asarray(logits, dtype=np.float64), np.asarray(labels, dtype=np.intp)
    _check_probabilities(values, classes, "logits")
    if not np.all(np.isfinite(values)):
        return Temperature(1.0, "a logit is NaN or infinite")
    if len(np.unique(classes)) < 2:
        return Temperature(1.0, "the cases have fewer than two classes")
    before = _nll(values, classes, 1.0)
    from scipy.optimize import minimize_scalar

    ends = (LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE)
    found = minimize_scalar(
        lambda log_t: _nll(values, classes, np.exp(log_t)),
        bounds=np.log(ends),
        method="bounded",
        options={"xatol": 1e-6},
    )
    lowest, highest = (_nll(values, classes, end) for end in ends)
    if min(lowest, highest) <= found.fun:
        end = "sharper" if lowest <= highest else "flatter"
        between = f"between {LOWEST_TEMPERATURE:g} and {HIGHEST_TEMPERATURE:g}"
        reason = f"no temperature {between} fits best: ever {end} probabilities fit better"
        return Temperature(1.0, reason, before, before)
    return Temperature(float(np.exp(found.x)), "", before, float(found.fun))


def fit_scaling(logits: ArrayLike, labels: ArrayLike) -> Scaling:
    """Temperature and one bias a class with the least negative log likelihood.

    A network trained with class weights answers as if every class were as common as the next; no temperature
    mends that, a bias does. With two classes the order of the cases stays the same.

    Args:
        logits: As for :func:`fit_temperature`.
        labels: As for :func:`fit_temperature`.

    Returns:
        The scaling; without bias where the likelihood has no optimum in it (a class that the others never
        resemble), and as it is where no temperature can be fitted either.

    Raises:
        ValueError: As for :func:`fit_temperature`.

    Source: Alexandari, Kundaje, Shrikumar 2020, bias-corrected temperature scaling, arXiv 1901.06852.
    """
    values, classes = np.asarray(logits, dtype=np.float64), np.asarray(labels, dtype=np.intp)
    alone = fit_temperature(values, classes)
    none = (0.0,) * values.shape[1]
    if alone.reason:
        return Scaling(1.0, none, f"temperature {alone.reason}", alone.nll_before, alone.nll_after)
    from scipy.optimize import minimize

    def mean_nll(numbers: Floats) -> float:
        bias = np.append(numbers[1:], 0.0)
        return -float(_log_softmax(values / np.exp(numbers[0]) + bias)[range(len(classes)), classes].mean())

    temperatures = np.log((LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE))
    bounds = [tuple(temperatures), *[(-_LARGEST_BIAS, _LARGEST_BIAS)] * (values.shape[1] - 1)]
    begin = np.append(np.log(alone.value), np.zeros(values.shape[1] - 1))
    found = minimize(mean_nll, begin, method="L-BFGS-B", bounds=bounds, options={"ftol": 1e-12, "gtol": 1e-9})
    at_an_end = any(min(x - low, high - x) < 1e-3 for x, (low, high) in zip(found.x, bounds, strict=True))
    if at_an_end or not np.isfinite(found.fun) or len(np.unique(classes)) < values.shape[1]:
        reason = "bias has no optimum on these cases"
        return Scaling(alone.value, none, reason, alone.nll_before, alone.nll_after)
    bias = np.append(found.x[1:], 0.0)
    bias -= bias.mean()
    shifts = tuple(float(b) for b in bias)
    return Scaling(float(np.exp(found.x[0])), shifts, "", alone.nll_before, float(found.fun))


def reliability_bins(
    confidence: ArrayLike, event: ArrayLike, *, num_bins: int = 10, binning: Binning = "mass"
) -> list[ReliabilityBin]:
    """Stated against observed: the cases in bins of their confidence.

    Args:
        confidence: Stated probability of the event, 0 to 1, shape (n,).
        event: Whether it took place, shape (n,): the case is positive, or the decided class is right.
        num_bins: Number of bins; cases of one confidence are never parted, so there may be fewer.
        binning: ``"width"`` parts 0 to 1 evenly, and leaves bins empty; ``"mass"`` puts about as many cases
            into each.

    Returns:
        The bins from low to high, empty ones among them.

    Raises:
        ValueError: The lengths differ, a confidence is outside 0 to 1, or a setting is out of range.
    """
    stated, took_place = _check_confidence(confidence, event)
    edges = _bin_edges(stated, num_bins, binning)
    index = _bin_of(stated, edges)
    bins = []
    for number, (low, high) in enumerate(pairwise(edges)):
        inside = index == number
        count = int(inside.sum())
        mean, share = (stated[inside].mean(), took_place[inside].mean()) if count else (np.nan, np.nan)
        bins.append(ReliabilityBin(float(low), float(high), count, float(mean), float(share)))
    return bins


def expected_calibration_error(
    confidence: ArrayLike, event: ArrayLike, *, num_bins: int = 10, binning: Binning = "mass"
) -> float:
    """Mean distance between stated and observed share over the bins, weighed by their cases.

    It is above 0 for a perfectly calibrated model, too, the more so the fewer the cases: compare it only
    between models on the same cases.

    Args:
        confidence: Stated probability of the event, 0 to 1, shape (n,).
        event: Whether it took place, shape (n,).
        num_bins: Number of bins; Guo et al. use 15 of even width.
        binning: As for :func:`reliability_bins`.

    Returns:
        0 to 1; NaN without cases.

    Raises:
        ValueError: As for :func:`reliability_bins`.

    Source: Guo et al. 2017, equation 3.
    """
    ones = np.ones((1, np.size(confidence)))
    return float(weighted_calibration_error(confidence, event, ones, num_bins=num_bins, binning=binning)[0])


def weighted_calibration_error(
    confidence: ArrayLike,
    event: ArrayLike,
    weights: Floats,
    *,
    num_bins: int = 10,
    binning: Binning = "mass",
) -> Floats:
    """:func:`expected_calibration_error` of many resamples; the bins stay those of all cases.

    Args:
        confidence: Stated probability of the event, shape (n,).
        event: Whether it took place, shape (n,).
        weights: How often each case counts, shape (resamples, n).
        num_bins: Number of bins.
        binning: As for :func:`reliability_bins`.

    Returns:
        Shape (resamples,); NaN where no case counts.

    Raises:
        ValueError: As for :func:`reliability_bins`.
    """
    stated, took_place = _check_confidence(confidence, event)
    edges = _bin_edges(stated, num_bins, binning)
    gaps = np.zeros((len(stated), len(edges) - 1))
    gaps[np.arange(len(stated)), _bin_of(stated, edges)] = stated - took_place
    total = weights.sum(1)
    result = np.full(len(weights), np.nan)
    np.divide(np.abs(weights @ gaps).sum(1), total, out=result, where=total > 0)
    return result


def brier_per_case(probabilities: ArrayLike, labels: ArrayLike) -> Floats:
    """Squared distance between each case's probabilities and its class, shape (n,).

    Args:
        probabilities: Shape (n, classes), rows summing to 1.
        labels: Class index of each case, shape (n,).

    Returns:
        Two classes: (p − y)² of one class, 0 to 1. More: the sum over the classes, 0 to 2.

    Raises:
        ValueError: The shapes do not fit, or a label is not that of a class.
    """
    values, classes = np.asarray(probabilities, dtype=np.float64), np.asarray(labels, dtype=np.intp)
    _check_probabilities(values, classes, "probabilities")
    truth = np.zeros_like(values)
    truth[np.arange(len(classes)), classes] = 1
    squared = (values - truth) ** 2
    per_case: Floats = squared[:, 1] if values.shape[1] == 2 else squared.sum(1)
    return per_case


def brier_score(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Mean of :func:`brier_per_case`; NaN without cases.

    Source: Brier 1950; scikit-learn's ``brier_score_loss``.
    """
    per_case = brier_per_case(probabilities, labels)
    return float(per_case.mean()) if per_case.size else float("nan")


def _nll(logits: Floats, labels: NDArray[np.intp], temperature: float) -> float:
    log_probabilities = _log_softmax(logits / temperature)
    return float(-log_probabilities[np.arange(len(labels)), labels].mean())


def _log_softmax(logits: Floats) -> Floats:
    shifted = logits - logits.max(axis=1, keepdims=True)
    result: Floats = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result


def _bin_edges(stated: Floats, num_bins: int, binning: str) -> Floats:
    if num_bins < 1:
        raise ValueError(f"num_bins must be at least 1, got {num_bins}.")
    if binning == "width":
        return np.linspace(0, 1, num_bins + 1)
    if binning != "mass":
        raise ValueError(f'binning must be "width" or "mass", got {binning!r}.')
    if not stated.size:
        return np.array([0.0, 1.0])
    last_of_bin = -(-np.arange(1, num_bins) * stated.size // num_bins) - 1  # whole numbers: no rounding
    inner = np.sort(stated)[last_of_bin]
    return np.unique(np.concatenate([[0.0], inner, [1.0]]))


def _bin_of(stated: Floats, edges: Floats) -> NDArray[np.intp]:
    """Bins are (low, high], the first takes 0 as well."""
    return np.clip(np.searchsorted(edges, stated, side="left") - 1, 0, len(edges) - 2)


def _check_confidence(confidence: ArrayLike, event: ArrayLike) -> tuple[Floats, Floats]:
    stated, took_place = np.asarray(confidence, dtype=np.float64), np.asarray(event, dtype=np.float64)
    if stated.ndim != 1 or stated.shape != took_place.shape:
        raise ValueError(
            f"confidence and event have the shapes {stated.shape} and {took_place.shape}; "
            "expected one number a case in each."
        )
    if stated.size and not (stated.min() >= 0 and stated.max() <= 1):
        raise ValueError("A confidence is outside 0 to 1 or NaN; expected probabilities.")
    return stated, took_place


def _check_probabilities(values: Floats, labels: NDArray[np.intp], what: str) -> None:
    if values.ndim != 2 or labels.shape != values.shape[:1] or values.shape[1] < 2:
        raise ValueError(
            f"{what} and labels have the shapes {values.shape} and {labels.shape}; expected (n, classes), (n,)."
        )
    if labels.size and not 0 <= labels.min() <= labels.max() < values.shape[1]:
        raise ValueError(
            f"Found label {labels.min()} to {labels.max()}; expected 0 to {values.shape[1] - 1}."
        )
