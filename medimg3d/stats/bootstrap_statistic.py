"""Seeded bootstrap intervals of any statistic over cases: whole patients, class by class, many at once.

A statistic here is a function of weights: how often each case counts, shape (resamples, n). All statistics
of one call see the same resamples, and one that is vectorised over them takes milliseconds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
WeightedStatistic = Callable[[Floats], Floats]
"""From weights, shape (resamples, n), to one number a resample, shape (resamples,); NaN where undefined."""

Method = Literal["BCa", "percentile"]

MAX_UNDEFINED_SHARE = 0.1
_NUMBERS_AT_ONCE = 1_000_000  # bounds the weights in memory to some tens of MB


@dataclass(frozen=True)
class Estimate:
    """A figure and the interval that holds it with the given confidence.

    Attributes:
        value: The figure of all cases; None where it is undefined.
        low: Lower end, or None where no interval can be given.
        high: Upper end, or None where no interval can be given.
        n: Number of cases.
        level: Confidence, e.g. 0.95.
        method: How the interval was made; empty without one.
        note: Why there is no figure or no interval, or what to know of it.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0
    level: float = 0.95
    method: str = ""
    note: str = ""

    def as_json(self) -> dict[str, Any]:
        """Figure, ends, number of cases; method and note where there is one."""
        told: dict[str, Any] = {"value": self.value, "low": self.low, "high": self.high, "n": self.n}
        return told | {key: text for key in ("method", "note") if (text := getattr(self, key))}


@dataclass(frozen=True)
class _Units:
    """What is resampled: patients or cases, in strata.

    Attributes:
        unit_of_case: Unit of each case, shape (n,).
        strata: Units of each stratum.
        fewest: Fewest units that any class has.
    """

    unit_of_case: NDArray[np.intp]
    strata: tuple[NDArray[np.intp], ...]
    fewest: int


def of_cases(function: Callable[[NDArray[np.intp]], float]) -> WeightedStatistic:
    """Make a statistic of any function of the chosen cases; called once a resample, so slower.

    Args:
        function: From case numbers, from 0, some of them several times, to a number.
    """

    def statistic(weights: Floats) -> Floats:
        cases = np.arange(weights.shape[1])
        return np.array([function(np.repeat(cases, row.astype(np.intp))) for row in weights], np.float64)

    return statistic


def bootstrap_statistic(
    statistic: WeightedStatistic,
    num_cases: int,
    *,
    groups: Sequence[Hashable] | None = None,
    strata: Sequence[Hashable] | None = None,
    level: float = 0.95,
    num_resamples: int = 2000,
    seed: int = 0,
    method: Method = "BCa",
) -> Estimate:
    """Interval of one statistic; see :func:`bootstrap_statistics`."""
    return bootstrap_statistics(
        {"": statistic},
        num_cases,
        groups=groups,
        strata=strata,
        level=level,
        num_resamples=num_resamples,
        seed=seed,
        method=method,
    )[""]


def bootstrap_statistics(
    statistics: Mapping[str, WeightedStatistic],
    num_cases: int,
    *,
    groups: Sequence[Hashable] | None = None,
    strata: Sequence[Hashable] | None = None,
    level: float = 0.95,
    num_resamples: int = 2000,
    seed: int = 0,
    method: Method = "BCa",
) -> dict[str, Estimate]:
    """Intervals of several statistics over the same cases and the same resamples.

    Args:
        statistics: Name → function of weights, shape (resamples, n) → (resamples,).
        num_cases: Number of cases, n.
        groups: The patient of each case; whole patients are then drawn.
        strata: The class of each case; each class is then drawn for itself, so that no resample lacks one
            and the share of the classes stays as it is. A patient with cases of several classes is drawn
            among those with the same ones.
        level: Confidence, between 0 and 1.
        num_resamples: Number of resamples; fewer than 1,000 makes the ends jitter.
        seed: Same cases and seed, same intervals.
        method: ``"BCa"`` corrects the percentiles for bias and skew by a jackknife over the patients (cases);
            ``"percentile"`` takes them as they are.

    Returns:
        Name → figure and interval. No interval, with the reason, where a class has fewer than two patients
        (cases), where every resample gives the same figure, or where more than a tenth gives none.

    Raises:
        ValueError: A length differs, or a setting is out of range.

    Source: Efron and Tibshirani 1993, chapter 14 (BCa, also of several samples).
    """
    _check(num_cases, groups, strata, level, num_resamples, method)
    values = {name: float(function(np.ones((1, num_cases)))[0]) for name, function in statistics.items()}
    units = _units(num_cases, groups, strata)
    if units.fewest < 2:
        what = "patient" if groups is not None else "case"
        why = f"no interval: fewer than two {what}s{' of a class' if strata is not None else ''}"
        return {name: _bare(value, num_cases, level, why) for name, value in values.items()}
    defined = {name: function for name, function in statistics.items() if np.isfinite(values[name])}
    resampled = _evaluate(defined, _resamples(units, num_resamples, seed))
    left_one_out = _evaluate(defined, _jackknife(units)) if method == "BCa" and defined else {}
    return {
        name: _estimate(value, resampled[name], left_one_out.get(name), units, num_cases, level)
        if name in defined
        else _bare(value, num_cases, level, "undefined for these cases")
        for name, value in values.items()
    }


