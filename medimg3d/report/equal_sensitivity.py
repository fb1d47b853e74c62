"""Two classifiers on the same films: the specificity that one gains over the other at equal sensitivity."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medimg3d.metrics.ranking import weighted_auc, weighted_specificity_at_sensitivity
from medimg3d.report.classification_summary import Resampling, ScoredFilms

Floats = NDArray[np.float64]


def gain_at_equal_sensitivity(films: ScoredFilms, other: ArrayLike, how: Resampling) -> dict[str, Any]:
    """How many false alarms fewer these decisions make than another classifier that finds as many positives.

    The sensitivity is that of the films' own decisions. Both classifiers are then cut at the highest threshold
    that still reaches it, on these films, and anew in each resample: neither is favoured, and a classifier
    gains exactly nothing over itself, nor over its own scores calibrated (temperature and bias keep the order).

    Args:
        films: What was decided, of two classes.
        other: The other classifier's probability of the positive class, same films in the same order, shape (n,).
        how: How intervals are made.

    Returns:
        ``n``; ``false_alarms`` of each (``here``, ``there``) of so many ``negatives``; and ``estimates`` with
        value and interval: ``sensitivity``, ``specificity_here``, ``specificity_there``, ``specificity_gain``,
        ``auc_here``, ``auc_there``, ``auc_gain``. The intervals of the gains are of the difference, film by film.

    Raises:
        ValueError: The films have no positive class, or the lengths differ.
    """
    scores = np.asarray(other, dtype=np.float64)
    if films.positive is None:
        raise ValueError("Equal sensitivity needs a positive class of two; expected such films.")
    if scores.shape != (len(films),):
        raise ValueError(f"The other scores have the shape {scores.shape}; expected ({len(films)},).")
    statistics = {name: partial(_figure, films, scores, name) for name in _FIGURES}
    estimates = how.estimates(statistics, films)
    negatives = int((films.truth != films.positive).sum())
    return {
        "n": len(films),
        "negatives": negatives,
        "false_alarms": {
            where: None if (one := estimates[f"specificity_{where}"].value) is None
            else round((1 - one) * negatives)
            for where in ("here", "there")
        },
        "estimates": {name: estimate.as_json() for name, estimate in estimates.items()},
    }  # fmt: skip


_FIGURES = (
    "sensitivity",
    "specificity_here",
    "specificity_there",
    "specificity_gain",
    "auc_here",
    "auc_there",
    "auc_gain",
)


def _figure(films: ScoredFilms, other: Floats, name: str, weights: Floats) -> Floats:
    """One figure of every resample, shape (resamples,)."""
    positive = films.truth == films.positive
    own = films.probabilities[:, films.positive or 0]
    if name == "sensitivity":
        return _sensitivity(films, weights)
    kind, _, where = name.partition("_")

    def of(scores: Floats) -> Floats:
        if kind == "auc":
            return weighted_auc(scores, positive, weights)
        return weighted_specificity_at_sensitivity(scores, positive, weights, _sensitivity(films, weights))

    if where == "gain":
        return of(own) - of(other)
    return of(own if where == "here" else other)


def _sensitivity(films: ScoredFilms, weights: Floats) -> Floats:
    positive = films.truth == films.positive
    total = weights[:, positive].sum(1)
    found = weights[:, positive & (films.decided == films.positive)].sum(1)
    result: Floats = np.full(len(weights), np.nan)
    np.divide(found, total, out=result, where=total > 0)
    return result
