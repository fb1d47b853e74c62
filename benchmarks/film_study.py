"""Trains the film bundle from several starts with several seeds, and scores each on the test list.

Each run is a folder of its own; a run that was stopped goes on, one that is whole is passed over. Thresholds and
temperatures come from each run's held-out fold. The evaluations on the test list are logged like every other, in
each run's docs/test_evaluations.jsonl, and copied to --log. Prints one JSON line a run, and one a start over its
seeds: mean, smallest and largest. With --finish-size, each run goes on for --finish-epochs on larger pictures from
its own weights, at a quarter of the learning rate: most epochs then cost a fraction.

Usage: python benchmarks/film_study.py --datalist films.json --out runs/study
       [--bundle bundles/xray_pneumonia_densenet] [--starts scratch,pretrained] [--seeds 0,1,2] [--epochs 12]
       [--set image_size=[64,64]] [--finish-size 128 --finish-epochs 2] [--references chest_xray]
       [--log bundles/xray_pneumonia_densenet/docs/test_evaluations.jsonl]
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

from medimg3d.bundle.folder import read_json
from medimg3d.data.class_references import find_class_references
from medimg3d.workflows.evaluate_classification import evaluate_classification
from medimg3d.workflows.predict_classification import predict_classification
from medimg3d.workflows.train import train

BUNDLE = Path(__file__).parents[1] / "bundles" / "xray_pneumonia_densenet"
LITE0 = "efficientnet_lite0"
# Start → overlay and settings; "pretrained" first pretrains, once a seed, on the training part of the fold.
STARTS: dict[str, dict[str, Any]] = {
    "scratch": {},
    "pretrained": {"pretrain": True, "settings": {"transfer": "finetune"}},
    "lite0_scratch": {"overlay": LITE0, "settings": {"transfer": "scratch", "pretrained": None}},
    "lite0_frozen": {"overlay": LITE0, "settings": {"transfer": "frozen"}},
    "lite0_finetune": {"overlay": LITE0, "settings": {"transfer": "finetune"}},
    "three_classes": {"overlay": "three_classes"},
}
FIGURES = ("auc", "accuracy", "sensitivity", "specificity", "f1", "ece", "brier")


def main() -> None:
    """Read the arguments and go through starts and seeds."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--datalist", type=Path)
    arguments.add_argument("--out", type=Path, default=Path("runs/film_study"))
    arguments.add_argument("--bundle", type=Path, default=BUNDLE)
    arguments.add_argument("--starts", default="scratch")
    arguments.add_argument("--seeds", default="0,1,2")
    arguments.add_argument("--epochs", type=int)
    arguments.add_argument("--pretrain-epochs", type=int)
    arguments.add_argument("--no-compile", action="store_true")
    arguments.add_argument("--set", action="append", default=[], metavar="ID=VALUE")
    arguments.add_argument("--finish-size", type=int)
    arguments.add_argument("--finish-epochs", type=int, default=2)
    arguments.add_argument("--workers", type=int, default=1)
    arguments.add_argument(
        "--references", type=Path, help="where the test films stand; the datalist if not given"
    )
    arguments.add_argument("--log", type=Path)
    arguments.add_argument("--no-test", action="store_true", help="train only; leave the test list alone")
    given = arguments.parse_args()
    if given.datalist is None:  # `make bench` runs every file; hours of training are asked for by name
        print(json.dumps({"benchmark": "film_study", "skipped": "hours of training: give --datalist"}))
        return
    settings = {name: json.loads(value) for name, _, value in (text.partition("=") for text in given.set)}
    for start in given.starts.split(","):
        rows = [run(start, int(seed), given, settings) for seed in given.seeds.split(",")]
        summarise(start, [row for row in rows if row])


def run(start: str, seed: int, given: argparse.Namespace, settings: dict[str, Any]) -> dict[str, Any]:
    """One training, its prediction of the test list, its figures."""
    folder = given.out / f"{start}_seed{seed}"
    finished = folder.with_name(f"{folder.name}_{given.finish_size}px") if given.finish_size else folder
    recipe = STARTS[start]
    own = settings | recipe.get("settings", {})
    common = {
        "datalist": given.datalist,
        "seed": seed,
        "resume": True,
        "compiled": not given.no_compile,
        "num_workers": given.workers,
        "cache_dir": given.out / "cache",  # all starts and seeds see the same preprocessed films
    }
    if recipe.get("pretrain"):
        before = given.out / "pretraining"  # once, as ImageNet's weights are there once
        if not is_whole(before):
            train(given.bundle, out=before, overlay="pretrain", epochs=given.pretrain_epochs,
                  overrides=settings, **common | {"seed": 0})  # fmt: skip
        own["pretrained"] = str((before / "models" / "model.pt").resolve())
    if not is_whole(folder):
        train(given.bundle, out=folder, overlay=recipe.get("overlay"), epochs=given.epochs,
              overrides=own, **common)  # fmt: skip
    if not is_whole(finished):
        finish = {
            "image_size": [given.finish_size, given.finish_size],
            "transfer": "frozen" if own.get("transfer") == "frozen" else "finetune",
            "pretrained": str((folder / "models" / "model.pt").resolve()),
            "learning_rate": read_json(folder / "configs" / "train.json")["learning_rate"] / 4,
        }
        train(given.bundle, out=finished, overlay=recipe.get("overlay"), epochs=given.finish_epochs,
              overrides=settings | finish, **common)  # fmt: skip
    folder = finished
    with open(folder / "training" / "history.csv", newline="") as file:
        last = list(csv.DictReader(file))[-1]
    row: dict[str, Any] = {"start": start, "seed": seed, "val_auc": float(last["val_auc"])}
    if not given.no_test:
        row |= test_figures(folder, given)
    print(json.dumps({"benchmark": "film_study", **row}), flush=True)
    return row


def is_whole(folder: Path) -> bool:
    """Whether a training ended: its plot is drawn last."""
    return (folder / "training" / "history.png").is_file()


def test_figures(folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Figures on the test list; computed once and kept."""
    summary_file = folder / "test" / "summary.json"
    if not summary_file.is_file():
        references = given.references or given.datalist
        films = [film.path for film in find_class_references(references).in_section("test")]
        predict_classification(folder, films, folder / "test_predictions")
        evaluate_classification(folder / "test_predictions", references, folder / "test", bundle=folder)
        if given.log:
            entry = (folder / "docs" / "test_evaluations.jsonl").read_text().splitlines()[-1]
            with open(given.log, "a", encoding="utf-8") as log:
                log.write(entry + "\n")
    metrics = json.loads(summary_file.read_text())["metrics"]
    return {f"test_{name}": metrics[name] for name in FIGURES if name in metrics}


def summarise(start: str, rows: list[dict[str, Any]]) -> None:
    """Mean and range of each figure over the seeds."""
    figures: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.items():
            number = value.get("value") if isinstance(value, dict) else value
            if name not in ("start", "seed") and number is not None:
                figures.setdefault(name, []).append(float(number))
    over_seeds = {
        name: {"mean": float(np.mean(v)), "min": min(v), "max": max(v), "seeds": len(v)}
        for name, v in figures.items()
    }
    print(json.dumps({"benchmark": "film_study", "start": start, "over_seeds": over_seeds}), flush=True)


if __name__ == "__main__":
    main()
