"""Every figure of an evaluation that follows from the scored films alone."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np

from medimg3d import __version__
from medimg3d.report.classification_summary import (
    NUM_BINS,
    Resampling,
    ScoredFilms,
    class_estimates,
    decision_estimates,
    overall_estimates,
    share_unsure,
    subgroup_estimates,
)
from medimg3d.workflows.scored_films import ScoredPairs


def summarise_films(scored: ScoredPairs, how: Resampling, subgroup_by: Sequence[str]) -> dict[str, Any]:
    """Everything that follows from the films alone."""
    films = scored.films
    sure = films.only(~films.unsure)
    counts = np.bincount(films.truth, minlength=len(films.classes))
    columns = {name: [pair.reference.values.get(name, "") for pair in scored.pairs] for name in subgroup_by}
    without = {k: e.as_json() for k, e in decision_estimates(sure, how).items()} if films.unsure.any() else {}
    return {
        "format": 1,
        "task": "classification",
        "num_scored": len(films),
        "classes": list(films.classes),
        "positive": None if films.positive is None else films.classes[films.positive],
        "n_by_class": {name: int(n) for name, n in zip(films.classes, counts, strict=True)},
        "metrics": {name: e.as_json() for name, e in overall_estimates(films, how).items()},
        "per_class": {
            name: {k: e.as_json() for k, e in figures.items()}
            for name, figures in class_estimates(films, how).items()
        },
        "confusion": films.confusion.tolist(),
        "unsure": {
            "n": int(films.unsure.sum()),
            "share": share_unsure(films, how).as_json(),
            "without": without,
            "confusion_without": sure.confusion.tolist(),
            "mistakes": _mistakes_left_to_a_human(films),
        },
        "subgroups": {
            name: subgroup_estimates(films, values, how) for name, values in columns.items() if any(values)
        },
        "settings": {
            "level": how.level,
            "num_resamples": how.num_resamples,
            "resampled_by": "case" if films.patients is None else "patient",
            "num_patients": None if films.patients is None else len(set(films.patients)),
            "stratified_by": "class",
            "seed": how.seed,
            "calibration_bins": f"{NUM_BINS} of equal count",
        },
        "versions": {
            "medimg3d": __version__,
            "python": platform.python_version(),
            **{package: version(package) for package in ("numpy", "scipy")},
        },
    }


def _mistakes_left_to_a_human(films: ScoredFilms) -> dict[str, dict[str, int]]:
    """Of two classes: how many false alarms and missed films there are, and how many of them were unsure."""
    if films.positive is None:
        return {}
    is_positive, is_called = films.truth == films.positive, films.decided == films.positive
    kinds = {"false_alarms": ~is_positive & is_called, "missed": is_positive & ~is_called}
    return {
        name: {"all": int(wrong.sum()), "unsure": int((wrong & films.unsure).sum())}
        for name, wrong in kinds.items()
    }
