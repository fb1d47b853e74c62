"""Cross-validation of a bundle's recipe: train each fold, predict what it held out, pool the scores."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medimg3d.atomic import write_text
from medimg3d.bundle.folder import read_json
from medimg3d.data.folds import select_fold
from medimg3d.errors import BundleError, UsageError
from medimg3d.workflows.evaluate import evaluate
from medimg3d.workflows.predict import predict
from medimg3d.workflows.train import train
from medimg3d.workflows.training_copy import find_datalist

Say = Callable[[str], None]


@dataclass(frozen=True)
class CrossValidation:
    """Scores of cases that the weights which predicted them had not seen.

    Args:
        table: Markdown table: Dice of each fold and of all folds pooled, with intervals.
        folds: Fold → content of its ``summary.json``.
        pooled: Content of the pooled ``summary.json``.
    """

    table: str
    folds: dict[int, dict[str, Any]]
    pooled: dict[str, Any]


def cross_validate(
    bundle: Path,
    *,
    out: Path,
    folds: Sequence[int],
    dataset_dir: Path | None = None,
    datalist: Path | None = None,
    say: Say = lambda _: None,
    **training: Any,
) -> CrossValidation:
    """Train, predict and score fold after fold; a second run goes on where the first one stopped.

    The recipe has a fixed length and nothing is chosen on the held-out cases, so that their scores are those
    of a test.

    Args:
        bundle: The bundle whose recipe is judged.
        out: Gets ``fold_<k>/`` (a trained bundle each), ``cross_validation/`` and the table.
        folds: Which folds to run; folds that ``out`` holds already are kept.
        dataset_dir: Decathlon root.
        datalist: Datalist file instead.
        say: Called with a line as a step begins.
        **training: Passed on to :func:`medimg3d.workflows.train.train` (``epochs``, ``seed``, ``compiled``, …).

    Returns:
        The table and the summaries.

    Raises:
        UsageError: No fold was asked for.
        BundleError: Held-out cases could not be predicted.
    """
    if not folds:
        raise UsageError("No fold was asked for; expected at least one, for example --folds 0,1.")
    list_file = find_datalist(dataset_dir, datalist)
    summaries = {}
    for fold in folds:
        folder = out / f"fold_{fold}"
        if not (folder / "training" / "history.png").is_file():  # drawn last: the training is whole
            say(f"Fold {fold}: training")
            train(bundle, out=folder, datalist=list_file, fold=fold, resume=True, **training)
        if not (folder / "held_out" / "summary.json").is_file():
            say(f"Fold {fold}: predicting and scoring the held-out cases")
            _score_held_out(folder, list_file, fold)
        summaries[fold] = read_json(folder / "held_out" / "summary.json")
    pooled = _pool(out, folds)
    table = format_table(summaries, pooled)
    write_text(out / "cross_validation.md", table)
    return CrossValidation(table, summaries, pooled)


def _score_held_out(folder: Path, list_file: Path, fold: int) -> None:
    held_out = _write_held_out(folder, list_file, fold)
    images = [Path(case["image"]) for case in read_json(held_out)["training"]]
    predictions = folder / "held_out" / "predictions"
    result = predict(folder, images, predictions, overlays=False, reports=False)
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
