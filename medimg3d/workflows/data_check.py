"""The check of the data that goes before every training: what is wrong is said before any hour is spent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from medimg3d.bundle.folder import BundleFolder
from medimg3d.bundle.inference import channel_names
from medimg3d.data.checks import TOLERANCE_MM, CheckReport, Progress, check_datalist, keep_accepted
from medimg3d.data.datalist import Datalist
from medimg3d.data.datalist_file import load_datalist, save_datalist
from medimg3d.data.finding import Finding
from medimg3d.data.json_file import write_json
from medimg3d.data.set_checks import STACKED
from medimg3d.errors import DataError

REPORT = "data_check.json"
FACTS = "image_facts.jsonl"
REDUCED = "checked_datalist.json"


class RefusedDataError(DataError):
    """Cases of the training list cannot be trained on.

    Args:
        message: One line.
        checked: What the check found.
    """

    def __init__(self, message: str, checked: CheckedList) -> None:
        super().__init__(message)
        self.checked = checked


@dataclass(frozen=True)
class DataCheck:
    """How data are checked before a training.

    Attributes:
        drop_rejected: Go on with the good cases; else one case that cannot be used refuses the training.
        tolerance_mm: Allowed distance between the corners of the grids of image and label, in mm.
        facts_file: Keeps what was read, as long as the files do not change; in the training's folder if None.
        progress: Opens a progress bar.
        show: Called with what was found, whether or not the training is refused.
    """

    drop_rejected: bool = False
    tolerance_mm: float = TOLERANCE_MM
    facts_file: Path | None = None
    progress: Callable[[], AbstractContextManager[Progress]] | None = None
    show: Callable[[CheckedList], None] | None = None


@dataclass(frozen=True)
class CheckedList:
    """A datalist whose cases can be trained on.

    Attributes:
        list_file: The datalist itself, or the one without the rejected cases.
        source: The datalist that was checked; paths of findings are shown relative to its folder.
        report: What was found.
    """

    list_file: Path
    source: Path
    report: CheckReport


def check_list(
    list_file: Path, folder: Path, check: DataCheck | None = None, *, bundle: BundleFolder | None = None
) -> CheckedList:
    """Check every case of a datalist; refuse it, or leave out what cannot be used.

    Writes ``data_check.json`` (all findings) and ``image_facts.jsonl`` (what was read, for the next time) to
    ``folder`` and, if cases are left out, ``checked_datalist.json``.

    Args:
        list_file: The datalist.
        folder: Where the check's files go.
        check: How to check.
        bundle: Its network says how many channels an image has, and which named ones; None if there is no network yet:
            then all named images are its channels.

    Returns:
        The datalist to train from and the report.

    Raises:
        RefusedDataError: Cases of the training list were rejected and are not to be dropped, or none is left.
            Rejected cases of other lists refuse nothing.
        DataError: It is no datalist.
    """
    check = check or DataCheck()
    datalist = load_datalist(list_file)
    facts_file = check.facts_file or folder / FACTS
    with check.progress() if check.progress else nullcontext() as progress:
        report = check_datalist(
            _with_stacked(datalist, bundle),
            tolerance_mm=check.tolerance_mm,
            num_channels=None if bundle is None else _num_channels(bundle),
            facts_file=facts_file,
            progress=progress,
        )
    base = list_file.resolve().parent
    findings = [finding.as_json(base) for finding in report.findings]
    write_json({"format": 1, "rejected": report.rejected, "findings": findings}, folder / REPORT)
    reduced = check.drop_rejected and bool(report.rejected)
    left = keep_accepted(datalist, report)
    checked = CheckedList(folder / REDUCED if reduced else list_file, list_file, report)
    if check.show is not None:
        check.show(checked)
    _refuse(checked, datalist, left, folder, drop_rejected=check.drop_rejected)
    if reduced:
        save_datalist(left, folder / REDUCED)
    return checked


def _with_stacked(datalist: Datalist, bundle: BundleFolder | None) -> Datalist:
    """The datalist with the named images that a network takes together; as it is where there are none.

    A bundle of which no channel is called like one of the images finds them in its own way.
    """
    sets = Counter(tuple(case.images) for case in datalist.training if case.images)
    usual = max(sets, key=lambda names: (sets[names], len(names)), default=())
    names = usual if bundle is None else channel_names(bundle)
    if len(names) < 2 or not any(name in own for own in sets for name in names):
        return datalist
    return replace(datalist, extra={**datalist.extra, STACKED: names})


def _num_channels(bundle: BundleFolder) -> int | None:
    """Channels of the input named ``image``; None where the metadata does not say."""
    inputs = bundle.metadata.get("network_data_format", {}).get("inputs", {})
    found = inputs.get("image", {}).get("num_channels")
    return found if isinstance(found, int) else None


def _refuse(
    checked: CheckedList, datalist: Datalist, left: Datalist, folder: Path, *, drop_rejected: bool
) -> None:
    """Refuse a training list with cases that cannot be used.

    Raises:
        RefusedDataError: It has such cases, and they are not to be left out, or nothing would be left.
    """
    severe = [one for one in checked.report.findings if one.severe and one.section == "training"]
    refused = {one.case for one in severe}
    if not refused or (drop_rejected and left.training):
        return
    count = f"{len(refused)} of {len(datalist.training)} training cases cannot be used"
    cure = (
        "No case is left: mend them" if drop_rejected else "Mend them, or leave them out with --drop-rejected"
    )
    first = severe[0].line(checked.source.resolve().parent)
    raise RefusedDataError(
        f"{count}. {'First: ' if len(severe) > 1 else ''}{first} {cure}. All findings: {folder / REPORT}",
        checked,
    )


def shown_findings(findings: Sequence[Finding], *, per_defect: int = 5) -> tuple[list[Finding], list[str]]:
    """The first findings of each kind, severe ones first, and a line for the rest of each kind.

    Args:
        findings: What a check found.
        per_defect: Findings of one kind that are shown whole.

    Returns:
        Findings in full, and lines such as "spacing: 37 more".
    """
    shown: list[Finding] = []
    counts: dict[tuple[bool, str], int] = {}
    for finding in findings:
        kind = (finding.severe, finding.defect)
        counts[kind] = counts.get(kind, 0) + 1
        if counts[kind] <= per_defect:
            shown.append(finding)
    rest = [
        f"{defect}: {count - per_defect} more" for (_, defect), count in counts.items() if count > per_defect
    ]
    return shown, rest
