"""Measure predicted label maps against references: figures with intervals, a page, the worst cases."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from medimg3d import __version__
from medimg3d.data.content_hash import content_sha256
from medimg3d.data.evaluation_pairs import (
    Pair,
    References,
    find_predictions,
    find_references,
    match_prediction,
    nifti_files,
)
from medimg3d.data.json_file import write_json
from medimg3d.data.label_map import LabelMap, check_same_grid, read_label_map
from medimg3d.data.label_regions import LabelRegions
from medimg3d.data.training_record import TrainingRecord, find_training_record, input_hashes
from medimg3d.errors import DataError, Medimg3dError, UsageError
from medimg3d.metrics.case_scores import ClassScore, score_unions
from medimg3d.metrics.masks import labels_in
from medimg3d.report.cases_table import write_cases_table
from medimg3d.report.evaluation_summary import NUM_RESAMPLES, summarise_metrics, worst_cases
from medimg3d.workflows.evaluation_pictures import draw_boxes, draw_worst
from medimg3d.workflows.label_meaning import (
    LabelMeaning,
    PredictedValues,
    find_meaning,
    lost_parts,
    mask_files,
)

LEVEL = 0.95
MAX_WORKERS = 4  # each holds two label maps

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class EvaluationResult:
    """What an evaluation found and wrote.

    Attributes:
        summary: The content of ``summary.json``.
        scores: Case → class → scores.
        rejected: Case → reason: unreadable, on another grid, or without a prediction.
        warnings: What the reader of the figures must know.
        files: What was written, by name: ``cases``, ``summary``, ``page``.
    """

    summary: dict[str, Any]
    scores: dict[str, dict[str, ClassScore]]
    rejected: dict[str, str]
    warnings: list[str]
    files: dict[str, Path]


def evaluate(
    predictions: Path,
    labels: Path,
    out: Path,
    *,
    class_names: Mapping[int, str] | None = None,
    regions: LabelRegions | None = None,
    predicted: PredictedValues | None = None,
    ignore_label: int | None = None,
    bundle: Path | None = None,
    images: Path | None = None,
    tolerance_mm: float = 1.0,
    num_worst: int = 5,
    seed: int = 0,
    workers: int | None = None,
    progress: Progress | None = None,
) -> EvaluationResult:
    """Score every prediction that has a reference; write a table, a summary and a page.

    Writes ``cases.csv``, ``summary.json``, ``evaluation.html`` and pictures. A case that cannot be scored is
    rejected with its reason; the others go on.

    Args:
        predictions: Folder of ``<case>_seg.nii.gz`` (or files named as the labels).
        labels: Folder of label maps, Decathlon root, or datalist (.json).
        out: Folder to write to; made if need be.
        class_names: Label → name; else from the datalist, the bundle, or the labels found.
        regions: Regions that overlap, scored instead of labels; else those of the bundle, or of the datalist.
        predicted: How the predictions name regions: ``"regions"`` by number, as a bundle of regions does, where a
            mask of each region beside them counts instead; ``"labels"`` by the references' values. By default by
            number where the bundle (or ``run.json``) has regions.
        ignore_label: Value of references where nobody labelled, which counts in no score; else that of the datalist
            or of the bundle.
        bundle: Bundle that made the predictions, for its record of training cases; else what ``run.json``
            beside the predictions tells.
        images: Folder of images named as the cases, for overlays; else from the datalist.
        tolerance_mm: Tolerance of the surface Dice, in mm.
        num_worst: Number of worst cases to draw.
        seed: Seed of the intervals.
        workers: Cases scored at once; by default one a processor, at most 4.
        progress: Called with the numbers of cases done and of all cases.

    Returns:
        Scores, summary and files.

    Raises:
        UsageError: A folder does not exist or is empty, nothing matches, or a setting is out of range.
        DataError: The datalist cannot be read, or no case could be scored.
    """
    if not (math.isfinite(tolerance_mm) and tolerance_mm >= 0):
        raise UsageError(f"tolerance_mm must be at least 0, got {tolerance_mm}.")
    if bundle is not None and not bundle.is_dir():
        raise UsageError(f"{bundle} is no folder; give the folder of the bundle that made the predictions.")
    references = _with_images(find_references(labels), images)
    pairs, rejected = _pair_up(references, find_predictions(predictions), predictions, labels)
    meaning = find_meaning(
        references,
        predictions,
        bundle,
        class_names=class_names,
        regions=regions,
        predicted=predicted,
        ignore_label=ignore_label,
    )
    by_label, failed = _score_all(pairs, meaning, tolerance_mm, workers, progress)
    rejected |= failed
    if not by_label:
        raise DataError(
            f"None of {len(pairs)} cases could be scored; the first: {next(iter(failed.values()))}"
        )
    names = dict(meaning.names) or {
        label: f"class {label}" for label in sorted({n for case in by_label.values() for n in case})
    }
    scores = _named(by_label, names)
    record = find_training_record(predictions, bundle)
    seen = (
        None
        if record.missing
        else _seen(record, [p for p in pairs if p.reference.name in scores], predictions)
    )
    summary = _summary(scores, names, rejected, references, record, seen, tolerance_mm, num_worst, seed)
    _tell_meaning(summary, meaning, pairs)
    return _write(out, summary, scores, rejected, seen, pairs, replace(meaning, names=names))


def _tell_meaning(summary: dict[str, Any], meaning: LabelMeaning, pairs: list[Pair]) -> None:
    """Add to a summary what was scored, where that is more than labels."""
    summary["warnings"] += meaning.doubts
    summary["settings"] |= meaning.settings()
    if meaning.regions is not None:
        summary["regions"] = meaning.regions.as_json()
        if meaning.predicted == "regions" and not all(mask_files(meaning, pair.prediction) for pair in pairs):
            summary["warnings"] += [line for line in (lost_parts(meaning.regions),) if line]


def _pair_up(
    references: References, predictions: Mapping[str, Path], folder: Path, labels: Path
) -> tuple[list[Pair], dict[str, str]]:
    pairs, missing = [], {}
    for name, reference in references.cases.items():
        prediction = match_prediction(reference, predictions)
        if prediction is None:
            missing[name] = f"no prediction; expected {name}_seg.nii.gz"
        else:
            pairs.append(Pair(reference, prediction))
    if not pairs:
        raise UsageError(
            f"No prediction in {folder} is named as a case of {labels}; expected names like "
            f"{next(iter(references.cases))}_seg.nii.gz, found {next(iter(predictions.values())).name}."
        )
    return pairs, missing


def _with_images(references: References, images: Path | None) -> References:
    """The references with their images: from the folder, else as listed."""
    if images is not None and not images.is_dir():
        raise UsageError(f"{images} is no folder; give the folder that holds the images.")
    in_folder = nifti_files(images) if images else {}
    cases = {
        name: replace(case, image=in_folder.get(name) or in_folder.get(f"{name}_0000") or case.image)
        for name, case in references.cases.items()
    }
    return replace(references, cases=cases)


def _score_all(
    pairs: list[Pair],
    meaning: LabelMeaning,
    tolerance_mm: float,
    workers: int | None,
    progress: Progress | None,
) -> tuple[dict[str, dict[int, ClassScore]], dict[str, str]]:
    """Scores by case and label, and the reasons of the cases without; both in the order of the pairs."""
    count = workers or min(MAX_WORKERS, os.cpu_count() or 1)
    scored: dict[str, dict[int, ClassScore]] = {}
    failed: dict[str, str] = {}
    with ThreadPoolExecutor(max_workers=max(1, count)) as pool:
        jobs = {pool.submit(_score_pair, pair, meaning, tolerance_mm): pair.reference.name for pair in pairs}
        for done, job in enumerate(as_completed(jobs), start=1):
            try:
                scored[jobs[job]] = job.result()
            except Medimg3dError as err:
                failed[jobs[job]] = str(err)
            except Exception as err:  # noqa: BLE001 - one broken case must not stop the others
                failed[jobs[job]] = f"cannot be scored ({type(err).__name__}: {err})"
            if progress is not None:
                progress(done, len(jobs))
    order = [pair.reference.name for pair in pairs]
    return {n: scored[n] for n in order if n in scored}, {n: failed[n] for n in order if n in failed}


def _score_pair(pair: Pair, meaning: LabelMeaning, tolerance_mm: float) -> dict[int, ClassScore]:
    truth, pred = _read(pair.reference.label, "reference"), _read(pair.prediction, "prediction")
    check_same_grid(pred, truth)
    found, expected = labels_in(pred.labels), labels_in(truth.labels)
    meaning.check(found, expected)
    how: dict[str, Any] = {
        "spacing_mm": truth.spacing_mm if meaning.has_voxel_size else None,
        "tolerance_mm": tolerance_mm,
        "ignored": meaning.ignored,
    }
    unions = meaning.unions([*found, *expected])
    masks = mask_files(meaning, pair.prediction) if meaning.predicted == "regions" else {}
    if not masks:
        return score_unions(pred.labels, truth.labels, unions, **how)
    scores: dict[int, ClassScore] = {}
    for number, file in masks.items():
        mask = _read(file, "mask of a region")
        check_same_grid(mask, truth)
        scores |= score_unions(mask.labels, truth.labels, {number: ((1,), unions[number][1])}, **how)
    return scores


def _read(path: Path, which: str) -> LabelMap:
    try:
        return read_label_map(path)
    except Medimg3dError as err:
        raise DataError(f"{which} {err}") from err


def _named(
    by_label: Mapping[str, Mapping[int, ClassScore]], names: Mapping[int, str]
) -> dict[str, dict[str, ClassScore]]:
    """Scores by class name; a class found in other cases only is in neither map of this one."""
    absent = ClassScore("neither", math.nan, None, None, None, math.nan, None, None)
    return {
        case: {name: classes.get(label, absent) for label, name in names.items()}
        for case, classes in by_label.items()
    }


def _seen(record: TrainingRecord, pairs: list[Pair], predictions: Path) -> dict[str, str]:
    """Scored case → training case with the same label map or image, by the hash of the file."""
    inputs = input_hashes(predictions)
    seen = {}
    for pair in pairs:
        reference = pair.reference
        files = [reference.label, *([reference.image] if reference.image else [])]
        hashes = [content_sha256(file) for file in files if file.is_file()]
        known = record.seen([*hashes, inputs.get(reference.name)])
        if known:
            seen[reference.name] = known
    return seen


def _warnings(record: TrainingRecord, seen: Mapping[str, str] | None, num_scored: int) -> list[str]:
    warnings = []
    if seen:
        named = ", ".join(list(seen)[:10]) + (f" and {len(seen) - 10} more" if len(seen) > 10 else "")
        warnings.append(
            f"{len(seen)} of {num_scored} scored cases were among those the weights were trained on: {named}."
            " The figures flatter the model; score cases that it has not seen."
        )
    if record.doubt:
        warnings.append(f"The check for training cases may be wrong: {record.doubt}.")
    return warnings


def _summary(
    scores: Mapping[str, Mapping[str, ClassScore]],
    names: Mapping[int, str],
    rejected: Mapping[str, str],
    references: References,
    record: TrainingRecord,
    seen: Mapping[str, str] | None,
    tolerance_mm: float,
    num_worst: int,
    seed: int,
) -> dict[str, Any]:
    patients = {name: references.cases[name].patient for name in scores}
    by_patient = {name: patient for name, patient in patients.items() if patient}
    groups = by_patient if len(by_patient) == len(scores) else None
    return {
        "format": 1,
        "num_cases": len(scores) + len(rejected),
        "num_scored": len(scores),
        "classes": {str(label): name for label, name in names.items()},
        "metrics": summarise_metrics(scores, list(names.values()), patients=groups, level=LEVEL, seed=seed),
        "worst": worst_cases(scores, num_worst),
        "warnings": _warnings(record, seen, len(scores)),
        "seen_in_training": {
            "checked": seen is not None,
            "why_not": record.missing,
            "cases": dict(seen or {}),
        },
        "rejected": dict(rejected),
        "bundle": dict(record.bundle),
        "settings": {
            "tolerance_mm": tolerance_mm,
            "hausdorff_percentile": 95,
            "level": LEVEL,
            "num_resamples": NUM_RESAMPLES,
            "resampled_by": "patient" if groups else "case",
            "seed": seed,
        },
        "versions": {
            "medimg3d": __version__,
            "python": platform.python_version(),
            **{package: version(package) for package in ("monai", "numpy", "scipy")},
        },
    }


def _write(
    out: Path,
    summary: dict[str, Any],
    scores: dict[str, dict[str, ClassScore]],
    rejected: dict[str, str],
    seen: Mapping[str, str] | None,
    pairs: list[Pair],
    meaning: LabelMeaning,
) -> EvaluationResult:
    from medimg3d.report.page import evaluation_page

    out.mkdir(parents=True, exist_ok=True)
    figures = draw_boxes(out, summary, scores)
    overlays, undrawn = draw_worst(out, summary, pairs, meaning)
    summary["not_drawn"] = undrawn
    files = {
        "cases": write_cases_table(scores, seen, out / "cases.csv"),
        "summary": write_json(summary, out / "summary.json"),
        "page": evaluation_page(summary, figures | overlays, out / "evaluation.html"),
    }
    return EvaluationResult(summary, scores, rejected, summary["warnings"], files)
