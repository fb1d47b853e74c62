"""Seeded bootstrap interval of a mean over cases."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Interval:
    """A mean and the interval that holds it with the given confidence.

    Args:
        mean: Mean over cases; NaN if there was none.
        low: Lower end, or None where no interval can be given.
        high: Upper end, or None where no interval can be given.
        n: Number of cases.
        level: Confidence, e.g. 0.95.
    """

    mean: float
    low: float | None
    high: float | None
    n: int
    level: float = 0.95


def bootstrap_mean(
    values: Sequence[float] | NDArray[np.float64],
    *,
    groups: Sequence[Hashable] | None = None,
    level: float = 0.95,
    num_resamples: int = 9999,
    seed: int = 0,
    method: Literal["BCa", "percentile"] = "BCa",
) -> Interval:
    """Interval of the mean, from resampling the cases.

    The mean only: for a median (or a maximum) the bootstrap of a small sample is not sound, however many
    resamples are drawn; show the points instead. From about 50 cases on the interval holds what it
    promises; below it is somewhat too narrow.

    Args:
        values: One finite number a case, any unit. Leave undefined cases out first, and count them.
        groups: The patient of each case. Cases of one patient are no independent evidence: whole patients
            are then resampled, and the interval gets wider where their cases resemble each other.
        level: Confidence, between 0 and 1.
        num_resamples: Number of resamples; fewer than 1,000 makes the ends jitter.
        seed: Same values and seed, same interval.
        method: ``"BCa"`` corrects the percentiles for bias and skew; ``"percentile"`` takes them as they are.

    Returns:
        Mean and interval. The ends are None for fewer than two cases (two groups), and equal the mean where
        all values do.

    Raises:
        ValueError: A value is not finite, or a setting is out of range.

    Source: Efron 1987, doi:10.2307/2289144 (BCa); ``scipy.stats.bootstrap``.
    """
    data = np.asarray(values, dtype=np.float64)
    _check(data, groups, level, method)
    if data.size == 0:
        return Interval(float("nan"), None, None, 0, level)
    sums, counts = _totals(data, groups)
    mean = float(data.mean())
    if len(sums) < 2:
        return Interval(mean, None, None, data.size, level)
    if np.ptp(sums / counts) == 0:  # every resample has the same mean
        return Interval(mean, mean, mean, data.size, level)
    low, high = _ends(sums, counts, level, num_resamples, seed, method)
    return Interval(mean, low, high, data.size, level)


def _check(data: NDArray[np.float64], groups: Sequence[Hashable] | None, level: float, method: str) -> None:
    if data.ndim != 1 or not np.all(np.isfinite(data)):
        raise ValueError(
            "values must be one finite number a case; leave out (and count) those that are NaN or inf first."
        )
    if groups is not None and len(groups) != data.size:
        raise ValueError(f"Found {len(groups)} groups for {data.size} values; expected one group a value.")
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level}.")
    if method not in ("BCa", "percentile"):
        raise ValueError(f'method must be "BCa" or "percentile", got {method!r}.')


def _totals(
    data: NDArray[np.float64], groups: Sequence[Hashable] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum and number of the values of each group; each case is its own group if none is given."""
    if groups is None:
        return data, np.ones_like(data)
    position = {group: n for n, group in enumerate(dict.fromkeys(groups))}
    index = np.array([position[group] for group in groups])
    counts = np.bincount(index).astype(np.float64)
    return np.bincount(index, weights=data).astype(np.float64), counts


def _ends(
    sums: NDArray[np.float64],
    counts: NDArray[np.float64],
    level: float,
    num_resamples: int,
    seed: int,
    method: str,
) -> tuple[float, float]:
    from scipy import stats

    def mean(sums: NDArray[np.float64], counts: NDArray[np.float64], axis: int = -1) -> NDArray[np.float64]:
        totals: NDArray[np.float64] = sums.sum(axis=axis) / counts.sum(axis=axis)
        return totals

    result = stats.bootstrap(
        (sums, counts),
        mean,
        paired=True,
        vectorized=True,
        n_resamples=num_resamples,
        batch=max(1, 2_000_000 // len(sums)),  # bounds the memory to some tens of MB
        confidence_level=level,
        method=method,
        random_state=np.random.default_rng(seed),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)
