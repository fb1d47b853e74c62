"""The facts of every case of a data set as CSV, one row a case."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from medimg3d.atomic import atomic_file
from medimg3d.data.case_facts import CaseFacts
from medimg3d.data.datalist import Datalist
from medimg3d.data.duplicates import DuplicateGroup
from medimg3d.data.fingerprint import PERCENTILES, ImageFingerprint

_LEADING = ("case", "file", "section", "class", "fold", "problem", "duplicate_group")


def write_explore_table(
    facts: Sequence[CaseFacts],
    datalist: Datalist,
    groups: Sequence[DuplicateGroup],
    root: Path,
    path: Path,
) -> Path:
    """Write the table; replaced at once when it is whole.

    Columns: the case, its first file, list, class, fold, problem, number of its group of duplicates; then for
    each image ``size``, ``spacing_mm``, ``mean``, percentiles, ``border_share``, ``bytes``, ``sha256`` and
    ``pixel_hash`` (with the image's name in front where a case has several); then ``ml_<structure>``, or
    ``pixels_<structure>`` in 2D. No patient is named.

    Args:
        facts: The cases.
        datalist: Names the structures.
        groups: Groups of duplicates, numbered from 1 in the table.
        root: Absolute folder; paths below it are written relative to it, of others the name alone.
        path: CSV to write.
    """
    group_of = {one.case: number for number, group in enumerate(groups, start=1) for one in group.occurrences}
    rows = [_row(one, datalist, group_of, root) for one in facts]
    words = list(dict.fromkeys(word for one in facts for word in one.images))
    for row, one in zip(rows, facts, strict=True):
        for word, image in one.images.items():
            prefix = "" if len(words) == 1 else f"{word}_"
            row.update({f"{prefix}{name}": cell for name, cell in _image_cells(image).items()})
        row.update(_structure_cells(one, datalist))
    columns = list(dict.fromkeys([*_LEADING, *(name for row in rows for name in row)]))
    with atomic_file(path) as part, open(part, "w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
    return path


def _row(facts: CaseFacts, datalist: Datalist, group_of: Mapping[str, int], root: Path) -> dict[str, object]:
    file = facts.case.files[0]
    fold = facts.case.fold
    return {
        "case": facts.name,
        "file": file.relative_to(root).as_posix() if file.is_relative_to(root) else file.name,
        "section": facts.section,
        "class": facts.class_name or "",
        "fold": "" if fold is None else fold,
        "problem": facts.problem,
        "duplicate_group": group_of.get(facts.name, ""),
    }


def _image_cells(image: ImageFingerprint) -> dict[str, object]:
    spacing = "" if image.spacing_mm is None else "x".join(f"{size:.4g}" for size in image.spacing_mm)
    points = zip(PERCENTILES, image.percentiles, strict=True)
    return {
        "size": "x".join(map(str, image.shape)),
        "spacing_mm": spacing,
        "mean": f"{image.mean:.6g}",
        **{f"p{point:g}": f"{value:.6g}" for point, value in points},
        "border_share": f"{image.border_share:.4f}",
        "bytes": image.num_bytes,
        "sha256": image.sha256,
        "pixel_hash": image.pixel_hash,
    }


def _structure_cells(facts: CaseFacts, datalist: Datalist) -> dict[str, object]:
    cells: dict[str, object] = {}
    for value, structure in facts.structures.items():
        if value == 0:
            continue
        name = datalist.labels.get(value) or f"label {value}"
        if structure.volume_ml is None:
            cells[f"pixels_{name}"] = structure.voxels
        else:
            cells[f"ml_{name}"] = f"{structure.volume_ml:.4g}"
    return cells
