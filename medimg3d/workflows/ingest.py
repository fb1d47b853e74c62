"""From a user's folders to a checked datalist with folds, every rejected file named beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medimg3d.data.checks import TOLERANCE_MM, CheckReport, Progress, check_datalist, keep_accepted
from medimg3d.data.datalist import Case, Datalist
from medimg3d.data.datalist_file import load_datalist, save_datalist
from medimg3d.data.finding import Finding
from medimg3d.data.folders import FolderScan, read_folders
from medimg3d.data.folds import assign_folds, split_unit
from medimg3d.data.json_file import write_json
from medimg3d.data.set_description import SetDescription, described
from medimg3d.errors import DataError, UsageError

_NOTES = {
    "patient": "Folds keep all cases of a patient together.",
    "case": "Patients are not known: each case counts as its own. If one person has several images, "
    "folds may share that person; give a patient pattern.",
}


@dataclass(frozen=True)
class IngestResult:
    """What :func:`make_datalist` did.

    Attributes:
        path: The datalist.
        rejected_path: The file with the rejects; None if there are none.
        datalist: What was written.
        rejected: File or case to reason, from the folders and from the checks.
        warnings: Case to what a person should look at.
        layouts: Layout of each folder, in words.
        findings: What the check found in files, with file and cure.
        base: Folder that their paths are shown relative to.
    """

    path: Path
    rejected_path: Path | None
    datalist: Datalist
    rejected: dict[str, str]
    warnings: dict[str, str]
    layouts: tuple[str, ...]
    findings: tuple[Finding, ...] = ()
    base: Path | None = None

    def summary(self) -> dict[str, Any]:
        """The result as plain values, for ``--json``."""
        sections = {"training": self.datalist.training, "validation": self.datalist.validation}
        counts = {name: len(cases) for name, cases in (sections | {"test": self.datalist.test}).items()}
        return {
            "datalist": str(self.path),
            "layouts": list(self.layouts),
            **counts,
            "labels": {str(value): name for value, name in self.datalist.labels.items()},
            "classes": list(self.datalist.classes),
            "split": dict(self.datalist.split),
            "fold_sizes": fold_sizes(self.datalist),
            "rejected_file": None if self.rejected_path is None else str(self.rejected_path),
            "rejected": self.rejected,
            "warnings": self.warnings,
            "findings": [finding.as_json(self.base) for finding in self.findings],
        }


def make_datalist(
    folders: Sequence[str | Path],
    out: str | Path,
    *,
    num_folds: int | None = None,
    seed: int = 0,
    patient_pattern: str | None = None,
    pair: tuple[str, str] | None = None,
    description: SetDescription | None = None,
    check: bool = True,
    tolerance_mm: float = TOLERANCE_MM,
    progress: Progress | None = None,
) -> IngestResult:
    """Recognise folders, check every case, assign folds, write the datalist and the rejects.

    The rejects go to ``<out without .json>.rejected.json``, name to reason; an old one is removed when there
    are none. With no case left, only the rejects are written.

    Args:
        folders: See :func:`medimg3d.data.folders.read_folders`; or one datalist, to check it and to leave out
            what cannot be used. Cases that carry a fold keep it.
        out: The datalist to write; replaced if it exists, never a ``dataset.json``.
        num_folds: Number of cross-validation folds, at least 2; by default that of the datalist or of a table in which
            every case has its fold, else 5.
        seed: Seed of the folds.
        patient_pattern: Regular expression that finds the patient in a file name.
        pair: Names of the folders of images and of label maps, where they are none of the usual ones.
        description: What is known of the set beside its files: a table, names, modalities.
        check: Read and check every image; without it only names are looked at.
        tolerance_mm: Allowed distance between the grids of an image and its label, in mm.
        progress: Called after each checked case.

    Returns:
        What was done.

    Raises:
        UsageError: No such folder, an empty or unknown one, a bad option.
        DataError: No case was accepted, or fewer patients (cases) than folds.
    """
    out = Path(out)
    if out.name == "dataset.json":
        raise UsageError(
            "The datalist cannot be called dataset.json (the set's own file); choose another --out."
        )
    if num_folds is not None and num_folds < 2:
        raise UsageError(f"--num-folds is {num_folds}; expected at least 2.")
    scan, base = _scan([Path(folder) for folder in folders], out, patient_pattern, pair)
    if description is not None:
        scan = _described(scan, description)
    num_folds = num_folds or _own_number_of_folds(scan.datalist) or 5
    report = (
        check_datalist(scan.datalist, tolerance_mm=tolerance_mm, progress=progress)
        if check
        else _unread(scan)
    )
    rejected = _all_rejected(scan, report)
    rejected_path = _write_rejected(rejected, out)
    datalist = _with_found_labels(keep_accepted(scan.datalist, report), report)
    if not datalist.training:
        raise DataError(_nothing_left(rejected, rejected_path))
    datalist = _with_folds(datalist, num_folds, seed)
    save_datalist(datalist, out)
    return IngestResult(
        out, rejected_path, datalist, rejected, report.warnings, scan.layouts, report.findings, base
    )


def _own_number_of_folds(datalist: Datalist) -> int | None:
    """What the datalist says, else as many as its cases carry where all of them carry one."""
    said = datalist.split.get("num_folds")
    if isinstance(said, int):
        return said
    carried = [case.fold for case in datalist.training if case.fold is not None]
    return max(carried) + 1 if carried and len(carried) == len(datalist.training) else None


def _described(scan: FolderScan, description: SetDescription) -> FolderScan:
    datalist, without_row, words = described(scan.datalist, description)
    layouts = (*scan.layouts, words) if words else scan.layouts
    return FolderScan(datalist, scan.rejected | without_row, layouts)


def _scan(
    sources: list[Path], out: Path, patient_pattern: str | None, pair: tuple[str, str] | None
) -> tuple[FolderScan, Path | None]:
    """The cases of folders, or of one datalist; and the folder to show paths relative to."""
    if len(sources) != 1 or not sources[0].is_file():
        base = sources[0].absolute() if len(sources) == 1 else None
        return read_folders(sources, patient_pattern=patient_pattern, pair=pair), base
    if patient_pattern is not None:
        raise UsageError("A patient pattern is for folders; a datalist names its patients itself.")
    if pair is not None:
        raise UsageError(
            "Folders of images and label maps are for folders; a datalist names its files itself."
        )
    if out.absolute() == sources[0].absolute():
        raise UsageError(
            "--out is the datalist that is checked; expected another file, so that it stays as it is."
        )
    return FolderScan(load_datalist(sources[0]), layouts=("datalist",)), sources[0].absolute().parent


def fold_sizes(datalist: Datalist) -> list[int]:
    """Number of training cases in each fold."""
    counts = Counter(case.fold for case in datalist.training)
    return [counts[fold] for fold in range(int(datalist.split.get("num_folds", 0)))]


def rejected_file(out: Path) -> Path:
    """Where the rejects of a datalist stand: ``study.json`` → ``study.rejected.json``."""
    return out.with_name(f"{out.name.removesuffix('.json')}.rejected.json")


def _nothing_left(rejected: Mapping[str, str], path: Path | None) -> str:
    if not rejected:
        return "No training case was found; expected at least as many as there are folds."
    name, reason = next(iter(rejected.items()))
    first = f"{name}: {reason}"
    return f"No training case was accepted: {len(rejected)} rejected, such as {first}. All reasons: {path}"


def _unread(scan: FolderScan) -> CheckReport:
    """All cases accepted but those whose name is taken: two cases cannot share an id."""
    named = scan.datalist.named_cases()
    return CheckReport(
        accepted=[name for name, _, case in named if name == case.name],
        rejected={name: "its name is used twice" for name, _, case in named if name != case.name},
    )


def _all_rejected(scan: FolderScan, report: CheckReport) -> dict[str, str]:
    """Rejects of both steps; a case that shares its name with a rejected file keeps both reasons."""
    both = {
        name: f"{scan.rejected[name]}; {reason}"
        for name, reason in report.rejected.items()
        if name in scan.rejected
    }
    return scan.rejected | report.rejected | both


def _write_rejected(rejected: Mapping[str, str], out: Path) -> Path | None:
    path = rejected_file(out)
    if not rejected:
        path.unlink(missing_ok=True)
        return None
    return write_json(rejected, path)


def _with_found_labels(datalist: Datalist, report: CheckReport) -> Datalist:
    """Name the label values by number where the folders did not name them."""
    if datalist.labels or not report.label_values:
        return datalist
    names = {value: f"label {value}" if value else "background" for value in {0, *report.label_values}}
    return replace(datalist, labels=dict(sorted(names.items())))


def _with_folds(datalist: Datalist, num_folds: int, seed: int) -> Datalist:
    plain = [_for_folds(case) for case in datalist.training]
    try:
        folds = assign_folds(plain, num_folds=num_folds, seed=seed)
    except ValueError as err:
        raise DataError(f"{err} Choose another number of folds with --num-folds.") from err
    unit = split_unit(plain)
    training = tuple(replace(case, fold=fold) for case, fold in zip(datalist.training, folds, strict=True))
    split = {"by": unit, "num_folds": num_folds, "seed": seed, "note": _NOTES[unit]}
    return replace(datalist, training=training, split=split)


def _for_folds(case: Case) -> dict[str, Any]:
    return {"id": case.name, "patient": case.patient, "fold": case.fold}
