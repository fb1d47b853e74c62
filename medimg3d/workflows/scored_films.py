"""The films that an evaluation scores: prediction and truth of each, as pairs, rows and arrays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from medimg3d.data.class_pairs import ClassPair
from medimg3d.data.class_predictions import ClassPredictions
from medimg3d.data.class_references import ClassReference, ClassReferences
from medimg3d.data.content_hash import content_sha256
from medimg3d.data.training_record import input_hashes
from medimg3d.errors import DataError
from medimg3d.report.classification_summary import ScoredFilms
from medimg3d.report.film_table import FilmRow

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ScoredPairs:
    """The pairs that count, and the same as rows and arrays.

    Attributes:
        pairs: Prediction and reference of each film.
        rows: The same as the table shows them, in the same order.
        films: The same as arrays.
    """

    pairs: tuple[ClassPair, ...]
    rows: tuple[FilmRow, ...]
    films: ScoredFilms


def other_films(truth: ClassReferences, wanted: Sequence[ClassReference]) -> list[ClassReference]:
    """The references that are not among the wanted ones."""
    chosen = {id(film) for film in wanted}
    return [film for film in truth.films if id(film) not in chosen]


def score_pairs(pairs: Sequence[ClassPair], said: ClassPredictions) -> tuple[ScoredPairs, dict[str, str]]:
    """The pairs whose class is known to the classifier, and why the others are not scored.

    Raises:
        DataError: No pair is left.
    """
    index = {name.lower(): number for number, name in enumerate(said.classes)}
    index = {str(number): number for number in range(len(said.classes))} | index
    kept, rows, rejected = [], [], {}
    for pair in pairs:
        prediction, reference = pair.prediction, pair.reference
        number = index.get(reference.truth.lower())
        if number is None:
            names = ", ".join(said.classes)
            rejected[prediction.file] = f"its class is {reference.truth!r}; expected one of {names}"
            continue
        kept.append(pair)
        rows.append(
            FilmRow(
                prediction.file,
                prediction.case or reference.case,
                said.classes[number],
                prediction.decision,
                prediction.probabilities,
                prediction.unsure,
            )
        )
    if not rows:
        raise DataError(
            f"None of {len(pairs)} films could be scored; the first: {next(iter(rejected.values()))}."
        )
    return ScoredPairs(tuple(kept), tuple(rows), _arrays(kept, rows, said)), rejected


def predicted_hashes(said: ClassPredictions) -> dict[str, str]:
    """Case → hash of the file that was predicted on; a case name that two rows share tells nothing."""
    count = Counter(row.case for row in said.rows)
    return {case: digest for case, digest in input_hashes(said.folder).items() if count[case] == 1}


def file_hashes(
    pairs: Sequence[ClassPair], predicted: Mapping[str, str], progress: Progress | None
) -> dict[str, set[str]]:
    """File → hashes of what was predicted on and of the listed film, as far as they are there."""
    found = {}
    for done, pair in enumerate(pairs, start=1):
        path = pair.reference.path
        own = {predicted.get(pair.prediction.case, ""), content_sha256(path) if path.exists() else ""}
        found[pair.prediction.file] = own - {""}
        if progress is not None:
            progress(done, len(pairs))
    return found


def worst_mistakes(scored: ScoredPairs, count: int) -> list[FilmRow]:
    """The wrong decisions with the highest probability of the decided class, the worst first."""
    classes = scored.films.classes
    wrong = [row for row in scored.rows if not row.correct]
    return sorted(wrong, key=lambda row: (-row.probabilities[classes.index(row.decision)], row.file))[:count]


def _arrays(pairs: Sequence[ClassPair], rows: Sequence[FilmRow], said: ClassPredictions) -> ScoredFilms:
    number = {name: index for index, name in enumerate(said.classes)}
    positive = None
    if len(said.classes) == 2:
        positive = number[said.positive] if said.positive else 1
    patients = [pair.reference.patient for pair in pairs]
    known = tuple(patient for patient in patients if patient is not None)
    return ScoredFilms(
        said.classes,
        positive,
        np.array([number[row.truth] for row in rows], dtype=np.intp),
        np.array([number[row.decision] for row in rows], dtype=np.intp),
        np.array([row.probabilities for row in rows], dtype=np.float64),
        np.array([row.unsure for row in rows], dtype=bool),
        known if len(known) == len(patients) else None,
    )
