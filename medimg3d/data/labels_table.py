"""Reads a folder whose classes stand in a table: ``labels.csv``, one row an image.

Columns are known by their names, whatever their order: ``file`` (or ``image``, ``path``), ``label`` (or
``class``), and, where there are such, ``split``, ``patient`` (or ``patient_group``, ``patient_id``) and ``id``.
Every other column becomes an entry of the case's ``values``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from medimg3d.data.datalist import SECTIONS, Case, Datalist, Section, with_cases
from medimg3d.data.image_facts import image_ending, is_dicom_folder
from medimg3d.data.section_names import section_named
from medimg3d.data.table_file import Cell, named_columns, read_table, typed_rows
from medimg3d.errors import DataError

TABLE_NAME = "labels.csv"
_COLUMNS: Mapping[str, Sequence[str]] = {
    "file": ("file", "image", "path"),
    "class": ("label", "class"),
    "split": ("split",),
    "patient": ("patient", "patient_group", "patient_id"),
    "id": ("id",),
}
_Row = Mapping[str, str]


def read_labels_table(root: Path) -> tuple[Datalist, dict[str, str]] | None:
    """The cases of a folder with ``labels.csv``, and its files that are in no case.

    A row without a split belongs to ``training``; without a class it is a case whose class is not known. The
    classes are sorted, by number where all of them are numbers.

    Args:
        root: Folder; paths in the table count from it.

    Returns:
        The datalist, and file (relative to the folder) to reason; None if there is no such table, or none
        with a column for the file and one for the class.

    Raises:
        DataError: The table cannot be read, or has no row.
    """
    path = root / TABLE_NAME
    if not path.is_file():
        return None
    columns, rows = read_table(path)
    names = named_columns(columns, _COLUMNS)
    if "file" not in names or "class" not in names:
        return None
    if not rows:
        raise DataError(f"{path} has no row; expected a header and one row an image.")
    if image_ending(Path(rows[0][names["class"]])):
        return None  # label maps, not classes
    values = typed_rows(rows, [name for name in columns if name not in names.values()])
    cases: dict[Section, list[Case]] = {section: [] for section in SECTIONS}
    rejected: dict[str, str] = {}
    listed: set[Path] = set()
    for row, own in zip(rows, values, strict=True):
        text = row[names["file"]]
        image = _path_of(text, root)
        section = _section_of(row.get(names.get("split", ""), ""))
        listed.add(image)
        problem = _problem(text, image, section, row.get(names.get("split", ""), ""))
        if problem or section is None:
            rejected[text or "a row without a file"] = problem
        else:
            cases[section].append(_case(image, row, names, own))
    rejected |= {
        file.relative_to(root).as_posix(): f"not listed in {TABLE_NAME}" for file in _free(root, listed)
    }
    classes = {str(case.class_label) for own in cases.values() for case in own if case.class_label}
    return with_cases(Datalist(name=root.name, classes=_sorted_classes(classes)), cases), rejected


def _path_of(text: str, root: Path) -> Path:
    return Path(os.path.normpath(root / text.replace("\\", "/")))


def _section_of(text: str) -> Section | None:
    return section_named(text) if text else "training"


def _problem(text: str, image: Path, section: Section | None, split: str) -> str:
    """Why a row is no case; empty if it is one."""
    if not text:
        return f"a row of {TABLE_NAME} names no file"
    if section is None:
        return f"its split is {split!r}; expected train, val or test"
    if not image.exists():
        return f"is missing; {TABLE_NAME} names it"
    if not (is_dicom_folder(image) if image.is_dir() else image_ending(image)):
        return "not an image that can be read"
    return ""


def _case(image: Path, row: _Row, names: Mapping[str, str], values: Mapping[str, Cell]) -> Case:
    return Case(
        image=image,
        id=row.get(names.get("id", "")) or (image.name if image.is_dir() else None),
        patient=row.get(names.get("patient", "")) or None,
        class_label=row[names["class"]] or None,
        values=values,
    )


def _free(root: Path, listed: set[Path]) -> Iterator[Path]:
    """Images below the folder that no row names; hidden ones are passed over."""
    for file in sorted(root.rglob("*")):
        hidden = any(part.startswith(".") or part == "__MACOSX" for part in file.relative_to(root).parts)
        if hidden or not file.is_file() or not image_ending(file):
            continue
        if file not in listed and file.parent not in listed:
            yield file


def _sorted_classes(classes: set[str]) -> tuple[str, ...]:
    """By number where every class is one, else by text."""
    if all(name.isdigit() for name in classes):
        return tuple(sorted(classes, key=int))
    return tuple(sorted(classes))