def _estimate(
    value: float, resampled: Floats, left_one_out: Floats | None, units: _Units, n: int, level: float
) -> Estimate:
    there = resampled[np.isfinite(resampled)]
    undefined = 1 - len(there) / len(resampled)
    if undefined > MAX_UNDEFINED_SHARE:
        return _bare(value, n, level, f"no interval: undefined in {undefined:.0%} of the resamples")
    if np.ptp(there) < 1e-12:
        return _bare(value, n, level, "no interval: every resample gives the same figure")
    tails = np.array([(1 - level) / 2, (1 + level) / 2])
    corrected = None if left_one_out is None else _bca_tails(value, there, left_one_out, units, tails)
    low, high = np.quantile(there, tails if corrected is None else corrected)
    note = f"undefined in {undefined:.1%} of the resamples, which are left out" if undefined else ""
    method = "percentile bootstrap" if corrected is None else "BCa bootstrap"
    return Estimate(value, float(low), float(high), n, level, method, note)


def _bca_tails(
    value: float, there: Floats, left_one_out: Floats, units: _Units, tails: Floats
) -> Floats | None:
    """The shares of the resamples to cut off, corrected for bias and skew; None where that cannot be done."""
    from scipy.stats import norm

    tolerance = 1e-12
    below = (np.sum(there < value - tolerance) + np.sum(there <= value + tolerance)) / (2 * len(there))
    if not 0 < below < 1 or not np.all(np.isfinite(left_one_out)):
        return None
    cubes = squares = 0.0
    for members in units.strata:
        count = len(members)
        influence = (count - 1) * (left_one_out[members].mean() - left_one_out[members]) / count
        cubes += float((influence**3).sum())
        squares += float((influence**2).sum())
    skew = cubes / (6 * squares**1.5) if squares > 0 else 0.0
    bias = norm.ppf(below)
    shifted = bias + norm.ppf(tails)
    corrected: Floats = norm.cdf(bias + shifted / (1 - skew * shifted))
    return corrected


def _bare(value: float, n: int, level: float, note: str) -> Estimate:
    return Estimate(value if np.isfinite(value) else None, None, None, n, level, "", note)


def _evaluate(statistics: Mapping[str, WeightedStatistic], weights: Iterator[Floats]) -> dict[str, Floats]:
    parts: dict[str, list[Floats]] = {name: [] for name in statistics}
    for block in weights:
        for name, function in statistics.items():
            parts[name].append(np.asarray(function(block), dtype=np.float64))
    return {name: np.concatenate(blocks) for name, blocks in parts.items()}


def _resamples(units: _Units, num_resamples: int, seed: int) -> Iterator[Floats]:
    """Weights of the cases, some resamples at a time."""
    rng = np.random.default_rng(seed)
    num_units = sum(len(members) for members in units.strata)
    rows = max(1, _NUMBERS_AT_ONCE // len(units.unit_of_case))
    for start in range(0, num_resamples, rows):
        count = min(rows, num_resamples - start)
        drawn = np.zeros((count, num_units))
        for members in units.strata:
            size = len(members)
            picks = rng.integers(size, size=(count, size)) + size * np.arange(count)[:, None]
            drawn[:, members] = np.bincount(picks.ravel(), minlength=count * size).reshape(count, size)
        yield drawn[:, units.unit_of_case]


def _jackknife(units: _Units) -> Iterator[Floats]:
    """Weights with one unit left out after the other, some at a time."""
    num_units = sum(len(members) for members in units.strata)
    rows = max(1, _NUMBERS_AT_ONCE // len(units.unit_of_case))
    for start in range(0, num_units, rows):
        left_out = np.arange(start, min(start + rows, num_units))
        yield (units.unit_of_case[None, :] != left_out[:, None]).astype(np.float64)


def _units(num_cases: int, groups: Sequence[Hashable] | None, strata: Sequence[Hashable] | None) -> _Units:
    names: Sequence[Hashable] = range(num_cases) if groups is None else groups
    position = {name: number for number, name in enumerate(dict.fromkeys(names))}
    unit_of_case = np.array([position[name] for name in names], dtype=np.intp)
    kinds = [None] * num_cases if strata is None else list(strata)
    kinds_of_unit: dict[int, set[Hashable]] = defaultdict(set)
    for unit, kind in zip(unit_of_case.tolist(), kinds, strict=True):
        kinds_of_unit[unit].add(kind)
    members: dict[frozenset[Hashable], list[int]] = defaultdict(list)
    for unit, found in kinds_of_unit.items():
        members[frozenset(found)].append(unit)
    fewest = min(
        (sum(kind in found for found in kinds_of_unit.values()) for kind in dict.fromkeys(kinds)), default=0
    )
    return _Units(unit_of_case, tuple(np.array(found, dtype=np.intp) for found in members.values()), fewest)


def _check(
    num_cases: int,
    groups: Sequence[Hashable] | None,
    strata: Sequence[Hashable] | None,
    level: float,
    num_resamples: int,
    method: str,
) -> None:
    for what, given in (("groups", groups), ("strata", strata)):
        if given is not None and len(given) != num_cases:
            raise ValueError(f"Found {len(given)} {what} for {num_cases} cases; expected one a case.")
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level}.")
    if num_resamples < 1:
        raise ValueError(f"num_resamples must be at least 1, got {num_resamples}.")
    if method not in ("BCa", "percentile"):
        raise ValueError(f'method must be "BCa" or "percentile", got {method!r}.')
