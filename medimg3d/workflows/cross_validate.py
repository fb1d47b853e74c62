"""Cross-validation of a bundle's recipe: train each fold, predict what it held out, pool the scores."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medimg3d.atomic import write_text
from medimg3d.bundle.folder import BundleFolder, read_json
from medimg3d.data.content_hash import content_sha256
from medimg3d.data.folds import select_fold
from medimg3d.data.json_file import write_json
from medimg3d.errors import BundleError, UsageError
from medimg3d.workflows.data_check import DataCheck, check_list
from medimg3d.workflows.evaluate import evaluate
from medimg3d.workflows.held_out_softmax import write_softmax
from medimg3d.workflows.predict import predict
from medimg3d.workflows.train import SETTINGS, train
from medimg3d.workflows.training_copy import find_datalist

STATE = "cross_validation.json"
_WITHOUT_EFFECT = ("progress", "num_workers", "cache_dir", "tracking", "max_minutes")

Say = Callable[[str], None]


@dataclass(frozen=True)
class CrossValidation:
    """Scores of cases that the weights which predicted them had not seen.

    Args:
        out: Folder with the trained folds and what they held out.
        table: Markdown table: Dice of each fold and of all folds pooled, with intervals.
        folds: Fold → content of its ``summary.json``.
        pooled: Content of the pooled ``summary.json``.
        rejected: Cases of the datalist that were left out, with the reason.
    """

    out: Path
    table: str
    folds: dict[int, dict[str, Any]]
    pooled: dict[str, Any]
    rejected: dict[str, str] = field(default_factory=dict)


def cross_validate(
    bundle: Path,
    *,
    out: Path,
    folds: Sequence[int],
    dataset_dir: Path | None = None,
    datalist: Path | None = None,
    softmax: bool = False,
    check: DataCheck | None = DataCheck(),
    say: Say = lambda _: None,
    **training: Any,
) -> CrossValidation:
    """Train, predict and score fold after fold; a second run goes on where the first one stopped.

    The recipe has a fixed length and nothing is chosen on the held-out cases, so that their scores are those
    of a test.

    Args:
        bundle: The bundle whose recipe is judged.
        out: Gets ``fold_<k>/`` (a trained bundle each, with its predictions in ``held_out/``),
            ``cross_validation/``, the table and ``cross_validation.json``.
        folds: Which folds to run; folds that ``out`` holds already are kept.
        dataset_dir: Decathlon root.
        datalist: Datalist file instead.
        softmax: Keep the class probabilities of the held-out cases too (``held_out/softmax/<case>.npz``, float16,
            compressed): ``medimg3d ensemble`` needs them to combine configurations and to know how unsure is unusual.
        check: How images and label maps are checked before the first fold; None to go unchecked.
        say: Called with a line as a step begins.
        **training: Passed on to :func:`medimg3d.workflows.train.train` (``epochs``, ``seed``, ``compiled``, …). With
            ``max_minutes`` the first fold chooses the epochs of all.

    Returns:
        The table and the summaries.

    Raises:
        UsageError: No fold was asked for, the bundle is a classifier, or ``out`` was begun with something else.
        RefusedDataError: The check refuses cases (see :func:`medimg3d.workflows.data_check.check_list`).
        BundleError: Held-out cases could not be predicted.
    """
    if not folds:
        raise UsageError("No fold was asked for; expected at least one, for example --folds 0,1.")
    if BundleFolder(bundle).is_classifier:
        raise UsageError(
            "Cross-validation is of label maps, and this bundle is a classifier; train its folds one by one."
        )
    list_file = find_datalist(dataset_dir, datalist)
    rejected: dict[str, str] = {}
    if check is not None:  # once for all folds; what is dropped is neither trained on nor scored
        checked = check_list(list_file, out, check, bundle=BundleFolder(bundle))
        list_file, rejected = checked.list_file.resolve(), checked.report.rejected
    _begin(out, _settings(bundle, list_file, training))
    summaries = {}
    for fold in folds:
        folder = out / f"fold_{fold}"
        if not (folder / "docs" / "README.md").is_file():  # written last: the training is whole
            say(f"Fold {fold}: training")
            options = _with_epochs_of(out, folds, training)
            trained = train(
                bundle, out=folder, datalist=list_file, fold=fold, resume=True, check=None, **options
            )
            for line in trained.start:
                say(line)
        if not (folder / "held_out" / "summary.json").is_file():
            say(f"Fold {fold}: predicting and scoring the held-out cases")
            _score_held_out(folder, list_file, fold)
        if softmax:
            write_softmax(folder, _held_out_images(folder), folder / "held_out" / "softmax", say=say)
        summaries[fold] = read_json(folder / "held_out" / "summary.json")
    pooled = _pool(out, folds)
    table = format_table(summaries, pooled)
    write_text(out / "cross_validation.md", table)
    return CrossValidation(out, table, summaries, pooled, rejected)


def _settings(bundle: Path, list_file: Path, training: Mapping[str, Any]) -> dict[str, Any]:
    """What the folds depend on; two runs into one folder must agree."""
    source = BundleFolder(bundle)
    chosen = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in training.items()
        if value not in (None, False, {}) and name not in _WITHOUT_EFFECT
    }
    return {
        "format": 1,
        "bundle": source.name,
        "configs_sha256": {name: content_sha256(source.config(name)) for name in ("train", "inference")},
        "datalist_sha256": content_sha256(list_file),
        "training": chosen,
    }


def _begin(out: Path, settings: dict[str, Any]) -> None:
    """Write what a folder is begun with, or refuse to go on with something else."""
    path = out / STATE
    if not path.is_file():
        write_json(settings, path)
        return
    begun = read_json(path)
    for name, value in settings.items():
        if begun.get(name) != json.loads(json.dumps(value)):
            raise UsageError(
                f"{out} was begun with another {name} ({begun.get(name)}, now {value}); expected the same to go on. "
                "Choose another --out."
            )


def _with_epochs_of(out: Path, folds: Sequence[int], training: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a training: where a time is given, the first fold's epochs hold for the others."""
    options = dict(training)
    begun = out / f"fold_{folds[0]}" / SETTINGS
    if options.get("max_minutes") is not None and begun.is_file():
        options |= {"epochs": int(read_json(begun)["epochs"]), "max_minutes": None}
    return options


