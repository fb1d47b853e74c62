"""What was decided on every film, as CSV; it names no patient."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medimg3d.atomic import atomic_file


@dataclass(frozen=True)
class FilmRow:
    """One scored film.

    Attributes:
        file: As in the predictions.
        case: Name of the case.
        truth: Its class.
        decision: The class it was given.
        probabilities: One a class, in the order of the classes.
        unsure: Whether it was sent to a human.
    """

    file: str
    case: str
    truth: str
    decision: str
    probabilities: tuple[float, ...]
    unsure: bool

    @property
    def correct(self) -> bool:
        """Whether the decision is right."""
        return self.truth == self.decision


def write_film_table(
    rows: Sequence[FilmRow], classes: Sequence[str], seen: Mapping[str, str] | None, path: Path
) -> Path:
    """Write one row a film; replaced at once when it is whole.

    Args:
        rows: The films.
        classes: Class names in the order of their index.
        seen: File → training case with the same content; None if it could not be checked.
        path: CSV to write.

    Returns:
        ``path``.
    """
    with atomic_file(path) as part, open(part, "w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        probabilities = [f"probability_{name}" for name in classes]
        writer.writerow(
            ["file", "case", "truth", "decision", *probabilities, "correct", "unsure", "seen_in_training"]
        )
        for row in rows:
            known = "" if seen is None else _yes(row.file in seen)
            numbers = [f"{p:.6g}" for p in row.probabilities]
            answers = [_yes(row.correct), _yes(row.unsure), known]
            writer.writerow([row.file, row.case, row.truth, row.decision, *numbers, *answers])
    return path


def _yes(answer: bool) -> str:
    return "yes" if answer else "no"
