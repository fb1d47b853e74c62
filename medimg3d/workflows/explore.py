"""Look at a data set before training on it: what it holds, what is broken, what would mislead."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from medimg3d import __version__
from medimg3d.data.case_facts import CaseFacts, read_case_facts
from medimg3d.data.datalist import Datalist
from medimg3d.data.datalist_file import load_datalist
from medimg3d.data.dataset_advice import advise, evidence
from medimg3d.data.dataset_summary import (
    count_classes,
    count_folds,
    count_sections,
    count_values,
    images_summary,
    patients_summary,
    structures_summary,
)
from medimg3d.data.duplicates import DuplicateGroup, Occurrence, find_duplicates
from medimg3d.data.folders import read_folders
from medimg3d.data.json_file import write_json
from medimg3d.data.shortcuts import joint_separation, separations
from medimg3d.errors import DataError, UsageError
from medimg3d.report.explore_drawing import draw_all
from medimg3d.report.explore_page import explore_page
from medimg3d.report.explore_table import write_explore_table
from medimg3d.workflows.ingest import rejected_file

MAX_WORKERS = 4  # each holds an image and its label map

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ExploreResult:
    """What was found and written.

    Attributes:
        summary: The content of ``explore.json``.
        rejected: Case or file to the reason why it cannot be used.
        files: What was written, by name: ``page``, ``summary``, ``cases``.
    """

    summary: dict[str, Any]
    rejected: dict[str, str]
    files: dict[str, Path]


def explore(
    source: str | Path,
    out: str | Path,
    *,
    num_samples: int = 6,
    seed: int = 0,
    patient_pattern: str | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> ExploreResult:
    """Read every file of a data set once; write a page, a summary and a table.

    Writes ``explore.html`` (one file, pictures inside), ``explore.json``, ``cases.csv`` and ``figures/``.

    Args:
        source: Datalist (.json), or a folder in one of :data:`medimg3d.data.folders.LAYOUTS`.
        out: Folder to write to; made if need be.
        num_samples: Sample images of each class; 0 draws none.
        seed: Seed of the choice of samples.
        patient_pattern: Finds the patient in a file name; for folders only, see
            :func:`medimg3d.data.folders.read_folders`.
        workers: Cases read at once; by default one a processor, at most 4.
        progress: Called with the numbers of cases done and of all cases.

    Returns:
        Summary, rejects and files.

    Raises:
        UsageError: No such file or folder, no known layout, or a setting out of range.
        DataError: The datalist is broken, or no image can be read.
    """
    if num_samples < 0:
        raise UsageError(f"num_samples must be at least 0, got {num_samples}.")
    source, out = Path(source), Path(out)
    datalist, not_in_a_case, layout = _load(source, patient_pattern)
    facts = _read_all(datalist, workers, progress)
    if not any(one.images for one in facts):
        reasons = {one.name: one.problem for one in facts} | not_in_a_case
        first = next((f"{name}: {reason}" for name, reason in reasons.items()), "it names no case")
        raise DataError(f"Not one image of {source} can be read; the first: {first}.")
    groups = find_duplicates(_occurrences(facts))
    summary = _summary(facts, datalist, groups, not_in_a_case, seed)
    summary |= {"name": datalist.name or source.name, "layout": layout, "left_out": _left_out(source)}
    return _write(out, summary, facts, datalist, groups, source, num_samples, seed)


def _load(source: Path, patient_pattern: str | None) -> tuple[Datalist, dict[str, str], str]:
    """The datalist, the files of a folder that are in no case, and the layout in words."""
    if source.is_dir():
        scan = read_folders([source], patient_pattern=patient_pattern)
        return scan.datalist, scan.rejected, ", ".join(scan.layouts)
    if patient_pattern is not None:
        raise UsageError("A patient pattern is for folders; a datalist names its patients itself.")
    return load_datalist(source), {}, "datalist"


def _left_out(source: Path) -> dict[str, str]:
    """What `medimg3d datalist` left out when it made this datalist, by name, with the reason."""
    file = rejected_file(source)
    if source.is_dir() or not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return {str(name): str(reason) for name, reason in content.items()}
    except (OSError, ValueError, AttributeError) as err:
        raise DataError(
            f"{file.name} beside the datalist cannot be read ({type(err).__name__}); expected names and reasons. "
            "Make the datalist anew, or remove the file."
        ) from err


def _read_all(datalist: Datalist, workers: int | None, progress: Progress | None) -> list[CaseFacts]:
    """Facts of every case, in the order training, validation, test."""
    named = datalist.named_cases()
    count = workers or min(MAX_WORKERS, os.cpu_count() or 1)
    found: dict[str, CaseFacts] = {}
    with ThreadPoolExecutor(count) as pool:
        jobs = [pool.submit(read_case_facts, *one, datalist) for one in named]
        for done, job in enumerate(as_completed(jobs), start=1):
            facts = job.result()
            found[facts.name] = facts
            if progress is not None:
                progress(done, len(named))
    order = ("training", "validation", "test")
    return sorted((found[name] for name, _, _ in named), key=lambda one: order.index(one.section))


def _occurrences(facts: Sequence[CaseFacts]) -> list[Occurrence]:
    return [
        Occurrence(one.name, one.section, one.class_name, image.sha256, image.pixel_hash)
        for one in facts
        for image in one.images.values()
    ]


def _summary(
    facts: Sequence[CaseFacts],
    datalist: Datalist,
    groups: Sequence[DuplicateGroup],
    not_in_a_case: Mapping[str, str],
    seed: int,
) -> dict[str, Any]:
    sections, classes, folds = count_sections(facts), count_classes(facts, datalist), count_folds(facts)
    summary: dict[str, Any] = {
        "sections": sections,
        "read": sum(bool(one.images) for one in facts),
        "classes": classes,
        "values": count_values(facts),
        "folds": folds,
        "patients": patients_summary(facts),
        "images": images_summary(facts),
        "structures": structures_summary(facts, datalist.labels),
        "evidence": evidence(sections, classes, folds) if classes else [],
        "duplicates": _duplicates_summary(groups),
        "shortcuts": {
            "classes": _class_shortcuts(facts, classes, seed),
            "sections": _section_differences(facts, classes),
        },
        "unreadable": {one.name: one.problem for one in facts if one.problem},
        "not_in_a_case": dict(not_in_a_case),
        "settings": {"seed": seed},
        "versions": {name: version(name) for name in ("numpy", "pillow")} | {"medimg3d": __version__},
    }
    return summary | {"advice": [asdict(advice) for advice in advise(summary)]}


def _duplicates_summary(groups: Sequence[DuplicateGroup]) -> dict[str, Any]:
    return {
        "num_groups": len(groups),
        "num_cases": sum(len(group.occurrences) for group in groups),
        "groups": [
            {
                "cases": [
                    {"case": one.case, "section": one.section, "class": one.class_name}
                    for one in group.occurrences
                ],
                "same_bytes": group.same_bytes,
                "crosses_sections": group.crosses_sections,
                "contradicts_itself": group.contradicts_itself,
            }
            for group in groups
        ],
    }


def _class_shortcuts(
    facts: Sequence[CaseFacts], classes: Mapping[str, Mapping[str, int]], seed: int
) -> list[dict[str, Any]]:
    """How well trivial features tell the classes of the largest section apart: a pair, or each from the rest."""
    if not classes:
        return []
    section = max(classes, key=lambda name: sum(classes[name].values()))
    own = [one for one in facts if one.section == section and one.images and one.class_name is not None]
    names = [name for name in classes[section] if any(one.class_name == name for one in own)]
    pairs = [(names[1], names[0])] if len(names) == 2 else [(name, "the rest") for name in names]
    entries = []
    for first, second in pairs if len(names) > 1 else []:
        split = [[one for one in own if (one.class_name == first) is wanted] for wanted in (True, False)]
        images = [[next(iter(one.images.values())) for one in part] for part in split]
        groups = [one.case.patient or one.name for part in split for one in part]
        features = separations(*images, names=(first, second))
        joint = joint_separation(*images, names=(first, second), groups=groups, seed=seed)
        if features:
            entries.append(
                {
                    "section": section,
                    "first": first,
                    "second": second,
                    "features": [one.as_json() for one in features],
                    "joint": joint.as_json() if joint else None,
                }
            )
    return entries


def _section_differences(
    facts: Sequence[CaseFacts], classes: Mapping[str, Mapping[str, int]]
) -> list[dict[str, Any]]:
    """The same between training and the other sections, within each class, so that the mix does not matter."""
    names = list(dict.fromkeys(one.class_name for one in facts)) if classes else [None]
    entries = []
    for section in ("validation", "test"):
        for name in names:
            parts = [
                [
                    next(iter(one.images.values()))
                    for one in facts
                    if one.section == part and one.images and one.class_name == name
                ]
                for part in (section, "training")
            ]
            features = separations(*parts, names=(section, "training"))
            if features:
                entries.append(
                    {
                        "class_name": name,
                        "first": section,
                        "second": "training",
                        "features": [one.as_json() for one in features],
                    }
                )
    return entries


def _write(
    out: Path,
    summary: dict[str, Any],
    facts: Sequence[CaseFacts],
    datalist: Datalist,
    groups: Sequence[DuplicateGroup],
    source: Path,
    num_samples: int,
    seed: int,
) -> ExploreResult:
    figures, not_drawn = draw_all(
        facts, datalist, summary, out / "figures", num_samples=num_samples, seed=seed
    )
    summary["not_drawn"] = not_drawn
    root = source if source.is_dir() else source.parent
    files = {
        "cases": write_explore_table(facts, datalist, groups, root.absolute(), out / "cases.csv"),
        "summary": write_json(summary, out / "explore.json"),
        "page": explore_page(summary, figures, out / "explore.html"),
    }
    return ExploreResult(summary, summary["unreadable"] | summary["not_in_a_case"], files)
