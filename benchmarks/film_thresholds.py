"""Which rule for the threshold carries over to films of a series that neither training nor calibration saw.

As in film_transforms.py, one series of normal films is held out whole, with a fold of the pneumonia patients. Of
what is left, one fold is held out for the choice of temperature and threshold, and the rest is trained on. Each
rule (Youden's, or a sensitivity, on the films as they are or on augmented versions of them) is then judged on the
other series. The official test films take no part. Prints one JSON line a rule and series, and one a rule with the
mean over series.

Usage: python benchmarks/film_thresholds.py --datalist films.json --out runs/film_thresholds
       [--bundle bundles/xray_pneumonia_densenet] [--series NORMAL2,IM] [--seed 0] [--epochs 3] [--size 64]
       [--views 4] [--workers 0]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from medimg3d.bundle.classifier import Classifier, load_classifier
from medimg3d.bundle.folder import BundleFolder
from medimg3d.data.json_file import write_json
from medimg3d.inference.decision import Decision
from medimg3d.metrics.calibration import expected_calibration_error
from medimg3d.workflows.calibrate import Rule, choose_decision
from medimg3d.workflows.train import train
from medimg3d.workflows.validation_scores import augmentation, held_out_cases, score_cases

BUNDLE = Path(__file__).parents[1] / "bundles" / "xray_pneumonia_densenet"
SENSITIVITIES = (None, 0.99, 0.98, 0.97, 0.95)  # None: Youden


def main() -> None:
    """Read the arguments and go through series and rules."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--datalist", type=Path)
    arguments.add_argument("--out", type=Path, default=Path("runs/film_thresholds"))
    arguments.add_argument("--bundle", type=Path, default=BUNDLE)
    arguments.add_argument("--series", default="NORMAL2,IM")
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--epochs", type=int, default=3)
    arguments.add_argument("--size", type=int, default=64)
    arguments.add_argument("--views", type=int, default=4)
    arguments.add_argument("--workers", type=int, default=0)
    given = arguments.parse_args()
    if given.datalist is None:  # `make bench` runs every file; trainings are asked for by name
        print(json.dumps({"benchmark": "film_thresholds", "skipped": "trainings: give --datalist"}))
        return
    found: dict[str, list[dict[str, Any]]] = {}
    for series in given.series.split(","):
        for row in judge(series, given):
            found.setdefault(row["rule"], []).append(row)
    for rule, rows in found.items():
        figures = [name for name in rows[0] if name not in ("rule", "series")]
        means = {name: float(np.mean([row[name] for row in rows])) for name in figures}
        print(
            json.dumps({"benchmark": "film_thresholds", "rule": rule, "series": len(rows), **means}),
            flush=True,
        )


def judge(series: str, given: argparse.Namespace) -> list[dict[str, Any]]:
    """One training without a series, and every rule on that series."""
    folder = given.out / f"without_{series}_seed{given.seed}"
    datalist, other = part_series(given.datalist, series, given.out)
    if not (folder / "training" / "history.png").is_file():
        train(
            given.bundle,
            out=folder,
            datalist=datalist,
            epochs=given.epochs,
            seed=given.seed,
            resume=True,
            num_workers=given.workers,
            cache_dir=given.out / "cache",
            overrides={"image_size": [given.size, given.size]},
        )
    bundle = BundleFolder(folder)
    model = load_classifier(bundle, calibrated=False)
    validation = held_out_cases(bundle, datalist)
    labels = np.asarray([case["label"] for case in validation])
    chosen_on = {
        0: kept_scores(folder / "clean.npy", model, validation),
        given.views: kept_scores(folder / "augmented.npy", model, validation, bundle, given.views),
    }
    judged_on = kept_scores(folder / "other.npy", model, other)[:, 0]
    truth = np.asarray([case["label"] for case in other])
    rows = []
    for num_views, scores in chosen_on.items():
        for sensitivity in SENSITIVITIES:
            decision, _ = choose_decision(
                scores.reshape(-1, 2),
                np.repeat(labels, scores.shape[1]),
                model.decision.classes,
                rule=Rule(sensitivity=sensitivity, num_views=num_views),
                chosen_on="a fold of the other series",
            )
            name = f"{decision.rule} on {num_views} augmented views" if num_views else f"{decision.rule}"
            row = {"rule": name, "series": series, **carried_over(decision, judged_on, truth)}
            print(json.dumps({"benchmark": "film_thresholds", **row}), flush=True)
            rows.append(row)
    return rows


def part_series(datalist: Path, series: str, out: Path) -> tuple[Path, list[dict[str, Any]]]:
    """A datalist without the series and one fold of the pneumonia patients; and these films, with ``label``."""
    content = json.loads(datalist.read_text(encoding="utf-8"))
    kept, other = [], []
    for case in content["training"]:
        case["image"] = str((datalist.parent / case["image"]).resolve())
        is_normal = case["class_label"].lower() == "normal"
        if case["id"].startswith(f"{series}-") if is_normal else case["fold"] == 1:
            other.append(case | {"name": case["id"], "label": int(not is_normal)})
        else:
            kept.append(case | {"fold": min(case["fold"], 1)})
    content |= {"training": kept, "validation": [], "test": [], "split": {"num_folds": 2, "seed": 0}}
    return write_json(content, out / f"without_{series}.json"), other


def kept_scores(
    file: Path,
    model: Classifier,
    cases: list[dict[str, Any]],
    bundle: BundleFolder | None = None,
    num_views: int = 0,
) -> np.ndarray:
    """Scores, shape (n, views, 2); computed once and kept."""
    if not file.is_file():
        augment = augmentation(bundle) if bundle else None
        np.save(file, score_cases(model, cases, Path("/"), augment=augment, num_views=num_views))
    return np.asarray(np.load(file))


def carried_over(decision: Decision, logits: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """How a decision does on other films than it was chosen on."""
    probabilities = decision.probabilities(logits)[:, 1]
    is_called = probabilities >= (decision.threshold or 0.0)
    sensitivity = float(is_called[truth == 1].mean())
    specificity = float((~is_called[truth == 0]).mean())
    return {
        "threshold": float(decision.threshold or 0.0),
        "temperature": decision.temperature,
        "sensitivity": sensitivity,
        "specificity": specificity,
        "balanced_accuracy": (sensitivity + specificity) / 2,
        "ece": float(expected_calibration_error(probabilities, truth, num_bins=10)),
    }


if __name__ == "__main__":
    main()
