"""Which prediction belongs to which film: by path, else by a file name or case of its own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath

from medimg3d.data.class_predictions import ClassPrediction
from medimg3d.data.class_references import ClassReference
from medimg3d.data.content_hash import content_sha256


@dataclass(frozen=True)
class ClassPair:
    """A prediction and the film it was made of."""

    prediction: ClassPrediction
    reference: ClassReference


@dataclass(frozen=True)
class ClassPairs:
    """What became of every prediction and every film.

    Attributes:
        pairs: In the order of the predictions.
        unmatched: File → why it is in no pair; every prediction and every film of the section that is in none.
        elsewhere: Predicted files that belong to another section → that section; they are not asked for.
    """

    pairs: tuple[ClassPair, ...]
    unmatched: Mapping[str, str] = field(default_factory=dict)
    elsewhere: Mapping[str, str] = field(default_factory=dict)


def pair_up(
    predictions: Sequence[ClassPrediction],
    wanted: Sequence[ClassReference],
    others: Sequence[ClassReference] = (),
    *,
    hashes: Mapping[str, str] | None = None,
) -> ClassPairs:
    """Find the film of every prediction.

    Tried in this order: the same path, where one may have more folders in front than the other; a file name
    that neither side has twice; the name of the case. A film whose content is known to differ from what was
    predicted on is not matched.

    Args:
        predictions: What was said.
        wanted: Films to score.
        others: Films of the other sections, to say why a prediction is not scored.
        hashes: Case of a prediction → SHA-256 of the file that was predicted on, as far as known.

    Returns:
        Pairs, and every file in none of them with its reason.
    """
    films = [*wanted, *others]
    index = _Index(predictions, films)
    inside = {id(film) for film in wanted}
    pairs: list[ClassPair] = []
    unmatched: dict[str, str] = {}
    elsewhere: dict[str, str] = {}
    taken: dict[int, str] = {}
    for prediction in predictions:
        found = index.find(prediction)
        if isinstance(found, str):
            unmatched[prediction.file] = found
        elif id(found) not in inside:
            elsewhere[prediction.file] = found.section or "another part"
        elif id(found) in taken:
            unmatched[prediction.file] = f"is the same film as {taken[id(found)]}, which is scored"
        elif _differs(found.path, (hashes or {}).get(prediction.case)):
            taken[id(found)] = prediction.file
            unmatched[prediction.file] = "was made of other content than the listed film of that name has"
        else:
            taken[id(found)] = prediction.file
            pairs.append(ClassPair(prediction, found))
    for film in wanted:
        if id(film) not in taken:
            unmatched.setdefault(_short(film.path), "has no prediction")
    return ClassPairs(tuple(pairs), unmatched, elsewhere)


class _Index:
    """Films by file name and by case."""

    def __init__(self, predictions: Sequence[ClassPrediction], films: Sequence[ClassReference]) -> None:
        self._by_name: dict[str, list[ClassReference]] = defaultdict(list)
        self._by_case: dict[str, list[ClassReference]] = defaultdict(list)
        self._predicted: dict[str, int] = defaultdict(int)
        for film in films:
            self._by_name[film.path.name].append(film)
            self._by_case[film.case].append(film)
        for prediction in predictions:
            self._predicted[_parts(prediction.file)[-1]] += 1

    def find(self, prediction: ClassPrediction) -> ClassReference | str:
        """The film, or why there is none."""
        parts = _parts(prediction.file)
        named = self._by_name.get(parts[-1], [])
        same_path = [film for film in named if _one_ends_with_the_other(parts, film.path.parts)]
        if len(same_path) == 1:
            return same_path[0]
        if len(same_path) > 1:
            return f"fits {len(same_path)} films by its path; predict on a folder above them, so that paths differ"
        if len(named) == 1 and self._predicted[parts[-1]] == 1:
            return named[0]
        by_case = self._by_case.get(prediction.case, []) if prediction.case else []
        if len(by_case) == 1:
            return by_case[0]
        if named:
            return f"has a file name that {len(named)} films have, none of them at its path"
        return "is not among the films with a class"


def _parts(file: str) -> tuple[str, ...]:
    path = PureWindowsPath(file) if "\\" in file else PurePosixPath(file)
    return tuple(part for part in path.parts if part != ".") or (file,)


def _one_ends_with_the_other(one: Sequence[str], other: Sequence[str]) -> bool:
    length = min(len(one), len(other))
    return tuple(one[-length:]) == tuple(other[-length:])


def _differs(path: Path, predicted_on: str | None) -> bool:
    return predicted_on is not None and path.is_file() and content_sha256(path) != predicted_on


def _short(path: Path) -> str:
    """The file with the folder that holds it."""
    return "/".join(path.parts[-2:])
