"""From the scores of the cases to the figures of an evaluation: means with intervals, and who is left out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from medimg3d.metrics.case_scores import ClassScore
from medimg3d.stats.bootstrap import bootstrap_mean

METRICS = ("dice", "hd95_mm", "surface_dice", "volume_difference_ml", "relative_volume_difference")
AVERAGED_METRICS = ("dice", "hd95_mm", "surface_dice")
ALL_CLASSES = "mean of classes"
NUM_RESAMPLES = 9999

CaseScores = Mapping[str, Mapping[str, ClassScore]]  # case → class → scores


def summarise_metrics(
    scores: CaseScores,
    class_names: Sequence[str],
    *,
    patients: Mapping[str, str] | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, dict[str, dict[str, Any]]]:
    """Mean, interval, number of cases and reasons for leaving out, by metric and class.

    Args:
        scores: Case → class → scores.
        class_names: Classes in the order of the table.
        patients: Case → patient; whole patients are then resampled.
        level: Confidence of the intervals.
        seed: Seed of the resampling.

    Returns:
        Metric → class → ``{"mean", "low", "high", "n", "left_out": {reason: count}}``
    """
    summary: dict[str, dict[str, dict[str, Any]]] = {}
    for metric in METRICS:
        columns = {name: {case: classes[name] for case, classes in scores.items()} for name in class_names}
        values = {
            name: {case: value_of(score, metric) for case, score in column.items()}
            for name, column in columns.items()
        }
        if len(class_names) > 1 and metric in AVERAGED_METRICS:
            values[ALL_CLASSES] = {case: mean_of_classes(classes, metric) for case, classes in scores.items()}
        found = {name: {case for case in scores if _is_found(columns[name][case])} for name in class_names}
        found[ALL_CLASSES] = set().union(*found.values())
        flat = {case for case, classes in scores.items() if any(_is_flat(one) for one in classes.values())}
        summary[metric] = {
            name: _summarise(column, found[name], flat, patients=patients, level=level, seed=seed)
            for name, column in values.items()
        }
    return summary


def value_of(score: ClassScore, metric: str) -> float | None:
    """One metric of one class; NaN where neither map has the class, None where the voxel size is unknown."""
    value: float | None = getattr(score, metric)
    return math.nan if score.found_in == "neither" else value


def mean_of_classes(classes: Mapping[str, ClassScore], metric: str) -> float | None:
    """Mean over the classes that a case has in either map; inf if one is, None without a voxel size."""
    values = [value_of(score, metric) for score in classes.values() if score.found_in != "neither"]
    if any(value is None for value in values):
        return None
    return float(np.mean(values)) if values else math.nan  # type: ignore[arg-type]


def worst_cases(scores: CaseScores, num_worst: int) -> list[dict[str, Any]]:
    """The cases with the lowest mean Dice, worst first; cases that have no class at all are passed over."""
    means = {case: mean_of_classes(classes, "dice") for case, classes in scores.items()}
    ranked = sorted((mean, case) for case, mean in means.items() if mean is not None and not math.isnan(mean))
    return [
        {
            "case": case,
            "mean_dice": mean,
            "dice": {name: finite_or_none(score.dice) for name, score in scores[case].items()},
        }
        for mean, case in ranked[:num_worst]
    ]


def finite_or_none(value: float | None) -> float | None:
    """The number, or None where there is none that JSON can hold."""
    return value if value is not None and math.isfinite(value) else None


def _is_found(score: ClassScore) -> bool:
    return score.found_in != "neither"


def _summarise(
    values: Mapping[str, float | None],
    found: Collection[str],
    flat: Collection[str],
    *,
    patients: Mapping[str, str] | None,
    level: float,
    seed: int,
) -> dict[str, Any]:
    kept = {case: value for case, value in values.items() if value is not None and math.isfinite(value)}
    groups = None if patients is None else [patients[case] for case in kept]
    interval = bootstrap_mean(
        list(kept.values()), groups=groups, level=level, num_resamples=NUM_RESAMPLES, seed=seed
    )
    return {
        "mean": finite_or_none(interval.mean),
        "low": finite_or_none(interval.low),
        "high": finite_or_none(interval.high),
        "n": interval.n,
        "left_out": dict(
            Counter(
                _why_left_out(value, case in found, case in flat)
                for case, value in values.items()
                if case not in kept
            )
        ),
    }


def _is_flat(score: ClassScore) -> bool:
    """Whether the score is of a 2D image: its voxel size is known, and it has no volume."""
    return score.hd95_mm is not None and score.pred_volume_ml is None


def _why_left_out(value: float | None, is_found: bool, is_flat: bool) -> str:
    if value is None:
        return "2D image" if is_flat else "voxel size unknown"
    if math.isnan(value):
        return "no surface where labelled" if is_found else "class in neither"
    return "infinite"