def _held_out_images(folder: Path) -> list[Path]:
    return [Path(case["image"]) for case in read_json(folder / "held_out" / "datalist.json")["training"]]


def _score_held_out(folder: Path, list_file: Path, fold: int) -> None:
    held_out = _write_held_out(folder, list_file, fold)
    predictions = folder / "held_out" / "predictions"
    result = predict(
        folder, _held_out_images(folder), predictions, overlays=False, reports=False, resume=True
    )
    if result.rejected:
        name, reason = next(iter(result.rejected.items()))
        raise BundleError(
            f"{len(result.rejected)} held-out cases could not be predicted; the first: {name}: {reason}"
        )
    evaluate(predictions, held_out, folder / "held_out", bundle=folder)


def _write_held_out(folder: Path, list_file: Path, fold: int) -> Path:
    """A datalist of the cases that a fold held out, with absolute paths."""
    content = json.loads(list_file.read_text(encoding="utf-8"))
    config = read_json(folder / "configs" / "train.json")
    cases = select_fold(
        content["training"],
        fold=fold,
        part="validation",
        num_folds=config["num_folds"],
        seed=config["fold_seed"],
    )
    for case in cases:
        case["image"] = str(list_file.parent / case["image"])
        case["label"] = str(list_file.parent / case["label"])
    path = folder / "held_out" / "datalist.json"
    write_text(path, json.dumps({"labels": content["labels"], "training": cases}, indent=1))
    return path


def _pool(out: Path, folds: Sequence[int]) -> dict[str, Any]:
    """Score all held-out cases together, each predicted by the weights that had not seen it."""
    pool = out / "cross_validation"
    (pool / "predictions").mkdir(parents=True, exist_ok=True)
    content: dict[str, Any] = {"training": []}
    for fold in folds:
        held_out = read_json(out / f"fold_{fold}" / "held_out" / "datalist.json")
        content = {"labels": held_out["labels"], "training": content["training"] + held_out["training"]}
        for path in (out / f"fold_{fold}" / "held_out" / "predictions").glob("*_seg.nii.gz"):
            shutil.copy2(path, pool / "predictions" / path.name)
    write_text(pool / "datalist.json", json.dumps(content, indent=1))
    return evaluate(pool / "predictions", pool / "datalist.json", pool).summary


def format_table(folds: Mapping[int, Mapping[str, Any]], pooled: Mapping[str, Any]) -> str:
    """A Markdown table of mean Dice with 95 % bootstrap intervals.

    Args:
        folds: Fold → summary of its held-out cases.
        pooled: Summary of all of them.

    Returns:
        The table, a row a fold and one for the pooled cases.
    """
    names = list(pooled["classes"].values())
    lines = [
        "| fold | cases | " + " | ".join(f"Dice {name}" for name in names) + " |",
        "|---" * (len(names) + 2) + "|",
    ]
    for title, summary in [*((str(fold), summary) for fold, summary in folds.items()), ("pooled", pooled)]:
        cells = [_interval(summary["metrics"]["dice"][name]) for name in names]
        lines.append(f"| {title} | {summary['num_scored']} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _interval(figure: Mapping[str, Any]) -> str:
    if figure["mean"] is None:
        return ""
    if figure["low"] is None:
        return f"{figure['mean']:.4f}"
    return f"{figure['mean']:.4f} ({figure['low']:.4f} to {figure['high']:.4f})"
