"""From the decisions on each film to the figures of an evaluation, every one with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medimg3d.metrics.calibration import brier_per_case, weighted_calibration_error
from medimg3d.metrics.classification import (
    confusion_matrix,
    decision_figures,
    f1,
    precision,
    recall,
    specificity,
    weighted_confusion,
)
from medimg3d.metrics.ranking import weighted_auc, weighted_average_precision
from medimg3d.stats.bootstrap_statistic import Estimate, WeightedStatistic, bootstrap_statistics
from medimg3d.stats.proportion import clopper_pearson_interval

NUM_BINS = 10
_PROPORTIONS = ("accuracy", "sensitivity", "specificity", "precision", "share_unsure")
_PER_CLASS = {"sensitivity": recall, "specificity": specificity, "precision": precision, "f1": f1}

Estimates = dict[str, Estimate]


@dataclass(frozen=True, eq=False)
class ScoredFilms:
    """What is known and what was said of each film.

    Attributes:
        classes: Class names in the order of their index.
        positive: Index of the positive class of two; None for several.
        truth: True class of each film, shape (n,).
        decided: Decided class, shape (n,).
        probabilities: Shape (n, classes).
        unsure: Whether the film was sent to a human, shape (n,).
        patients: Patient of each film; None unless every film's is known.
    """

    classes: tuple[str, ...]
    positive: int | None
    truth: NDArray[np.intp]
    decided: NDArray[np.intp]
    probabilities: NDArray[np.float64]
    unsure: NDArray[np.bool_]
    patients: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.truth)

    def only(self, chosen: NDArray[np.bool_]) -> ScoredFilms:
        """The films that are chosen, shape (n,)."""
        patients = None
        if self.patients is not None:
            patients = tuple(p for p, kept in zip(self.patients, chosen, strict=True) if kept)
        return replace(
            self,
            truth=self.truth[chosen],
            decided=self.decided[chosen],
            probabilities=self.probabilities[chosen],
            unsure=self.unsure[chosen],
            patients=patients,
        )

    @property
    def confusion(self) -> NDArray[np.int64]:
        """Counts, shape (classes, classes): row = truth."""
        return confusion_matrix(self.truth, self.decided, len(self.classes))

    @property
    def stated(self) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """What is held against what: the positive class's probability, for several that of the likeliest."""
        if self.positive is not None:
            return self.probabilities[:, self.positive], self.truth == self.positive
        likeliest = self.probabilities.argmax(1)
        return self.probabilities.max(1), likeliest == self.truth


@dataclass(frozen=True)
class Resampling:
    """How intervals are made.

    Attributes:
        num_resamples: Number of resamples.
        level: Confidence.
        seed: Seed.
    """

    num_resamples: int = 2000
    level: float = 0.95
    seed: int = 0

    def estimates(self, statistics: Mapping[str, WeightedStatistic], films: ScoredFilms) -> Estimates:
        """Figures and intervals: films drawn by patient where known, each class for itself."""
        if not len(films):
            return {name: Estimate(None, note="no film") for name in statistics}
        found = bootstrap_statistics(
            statistics,
            len(films),
            groups=films.patients,
            strata=films.truth.tolist(),
            level=self.level,
            num_resamples=self.num_resamples,
            seed=self.seed,
        )
        return {name: _as_proportion(name, estimate, films) for name, estimate in found.items()}


def overall_estimates(films: ScoredFilms, how: Resampling) -> Estimates:
    """Every figure of all films: decisions, ranking, calibration."""
    statistics = _decision_statistics(films) | _ranking_statistics(films)
    stated, event = films.stated
    squared = brier_per_case(films.probabilities, films.truth)
    statistics["ece"] = lambda w: weighted_calibration_error(stated, event, w, num_bins=NUM_BINS)
    statistics["brier"] = partial(_mean, squared)
    return _explained(how.estimates(statistics, films), films)


def decision_estimates(films: ScoredFilms, how: Resampling) -> Estimates:
    """The figures that follow from the decisions alone."""
    return _explained(how.estimates(_decision_statistics(films), films), films)


def share_unsure(films: ScoredFilms, how: Resampling) -> Estimate:
    """Share of the films that is sent to a human."""
    flags = films.unsure.astype(np.float64)
    return how.estimates({"share_unsure": partial(_mean, flags)}, films)["share_unsure"]


def class_estimates(films: ScoredFilms, how: Resampling) -> dict[str, Estimates]:
    """Class → its figures against all the others."""
    result = {}
    for index, name in enumerate(films.classes):
        statistics: dict[str, WeightedStatistic] = {
            figure: _of_class(films, function, index) for figure, function in _PER_CLASS.items()
        }
        scores, own = films.probabilities[:, index], films.truth == index
        statistics["auc"] = partial(weighted_auc, scores, own)
        statistics["average_precision"] = partial(weighted_average_precision, scores, own)
        as_positive = replace(films, positive=index)
        result[name] = _explained(how.estimates(statistics, as_positive), films)
    return result


