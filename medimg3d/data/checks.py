"""Checks every case of a datalist: each ends accepted, or rejected with a reason."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from medimg3d.data.case_checks import ReadCase, files_to_read, read_case
from medimg3d.data.datalist import SECTIONS, Case, Datalist, Section, with_cases
from medimg3d.data.facts_reader import FactsReader
from medimg3d.data.finding import Finding
from medimg3d.data.json_file import is_int
from medimg3d.data.label_map import GRID_TOLERANCE_MM
from medimg3d.data.set_checks import (
    check_channels,
    check_dimensions,
    check_folds,
    check_labels_twice,
    check_named_images,
    check_orientations,
    check_patients,
    check_spacings,
    check_twice,
    check_unused_labels,
)
from medimg3d.errors import DataError

TOLERANCE_MM = GRID_TOLERANCE_MM
"""Largest distance between the corners of an image's and its label's grid, in mm."""

KNOWABLE = ("duplicate", "label outside", "patient in two folds", "patient in two lists", "spacing")
"""Defects that a datalist may declare as known (``"known_defects"``): cases are usable, if not as one would wish."""

Progress = Callable[[int, int], None]
"""Called with the number of cases done and the number of all cases."""


@dataclass(frozen=True)
class CheckReport:
    """What became of each case: ``set(accepted) | set(rejected)`` is the set of all cases.

    Attributes:
        accepted: Names, in the order of checking: test, validation, training.
        rejected: Name to reason.
        warnings: Name to what a person should look at; the case is accepted all the same. What concerns the
            set as a whole stands under "data set".
        label_values: Values that occur in the accepted label maps, ascending.
        findings: All of it with file, found, expected and cure: the severe ones first.

    Raises:
        ValueError: A case is both accepted and rejected.
    """

    accepted: list[str] = field(default_factory=list)
    rejected: dict[str, str] = field(default_factory=dict)
    warnings: dict[str, str] = field(default_factory=dict)
    label_values: tuple[int, ...] = ()
    findings: tuple[Finding, ...] = ()

    def __post_init__(self) -> None:
        both = sorted(set(self.accepted) & set(self.rejected))
        if both:
            raise ValueError(f"Cases are both accepted and rejected: {', '.join(both)}.")


def check_datalist(
    datalist: Datalist,
    *,
    tolerance_mm: float = TOLERANCE_MM,
    num_channels: int | None = None,
    facts_file: Path | None = None,
    processes: int | None = None,
    progress: Progress | None = None,
) -> CheckReport:
    """Read every file of a datalist once and check each case.

    Rejected: files missing or unreadable, image and label of different shape or grid, values in a label that
    are not in ``labels`` or no whole numbers, NaN or infinity in an image, another number of channels or
    dimensions than most, voxels in another unit of length, a case, image, id or content that occurs twice
    (the first stays; test before validation before training), a patient in two folds or two lists.
    Warned of: an empty label, other voxel sizes or orientations than most, named images on different grids,
    colour pictures among grey ones, a label map that occurs twice. ``docs/datalist.md`` lists all.

    Args:
        datalist: What to check. Of its extra keys, the value ``ignore_label`` is allowed in label maps, and the
            :data:`KNOWABLE` defects in ``known_defects`` are warned of instead of rejected.
        tolerance_mm: Allowed distance between the corners of the grids of image and label.
        num_channels: Channels that the network takes; None where only the cases are compared.
        facts_file: Keeps what was read from one run to the next, as long as the files do not change.
        processes: Processes that read; by default none for little data, else one a processor, at most 4.
        progress: Called after each case.

    Returns:
        The report, by the names of :meth:`Datalist.named_cases`.

    Raises:
        DataError: ``known_defects`` holds something else.
    """
    known = _known_defects(datalist)
    named = datalist.named_cases()
    labels = _allowed_labels(datalist)
    cases = []
    with FactsReader(memory=facts_file, processes=processes) as reader:
        reader.begin(job for _, _, case in named for job in files_to_read(case))
        for done, (name, section, case) in enumerate(named, start=1):
            cases.append(read_case(name, section, case, reader, labels=labels, tolerance_mm=tolerance_mm))
            if progress is not None:
                progress(done, len(named))
    findings = _weigh([finding for one in cases for finding in one.findings], known)
    accepted, across = _compare(_without(cases, findings), datalist, num_channels, known)
    return _report(cases, accepted, findings + across)


def _known_defects(datalist: Datalist) -> tuple[str, ...]:
    known = datalist.extra.get("known_defects", ())
    if not isinstance(known, (list, tuple)) or not set(known) <= set(KNOWABLE):
        raise DataError(f'"known_defects" is {known!r}; expected a list of some of {", ".join(KNOWABLE)}.')
    return tuple(known)


def _weigh(findings: Sequence[Finding], known: Sequence[str]) -> list[Finding]:
    """The findings; those that the datalist declares as known refuse nothing."""
    return [replace(one, severe=one.severe and one.defect not in known) for one in findings]


def _allowed_labels(datalist: Datalist) -> set[int]:
    """Values that a label map may hold; empty for any."""
    ignored: Any = datalist.extra.get("ignore_label")
    return {*datalist.labels, ignored} if datalist.labels and is_int(ignored) else set(datalist.labels)


def keep_accepted(datalist: Datalist, report: CheckReport) -> Datalist:
    """The datalist without the rejected cases; each case carries its name as ``id``."""
    accepted = set(report.accepted)
    kept: dict[Section, list[Case]] = {section: [] for section in SECTIONS}
    for name, section, case in datalist.named_cases():
        if name in accepted:
            kept[section].append(replace(case, id=name))
    return with_cases(datalist, kept)


def _compare(
    cases: Sequence[ReadCase], datalist: Datalist, num_channels: int | None, known: Sequence[str]
) -> tuple[list[ReadCase], list[Finding]]:
    """The cases that fit together, and what was found; what one check refuses the next does not see."""
    channels = partial(check_channels, datalist=datalist, num_channels=num_channels)
    checks: list[Callable[[Sequence[ReadCase]], list[Finding]]] = [
        channels,  # with a network it is clear what is right, else what most have
        check_dimensions,
        check_spacings,
        partial(check_folds, datalist=datalist),
        check_patients,
        check_twice,
        check_named_images,
        check_orientations,
        check_labels_twice,
        partial(check_unused_labels, datalist=datalist),
    ]
    if num_channels is None:
        checks[:2] = [check_dimensions, channels]
    left, findings = list(cases), []
    for check in checks:
        found = _weigh(check(left), known)
        findings += found
        left = _without(left, found)
    names = {one.name for one in left}
    return left, [one for one in findings if one.severe or not one.case or one.case in names]


def _without(cases: Sequence[ReadCase], findings: Sequence[Finding]) -> list[ReadCase]:
    refused = {finding.case for finding in findings if finding.severe}
    return [one for one in cases if one.name not in refused]


def _report(
    cases: Sequence[ReadCase], accepted: Sequence[ReadCase], findings: Sequence[Finding]
) -> CheckReport:
    severe: dict[str, list[str]] = defaultdict(list)
    mild: dict[str, list[str]] = defaultdict(list)
    names = {one.name for one in accepted}
    for finding in findings:
        if finding.severe:
            severe[finding.case].append(finding.sentence)
        elif finding.case in names or not finding.case:
            mild[finding.case or "data set"].append(finding.sentence)
    return CheckReport(
        accepted=[one.name for one in accepted],
        rejected={one.name: " ".join(severe[one.name]) for one in cases if one.name in severe},
        warnings={name: " ".join(sentences) for name, sentences in mild.items()},
        label_values=tuple(sorted({value for one in accepted for value in one.label_values})),
        findings=tuple(sorted(findings, key=lambda finding: not finding.severe)),
    )
