"""What a user knows of a set of images beside its files: a table of the cases, names of structures, modalities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from medimg3d.data.datalist import SECTIONS, Case, Datalist, Section, with_cases
from medimg3d.data.section_names import section_named
from medimg3d.data.table_file import Cell, named_columns, read_table, typed_rows
from medimg3d.errors import DataError, UsageError

_COLUMNS: Mapping[str, Sequence[str]] = {
    "id": ("id", "case", "name"),
    "patient": ("patient", "patient_id"),
    "fold": ("fold",),
    "split": ("split",),
}


@dataclass(frozen=True)
class SetDescription:
    """What a user says of a set.

    Attributes:
        table: CSV file with a row a case (column ``id``, ``case`` or ``name``) or a row a patient (column
            ``patient`` alone). Its columns ``patient``, ``fold`` and ``split`` are what they say, all others
            become the cases' ``values``.
        test_where: A column and a value; cases that have it are test cases, as those of another hospital.
        structures: Value in the label maps to structure.
        modality: Modality of each channel, in order: CT, MRI, PET.
        name: Name of the study.
        licence: Licence of the images.
        unknown_voxel_size: The headers' voxel sizes are not true: nothing is resampled, no figure is in mm or mL.
    """

    table: Path | None = None
    test_where: tuple[str, str] | None = None
    structures: Mapping[int, str] = field(default_factory=dict)
    modality: tuple[str, ...] = ()
    name: str = ""
    licence: str = ""
    unknown_voxel_size: bool = False


def described(datalist: Datalist, description: SetDescription) -> tuple[Datalist, dict[str, str], str]:
    """A datalist with what its user says of it.

    Args:
        datalist: As found in folders.
        description: What is added; what the datalist says of its own is kept where this says nothing.

    Returns:
        The datalist; cases that the table has no row for, with this reason, which are left out; and what was
        found in the table, in words (empty without one).

    Raises:
        UsageError: No such table or column, no case has the value that test cases have.
        DataError: The table cannot be read, names a case twice, or has a fold that is no number from 0.
    """
    rejected: dict[str, str] = {}
    words = ""
    if description.table is not None:
        datalist, rejected, words = _with_table(datalist, description.table)
    if description.test_where is not None:
        datalist = _with_test_cases(datalist, *description.test_where)
    structures = {0: "background", **description.structures} if description.structures else datalist.labels
    modality = {str(number): name for number, name in enumerate(description.modality)}
    return (
        replace(
            datalist,
            labels=dict(sorted(structures.items())),
            modality=modality or datalist.modality,
            name=description.name or datalist.name,
            licence=description.licence or datalist.licence,
            extra=dict(datalist.extra)
            | ({"voxel_size": "unknown"} if description.unknown_voxel_size else {}),
        ),
        rejected,
        words,
    )


def _with_table(datalist: Datalist, path: Path) -> tuple[Datalist, dict[str, str], str]:
    if not path.is_file():
        raise UsageError(f"No table {path}; expected a CSV file with a row a case.")
    columns, rows = read_table(path)
    names = named_columns(columns, _COLUMNS)
    key = names.get("id") or names.get("patient")
    if key is None:
        raise UsageError(
            f"{path.name} has the columns {', '.join(columns)}; expected one called id or patient."
        )
    own = typed_rows(rows, [name for name in columns if name not in names.values()])
    by_key: dict[str, tuple[dict[str, str], dict[str, Cell]]] = {}
    for row, values in zip(rows, own, strict=True):
        if row[key] in by_key:
            raise DataError(f"{path.name} has two rows for {row[key]}; expected one.")
        by_key[row[key]] = row, values
    cases: dict[Section, list[Case]] = {section: [] for section in SECTIONS}
    rejected: dict[str, str] = {}
    used = set()
    for section in SECTIONS:
        for case in datalist.section(section):
            found = next((name for name in (case.name, case.patient) if name in by_key), None)
            if found is None:
                rejected[case.name] = f"has no row in {path.name} (column {key})"
                continue
            used.add(found)
            row, values = by_key[found]
            text = row.get(names.get("split", ""), "")
            cases[_section(text, section, path)].append(_case(case, row, values, names, path))
    free = [name for name in by_key if name not in used]
    words = f"table {path.name}: {len(used)} rows used"
    if free:
        words += f", {len(free)} without an image ({', '.join(free[:3])}{', …' if len(free) > 3 else ''})"
    return with_cases(datalist, cases), rejected, words


def _section(text: str, default: Section, path: Path) -> Section:
    section = section_named(text) if text else default
    if section is None:
        raise DataError(f"{path.name} has the split {text!r}; expected train, val or test.")
    return section


def _case(
    case: Case, row: Mapping[str, str], values: Mapping[str, Cell], names: Mapping[str, str], path: Path
) -> Case:
    fold = row.get(names.get("fold", ""), "")
    if fold and not fold.isdigit():
        raise DataError(f"{path.name} has the fold {fold!r} for {case.name}; expected a whole number from 0.")
    return replace(
        case,
        patient=row.get(names.get("patient", ""), "") or case.patient,
        fold=int(fold) if fold else case.fold,
        values={**case.values, **values},
    )


def _with_test_cases(datalist: Datalist, column: str, value: str) -> Datalist:
    """Cases whose column has the value become test cases; folds are for the others."""
    seen = {name for case in datalist.cases() for name in case.values}
    if column not in seen:
        found = ", ".join(sorted(seen)) or "none; give them with --table"
        raise UsageError(f"No case has a value {column!r}; there are: {found}.")
    cases: dict[Section, list[Case]] = {section: [] for section in SECTIONS}
    for section in SECTIONS:
        for case in datalist.section(section):
            is_test = str(case.values.get(column)) == value
            cases["test" if is_test else section].append(replace(case, fold=None) if is_test else case)
    if len(cases["test"]) == len(datalist.test):
        there = sorted({str(case.values.get(column)) for case in datalist.cases()})
        more = ", …" if len(there) > 8 else ""
        raise UsageError(f"No case has {column} = {value!r}; there are {', '.join(there[:8])}{more}.")
    return with_cases(datalist, cases)
