"""The true class of each film: from a datalist, a ``labels.csv`` or one folder a class."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medimg3d.data.datalist import SECTIONS, Datalist
from medimg3d.data.datalist_file import load_datalist
from medimg3d.data.folders import read_folders
from medimg3d.data.section_names import section_named
from medimg3d.errors import DataError, UsageError

LABELS_FILE = "labels.csv"
ALL_SECTIONS = "all"

_LISTS = ("dataset.json", "datalist.json")
_FILE_COLUMNS = ("file", "image", "path", "filename")
_CLASS_COLUMNS = ("label", "class", "class_label")
_PATIENT_COLUMNS = ("patient", "patient_id", "patient_group")
_SECTION_COLUMNS = ("split", "section", "part")


@dataclass(frozen=True)
class ClassReference:
    """What is known of one film.

    Attributes:
        path: The film; it need not exist.
        case: Name of the case.
        truth: Its class, as written.
        section: ``training``, ``validation`` or ``test``; None where the source has no such parts.
        patient: Identifies the patient, or None if not known.
        values: Further columns, as text.
    """

    path: Path
    case: str
    truth: str
    section: str | None = None
    patient: str | None = None
    values: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ClassReferences:
    """All films with a class.

    Attributes:
        name: Name of the list, for a record; no path.
        films: The films, of all sections.
        classes: Class names in the order of their index; empty if the source does not say.
        without_class: Films that have none.
    """

    name: str
    films: tuple[ClassReference, ...]
    classes: tuple[str, ...] = ()
    without_class: int = 0

    def in_section(self, section: str) -> tuple[ClassReference, ...]:
        """The films of a section; all of them for ``"all"`` or where the source has no sections."""
        if section == ALL_SECTIONS or all(film.section is None for film in self.films):
            return self.films
        return tuple(film for film in self.films if film.section == section)


def find_class_references(source: Path) -> ClassReferences:
    """Read the true classes.

    Args:
        source: A datalist (.json), a ``labels.csv``, a folder with one of them, or a folder with one folder a
            class. The CSV needs a column ``file`` (relative to it) and ``label``; ``patient``, ``split`` and
            any others are optional.

    Returns:
        The films that have a class.

    Raises:
        UsageError: No such file or folder, or nothing in it has a class.
        DataError: It cannot be read.
    """
    path = _list_in(source)
    if path is None:
        found = _from_datalist(read_folders([source]).datalist, source.resolve().name, sections=False)
    elif path.suffix.lower() == ".csv":
        found = _from_table(path)
    else:
        datalist = load_datalist(path)
        found = _from_datalist(datalist, datalist.name or path.name, sections=True)
    if not found.films:
        raise UsageError(
            f"{source} has no film with a class; expected class_label in a datalist, or label in {LABELS_FILE}."
        )
    return found


def check_section(section: str) -> None:
    """Refuse a section that no list has.

    Raises:
        UsageError: There is no such section.
    """
    if section not in (*SECTIONS, ALL_SECTIONS):
        raise UsageError(
            f"There is no section {section!r}; expected one of {', '.join((*SECTIONS, ALL_SECTIONS))}."
        )


def _list_in(source: Path) -> Path | None:
    """The list itself or the one in the folder; None for a folder without any."""
    if source.is_file():
        if source.suffix.lower() in (".json", ".csv"):
            return source
        raise UsageError(f"{source} is neither a datalist (.json) nor a table (.csv); give one of them.")
    if not source.is_dir():
        raise UsageError(
            f"{source} does not exist; give a datalist, a {LABELS_FILE} or a folder with one of them."
        )
    return next((source / name for name in (*_LISTS, LABELS_FILE) if (source / name).is_file()), None)


def _from_datalist(datalist: Datalist, name: str, *, sections: bool) -> ClassReferences:
    films, without = [], 0
    for case_name, section, case in datalist.named_cases():
        label = datalist.class_index(case)
        if label is None:
            without += 1
            continue
        truth = datalist.classes[label] if isinstance(label, int) and datalist.classes else str(label)
        values = {key: _text(value) for key, value in {**case.extra, **case.values}.items()}
        films.append(
            ClassReference(
                case.files[0], case_name, truth, section if sections else None, case.patient, values
            )
        )
    return ClassReferences(name, tuple(films), datalist.classes, without)


def _from_table(path: Path) -> ClassReferences:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as err:
        raise DataError(f"{path} cannot be read ({type(err).__name__}); expected a table in UTF-8.") from err
    reader = csv.DictReader(lines, delimiter=max(",;\t", key=(lines or [""])[0].count), restval="")
    rows = [{str(key).strip(): str(cell).strip() for key, cell in row.items() if key} for row in reader]
    columns = list(rows[0]) if rows else []
    file_column, class_column = _one_of(_FILE_COLUMNS, columns), _one_of(_CLASS_COLUMNS, columns)
    if file_column is None or class_column is None:
        raise DataError(
            f"{path} has the columns {', '.join(columns) or '(none)'}; expected at least file and label."
        )
    labelled = [row for row in rows if row[file_column] and row[class_column]]
    films = tuple(_from_row(row, path.resolve().parent, file_column, class_column) for row in labelled)
    return ClassReferences(f"{path.resolve().parent.name}/{path.name}", films, (), len(rows) - len(labelled))


def _from_row(row: Mapping[str, str], base: Path, file_column: str, class_column: str) -> ClassReference:
    patient, section = _one_of(_PATIENT_COLUMNS, row), _one_of(_SECTION_COLUMNS, row)
    known = {file_column, class_column, patient, section}
    path = base / row[file_column]
    return ClassReference(
        path,
        row.get("id") or path.stem,
        row[class_column],
        (section_named(row[section]) or row[section]) if section else None,
        (row[patient] or None) if patient else None,
        {key: value for key, value in row.items() if key not in known},
    )


def _one_of(names: Sequence[str], columns: Any) -> str | None:
    return next((name for name in names if name in columns), None)


def _text(value: Any) -> str:
    return "" if value is None else str(value)
