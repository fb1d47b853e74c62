"""Reading ``predictions.csv``: what a classifier said of each film."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medimg3d.errors import DataError, UsageError

PREDICTIONS_FILE = "predictions.csv"
PROBABILITY_PREFIX = "probability_"
SUM_TOLERANCE = 1e-2  # probabilities are written with few decimals


@dataclass(frozen=True)
class ClassPrediction:
    """What was said of one film.

    Attributes:
        file: Path as written, relative to the folder that was predicted on.
        case: Name of the case; empty if not written.
        decision: Name of the class.
        probabilities: One a class, in the order of the classes.
        unsure: Whether it was sent to a human.
    """

    file: str
    case: str
    decision: str
    probabilities: tuple[float, ...]
    unsure: bool


@dataclass(frozen=True)
class ClassPredictions:
    """The rows of a ``predictions.csv``.

    Attributes:
        folder: Folder that holds it; ``run.json`` may lie beside it.
        classes: Class names in the order of their index.
        positive: Class that the column ``probability`` belongs to, of two; None where it does not tell.
        rows: The rows that can be used.
        rejected: File (or line) → why its row cannot be used.
    """

    folder: Path
    classes: tuple[str, ...]
    positive: str | None
    rows: tuple[ClassPrediction, ...]
    rejected: Mapping[str, str]


def is_classification(predictions: Path) -> bool:
    """Whether these are a classifier's predictions: a CSV file, or a folder with one and no label maps."""
    if predictions.is_file():
        return predictions.suffix.lower() == ".csv"
    has_table = (predictions / PREDICTIONS_FILE).is_file()
    return has_table and not any(predictions.glob("*_seg.nii*"))


def read_class_predictions(
    predictions: Path, *, classes: Sequence[str] = (), positive: str | None = None
) -> ClassPredictions:
    """Read a ``predictions.csv``.

    Needs the columns ``file`` and ``decision``, and ``probability_<class>`` for every class or, for two
    classes, ``probability`` of the positive one.

    Args:
        predictions: The file, or the folder that holds it.
        classes: Class names in the order of their index; else the order of the columns.
        positive: Positive class of two; needed where there is only ``probability``.

    Returns:
        Usable rows, and the others with their reason.

    Raises:
        UsageError: There is no such file.
        DataError: It cannot be read, lacks a column, or has columns of other classes.
    """
    path = predictions / PREDICTIONS_FILE if predictions.is_dir() else predictions
    lines = _read_table(path)
    columns = list(lines[0]) if lines else []
    for needed in ("file", "decision"):
        if needed not in columns:
            raise DataError(
                f"{path} has no column {needed!r}; found {', '.join(columns) or 'no row at all'}."
            )
    names = _class_names(columns, lines, tuple(classes), path)
    if positive is not None and positive not in names:
        raise DataError(f"{path} has the classes {', '.join(names)}; expected the positive one, {positive}.")
    if len(names) == 2:
        positive = positive or _positive_of_column(lines, names)
    per_class = f"{PROBABILITY_PREFIX}{names[0]}" in columns
    if not per_class and (len(names) != 2 or positive is None or "probability" not in columns):
        raise DataError(
            f"{path} has no columns {PROBABILITY_PREFIX}<class>; expected one for each of {', '.join(names)}."
        )
    rows, rejected = [], {}
    for number, line in enumerate(lines, start=2):
        try:
            rows.append(_row(line, names, positive, per_class))
        except DataError as err:
            rejected[line.get("file") or f"line {number}"] = str(err)
    return ClassPredictions(path.parent, names, positive, tuple(rows), rejected)


def _read_table(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        raise UsageError(f"There is no {path}; expected the {PREDICTIONS_FILE} that medimg3d predict writes.")
    try:
        with path.open(newline="", encoding="utf-8-sig") as handle:
            return [
                {str(key): value or "" for key, value in row.items() if key is not None}
                for row in csv.DictReader(handle)
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as err:
        raise DataError(f"{path} cannot be read ({type(err).__name__}); expected CSV in UTF-8.") from err


def _class_names(
    columns: Sequence[str], lines: Sequence[Mapping[str, str]], given: tuple[str, ...], path: Path
) -> tuple[str, ...]:
    """As given (and the columns must agree), else the columns' names, else those of the decisions."""
    written = tuple(
        name.removeprefix(PROBABILITY_PREFIX) for name in columns if name.startswith(PROBABILITY_PREFIX)
    )
    if given and written and set(given) != set(written):
        raise DataError(f"{path} has the classes {', '.join(written)}; expected {', '.join(given)}.")
    names = given or written or tuple(sorted({line["decision"] for line in lines}))
    if len(names) < 2:
        raise DataError(f"{path} names the classes {list(names)}; expected at least two.")
    return names


def _positive_of_column(lines: Sequence[Mapping[str, str]], names: Sequence[str]) -> str | None:
    """The class whose own column equals ``probability`` in every row, if there is exactly one."""
    same = [
        name
        for name in names
        if all(line.get(f"{PROBABILITY_PREFIX}{name}") == line.get("probability", "") for line in lines)
    ]
    return same[0] if len(same) == 1 else None


def _row(
    line: Mapping[str, str], names: Sequence[str], positive: str | None, per_class: bool
) -> ClassPrediction:
    decision = line["decision"]
    if not line["file"]:
        raise DataError("its row names no file")
    if decision not in names:
        raise DataError(f"its decision is {decision!r}; expected one of {', '.join(names)}")
    if per_class:
        probabilities = tuple(_probability(line.get(f"{PROBABILITY_PREFIX}{name}", "")) for name in names)
    else:
        of_positive = _probability(line["probability"])
        probabilities = tuple(of_positive if name == positive else 1 - of_positive for name in names)
    if abs(sum(probabilities) - 1) > SUM_TOLERANCE:
        raise DataError(f"its probabilities sum to {sum(probabilities):.4g}; expected 1")
    unsure = line.get("unsure", "").strip().lower() in ("yes", "true", "1")
    return ClassPrediction(line["file"], line.get("case", ""), decision, probabilities, unsure)


def _probability(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise DataError(f"a probability is {text!r}; expected a number from 0 to 1")
    return value
