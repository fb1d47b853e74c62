"""Other predictions of the same films, and what is gained over them at equal sensitivity."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medimg3d.data.class_pairs import ClassPair, pair_up
from medimg3d.data.class_predictions import read_class_predictions
from medimg3d.data.class_references import ClassReference
from medimg3d.errors import DataError, UsageError
from medimg3d.report.classification_summary import Resampling, ScoredFilms
from medimg3d.report.equal_sensitivity import gain_at_equal_sensitivity


def held_against(
    others: Sequence[Path],
    films: ScoredFilms,
    pairs: Sequence[ClassPair],
    wanted: Sequence[ClassReference],
    how: Resampling,
) -> list[dict[str, Any]]:
    """Compare scored films with other predictions of them, each on the films that both have.

    Args:
        others: ``predictions.csv`` or its folder, each of another classifier with the same two classes.
        films: The films as scored.
        pairs: The same with their references.
        wanted: Every film of the section.
        how: How intervals are made.

    Returns:
        One entry a file: ``name``, ``lacking`` (scored films that it does not have), and what
        :func:`medimg3d.report.equal_sensitivity.gain_at_equal_sensitivity` gives.

    Raises:
        UsageError: There is no such file, or there are more than two classes.
        DataError: It cannot be read, has other classes, or none of the films, or no film of one class.
    """
    if others and films.positive is None:
        raise UsageError(
            f"The predictions have {len(films.classes)} classes; --against needs two, one of them positive."
        )
    return [_one(path, films, pairs, wanted, how) for path in others]


def _one(
    path: Path,
    films: ScoredFilms,
    pairs: Sequence[ClassPair],
    wanted: Sequence[ClassReference],
    how: Resampling,
) -> dict[str, Any]:
    positive = films.positive or 0
    said = read_class_predictions(path, classes=films.classes, positive=films.classes[positive])
    scores = {
        id(pair.reference): pair.prediction.probabilities[positive]
        for pair in pair_up(said.rows, wanted).pairs
    }
    found = [scores.get(id(pair.reference)) for pair in pairs]
    both = np.array([score is not None for score in found], dtype=bool)
    common = films.only(both)
    if len(np.unique(common.truth)) < 2:
        raise DataError(
            f"{path} has {len(common)} of the {len(films)} scored films, not of both classes; expected the same films."
        )
    gained = gain_at_equal_sensitivity(common, [score for score in found if score is not None], how)
    return {"name": _name(path), "lacking": int((~both).sum()), **gained}


def _name(path: Path) -> str:
    """The folder of the predictions with the one above it; no further, as folders may name a person."""
    folder = path if path.is_dir() else path.parent
    return "/".join(folder.resolve().parts[-2:])
