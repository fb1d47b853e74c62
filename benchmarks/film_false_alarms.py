"""What reduces false alarms on films of a series that training never saw, as specificity gained at equal sensitivity.

As in film_thresholds.py (whose trainings are used where --out is the same), one series of normal films is held out
whole, with a fold of the pneumonia patients; of what is left, one fold chooses temperature and threshold. Judged on
the other series, against the network's answer to the film as it is: calibration (temperature and bias keep the order
of the films, so that it can gain nothing), the mean answer to the film and slightly moved versions of it, the mean of
the film and its mirror image, and the mean of several trainings (--seeds). Both are cut at the sensitivity that the
recipe's rule reaches there, anew in each resample of whole patients. Beside these: what a band of unsure films that
holds a twentieth of the fold takes out. The official test films take no part. Prints one JSON line a method and series.

Usage: python benchmarks/film_false_alarms.py --datalist films.json --out runs/film_thresholds
       [--bundle bundles/xray_pneumonia_densenet] [--series NORMAL2,IM] [--seeds 0] [--epochs 3] [--size 64]
       [--unsure 0.05] [--workers 0] [--films N]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from film_thresholds import BUNDLE, part_series

from medimg3d.bundle.classifier import Classifier, load_classifier
from medimg3d.bundle.folder import BundleFolder
from medimg3d.inference.decision import Decision
from medimg3d.report.classification_summary import Resampling, ScoredFilms
from medimg3d.report.equal_sensitivity import gain_at_equal_sensitivity
from medimg3d.workflows.calibrate import Rule, choose_decision
from medimg3d.workflows.train import train
from medimg3d.workflows.validation_scores import held_out_cases

NAME = {"benchmark": "film_false_alarms"}
KEPT = ("sensitivity", "specificity_here", "specificity_there", "specificity_gain", "auc_gain")
# (degrees, zoom, share of the side moved to the right, and down); the first is the film as it is
VIEWS = ((0, 1, 0, 0), (5, 1, 0, 0), (-5, 1, 0, 0), (0, 1.06, 0, 0), (0, 0.94, 0, 0), (0, 1, 0.03, 0.03))


def main() -> None:
    """Read the arguments and go through the series."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--datalist", type=Path)
    arguments.add_argument("--out", type=Path, default=Path("runs/film_thresholds"))
    arguments.add_argument("--bundle", type=Path, default=BUNDLE)
    arguments.add_argument("--series", default="NORMAL2,IM")
    arguments.add_argument("--seeds", default="0")
    arguments.add_argument("--epochs", type=int, default=3)
    arguments.add_argument("--size", type=int, default=64)
    arguments.add_argument("--unsure", type=float, default=0.05, help="share of the films sent to a human")
    arguments.add_argument("--workers", type=int, default=0)
    arguments.add_argument("--films", type=int, help="every so many films, so that so few are left")
    given = arguments.parse_args()
    if given.datalist is None:  # `make bench` runs every file; trainings are asked for by name
        print(json.dumps(NAME | {"skipped": "trainings: give --datalist"}))
        return
    for series in given.series.split(","):
        judge(series, given)


def judge(series: str, given: argparse.Namespace) -> None:
    """Every method on one series, with the trainings of every seed."""
    datalist, other = part_series(given.datalist, series, given.out)
    other = thinned(other, given.films)
    answers: list[np.ndarray] = []
    for seed in given.seeds.split(","):
        folder = given.out / f"without_{series}_seed{seed}"
        if not (folder / "training" / "history.png").is_file():
            train(
                given.bundle,
                out=folder,
                datalist=datalist,
                epochs=given.epochs,
                seed=int(seed),
                resume=True,
                num_workers=given.workers,
                cache_dir=given.out / "cache",
                overrides={"image_size": [given.size, given.size]},
            )
        bundle = BundleFolder(folder)
        model = load_classifier(bundle, calibrated=False)
        if not answers:
            decision = recipe_decision(model, bundle, datalist, given)
        answers.append(answers_to_views(folder, model, other))
    films = scored(decision, answers[0][:, 0], other)
    print(json.dumps(NAME | {"series": series, "method": "unsure band"} | band_effect(films)), flush=True)
    for method, scores in methods(answers, decision).items():
        print(json.dumps(NAME | {"series": series, "method": method} | gained(films, scores)), flush=True)


def recipe_decision(
    model: Classifier, bundle: BundleFolder, datalist: Path, given: argparse.Namespace
) -> Decision:
    """Temperature, threshold and band by the recipe's own rule, on the fold that this training held out."""
    cases = thinned(held_out_cases(bundle, datalist), given.films)
    own = BundleFolder(given.bundle)
    rule = Rule.of_recipe(own)
    logits = kept(bundle.root / f"plain_{len(cases)}.npy", lambda: answers_of(model, cases, VIEWS[:1]))[:, 0]
    decision, _ = choose_decision(
        logits,
        np.asarray([case["label"] for case in cases]),
        model.decision.classes,
        rule=Rule(sensitivity=rule.sensitivity, unsure_share=given.unsure),
        chosen_on="a fold of the other series",
    )
    return decision


