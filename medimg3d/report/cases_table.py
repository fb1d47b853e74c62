"""The scores of every case and class as CSV."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

from medimg3d.atomic import atomic_file
from medimg3d.metrics.case_scores import ClassScore

COLUMNS = ("case", "class", *(field.name for field in fields(ClassScore)), "seen_in_training")


def write_cases_table(
    scores: Mapping[str, Mapping[str, ClassScore]], seen: Mapping[str, str] | None, path: Path
) -> Path:
    """Write one row a case and class; replaced at once when it is whole.

    Args:
        scores: Case → class → scores.
        seen: Scored case → training case with the same image or label; None if it could not be checked.
        path: CSV to write. A cell is blank where a number is undefined or its voxel size unknown.

    Returns:
        ``path``.
    """
    with atomic_file(path) as part, open(part, "w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(COLUMNS)
        for case, classes in scores.items():
            known = "" if seen is None else "yes" if case in seen else "no"
            for name, score in classes.items():
                cells = (_cell(getattr(score, field.name)) for field in fields(ClassScore))
                writer.writerow([case, name, *cells, known])
    return path


def _cell(value: float | str | None) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return value if isinstance(value, str) else f"{value:.6g}"