def subgroup_estimates(films: ScoredFilms, values: Sequence[str], how: Resampling) -> list[dict[str, Any]]:
    """The figures of each subgroup.

    A value that only films of one class have (``bacterial``, within pneumonia) is held against ALL films of
    the other classes for AUC and average precision; its share of right decisions is that of its own films.
    A value that is the class itself (every film of one class has it, and no other) says nothing new and is
    passed over.

    Args:
        films: The films.
        values: Value of each film, one a film; empty where it has none.
        how: How intervals are made.

    Returns:
        One entry a value: ``value``, ``n``, ``n_by_class``, ``compared_with``, ``figures``.
    """
    column = np.array(values, dtype=object)
    entries = []
    for value in sorted({text for text in values if text}):
        own = column == value
        within = np.unique(films.truth[own])
        if len(within) == 1 and own.sum() == (films.truth == within[0]).sum():
            continue
        compared = own | (films.truth != within[0]) if len(within) == 1 else own
        figures = _subgroup_figures(films, own, compared, within, how)
        counts = np.bincount(films.truth[own], minlength=len(films.classes))
        entries.append(
            {
                "value": value,
                "n": int(own.sum()),
                "n_by_class": {name: int(n) for name, n in zip(films.classes, counts, strict=True)},
                "compared_with": f"all {int((compared & ~own).sum())} films of other classes"
                if len(within) == 1
                else "the other classes within the subgroup",
                "figures": {name: estimate.as_json() for name, estimate in figures.items()},
            }
        )
    return entries


def _subgroup_figures(
    films: ScoredFilms,
    own: NDArray[np.bool_],
    compared: NDArray[np.bool_],
    within: NDArray[np.intp],
    how: Resampling,
) -> Estimates:
    inside, against = films.only(own), films.only(compared)
    wanted = ("accuracy", "sensitivity", "specificity", "f1") if len(within) > 1 else ("accuracy",)
    decisions = {k: v for k, v in _decision_statistics(inside).items() if k in wanted}
    figures = how.estimates(decisions, inside)
    if len(within) == 1 and films.positive is not None:
        figures = {
            "sensitivity" if within[0] == films.positive else "specificity": figures["accuracy"],
        }
    return figures | how.estimates(_ranking_statistics(against), against)


def _decision_statistics(films: ScoredFilms) -> dict[str, WeightedStatistic]:
    names = list(decision_figures(films.confusion, films.positive))
    return {name: partial(_decision_figure, films, name) for name in names}


def _decision_figure(films: ScoredFilms, name: str, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    counts = weighted_confusion(films.truth, films.decided, len(films.classes), weights)
    return decision_figures(counts, films.positive)[name]


def _ranking_statistics(films: ScoredFilms) -> dict[str, WeightedStatistic]:
    """AUC and average precision of the positive class; for several, the mean of each against the rest."""
    functions = {"auc": weighted_auc, "average_precision": weighted_average_precision}
    indices = [films.positive] if films.positive is not None else range(len(films.classes))
    columns = [(films.probabilities[:, index], films.truth == index) for index in indices]
    return {name: partial(_mean_of_classes, function, columns) for name, function in functions.items()}


def _mean_of_classes(
    function: Any,
    columns: Sequence[tuple[NDArray[np.float64], NDArray[np.bool_]]],
    weights: NDArray[np.float64],
) -> NDArray[np.float64]:
    mean: NDArray[np.float64] = np.mean([function(scores, own, weights) for scores, own in columns], axis=0)
    return mean


def _of_class(films: ScoredFilms, function: Any, index: int) -> WeightedStatistic:
    def statistic(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        counts = weighted_confusion(films.truth, films.decided, len(films.classes), weights)
        chosen: NDArray[np.float64] = function(counts)[:, index]
        return chosen

    return statistic


def _mean(values: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    mean: NDArray[np.float64] = weights @ values / weights.sum(1)
    return mean


def _as_proportion(name: str, estimate: Estimate, films: ScoredFilms) -> Estimate:
    """A share counts the films below its line; one of 0 or 1 in every resample gets the exact interval."""
    if name not in _PROPORTIONS:
        return estimate
    chosen = films.only(_counted(name, films))
    estimate = replace(estimate, n=len(chosen))
    if estimate.value not in (0.0, 1.0) or estimate.low is not None:
        return estimate
    n = len(chosen) if chosen.patients is None else len(set(chosen.patients))
    ends = clopper_pearson_interval(round(estimate.value * n), n, level=estimate.level)
    if ends is None:
        return estimate
    method = f"Clopper-Pearson over {n} {'films' if chosen.patients is None else 'patients'}"
    return replace(estimate, low=ends[0], high=ends[1], method=method, note="")


def _counted(name: str, films: ScoredFilms) -> NDArray[np.bool_]:
    """The films that a proportion counts below its line."""
    if name in ("accuracy", "share_unsure") or films.positive is None:
        return np.ones(len(films), dtype=bool)
    chosen: NDArray[np.bool_] = {
        "sensitivity": films.truth == films.positive,
        "specificity": films.truth != films.positive,
        "precision": films.decided == films.positive,
    }[name]
    return chosen


def _explained(estimates: Estimates, films: ScoredFilms) -> Estimates:
    """Say which class an undefined figure lacks."""
    counts = films.confusion
    absent = [name for name, n in zip(films.classes, counts.sum(1), strict=True) if n == 0]
    unused = [name for name, n in zip(films.classes, counts.sum(0), strict=True) if n == 0]
    if absent:
        why = f"undefined: no film of class {', '.join(absent)}"
    elif unused:
        why = f"undefined: no film was decided as {', '.join(unused)}"
    else:
        why = "undefined for these films"
    return {
        name: replace(estimate, note=why) if estimate.value is None and len(films) else estimate
        for name, estimate in estimates.items()
    }