def answers_to_views(folder: Path, model: Classifier, cases: list[dict[str, Any]]) -> np.ndarray:
    """Logits of the views and of the mirror image, shape (n, views + 1, 2); computed once and kept."""
    return kept(folder / f"views_{len(cases)}.npy", lambda: answers_of(model, cases, VIEWS, mirrored=True))


def answers_of(
    model: Classifier,
    cases: list[dict[str, Any]],
    views: tuple[tuple[float, ...], ...],
    *,
    mirrored: bool = False,
) -> np.ndarray:
    """Logits, shape (n, views, 2)."""
    import torch
    from monai.transforms import Affine, Flip

    rows = []
    for case in cases:
        image = model.image(Path("/") / case["image"])
        size = image.shape[-1]
        versions = [
            image
            if view == VIEWS[0]
            else Affine(
                rotate_params=float(np.deg2rad(view[0])),
                scale_params=(1 / view[1],) * 2,
                translate_params=(-view[3] * size, -view[2] * size),
                mode="bilinear",
                padding_mode="border",
                image_only=True,
            )(image)
            for view in views
        ] + ([Flip(spatial_axis=1)(image)] if mirrored else [])
        rows.append(model.logits(torch.stack([torch.as_tensor(one) for one in versions])).numpy())
    return np.asarray(rows, dtype=np.float64)


def methods(answers: list[np.ndarray], decision: Decision) -> dict[str, np.ndarray]:
    """Name → score of pneumonia, in any unit, shape (n,)."""
    margins = [one[..., 1] - one[..., 0] for one in answers]
    first = margins[0]
    calibrated = decision.probabilities(answers[0][:, 0])[:, 1]
    found = {
        "temperature and bias": calibrated,
        f"mean of {len(VIEWS)} views": first[:, :-1].mean(1),
        "mean with the mirror image": first[:, [0, -1]].mean(1),
    }
    if len(margins) > 1:
        found[f"mean of {len(margins)} trainings"] = np.mean([one[:, 0] for one in margins], axis=0)
    return found


def scored(decision: Decision, logits: np.ndarray, cases: list[dict[str, Any]]) -> ScoredFilms:
    """The films as the first training decides them, each as it is."""
    probabilities = decision.probabilities(logits)
    index = {name: number for number, name in enumerate(decision.classes)}
    return ScoredFilms(
        decision.classes,
        1,
        np.asarray([case["label"] for case in cases], dtype=np.intp),
        np.asarray([index[decision.decide(row)] for row in probabilities], dtype=np.intp),
        probabilities,
        np.asarray([decision.is_unsure(row) for row in probabilities], dtype=bool),
        tuple(str(case.get("patient") or case["name"]) for case in cases),
    )


def gained(films: ScoredFilms, method: np.ndarray) -> dict[str, Any]:
    """What a method gains over the film as it is, at the sensitivity that this one's decisions have."""
    by_method = replace(films, probabilities=np.stack([-method, method], axis=1))
    found = gain_at_equal_sensitivity(by_method, films.probabilities[:, 1], Resampling())
    figures = {name: [found["estimates"][name][key] for key in ("value", "low", "high")] for name in KEPT}
    return {name: found[name] for name in ("n", "negatives", "false_alarms")} | figures


def band_effect(films: ScoredFilms) -> dict[str, Any]:
    """Sensitivity and specificity of all films and of those outside the band, and what lies inside."""

    def shares(one: ScoredFilms) -> dict[str, float]:
        positive = one.truth == 1
        return {
            "sensitivity": float((one.decided[positive] == 1).mean()),
            "specificity": float((one.decided[~positive] == 0).mean()),
        }

    inside = films.only(films.unsure)
    return {
        "share_unsure": float(films.unsure.mean()),
        "all": shares(films),
        "outside": shares(films.only(~films.unsure)),
        "false_alarms_inside": int(((inside.truth == 0) & (inside.decided == 1)).sum()),
        "missed_inside": int(((inside.truth == 1) & (inside.decided == 0)).sum()),
    }


def kept(file: Path, make: Callable[[], np.ndarray]) -> np.ndarray:
    """Computed once and kept."""
    if not file.is_file():
        np.save(file, make())
    return np.asarray(np.load(file))


def thinned(cases: list[dict[str, Any]], count: int | None) -> list[dict[str, Any]]:
    """Every so many cases, so that about ``count`` are left; all if None."""
    return cases if count is None else cases[:: max(1, len(cases) // count)]


if __name__ == "__main__":
    main()
