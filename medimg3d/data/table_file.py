"""Reads a table of text: cells by column, columns of numbers as numbers."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path

from medimg3d.errors import DataError

Cell = str | int | float | None


def read_table(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """The columns of a table, and its rows by column.

    Args:
        path: Text in UTF-8; commas, semicolons or tabs between the cells, the first line names the columns.

    Returns:
        Names of the columns; rows without the empty ones, every cell stripped.

    Raises:
        DataError: The file cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as err:
        raise DataError(f"{path} cannot be read ({type(err).__name__}); expected a table in UTF-8.") from err
    head = lines[0] if lines else ""
    cells = csv.reader(lines, delimiter=max(",;\t", key=head.count))
    columns = [name.strip() for name in next(cells, [])]
    rows = [
        dict(zip_longest(columns, (cell.strip() for cell in row[: len(columns)]), fillvalue=""))
        for row in cells
        if any(row)
    ]
    return columns, rows


def named_columns(columns: Sequence[str], known: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """What a column is for, to its name in the table; the first known name counts, in any case of letters."""
    by_lower = {column.lower(): column for column in columns}
    found = {
        use: next((by_lower[name] for name in names if name in by_lower), None)
        for use, names in known.items()
    }
    return {use: name for use, name in found.items() if name is not None}


def typed_rows(rows: Sequence[Mapping[str, str]], columns: Sequence[str]) -> list[dict[str, Cell]]:
    """These columns of each row: numbers where the whole column holds numbers, None where blank."""
    by_column = {column: _typed([row[column] for row in rows]) for column in columns}
    return [{column: cells[number] for column, cells in by_column.items()} for number in range(len(rows))]


def _typed(cells: Sequence[str]) -> list[Cell]:
    for kind in (int, float):
        try:
            numbers = [kind(cell) if cell else None for cell in cells]
        except ValueError:
            continue
        if all(number is None or math.isfinite(number) for number in numbers):
            return list(numbers)
    return [cell or None for cell in cells]
