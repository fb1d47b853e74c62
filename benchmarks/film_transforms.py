"""What each film transform and each augmentation is worth on films of a series that training never saw.

A patient-level fold of the training films is too easy to tell recipes apart (every AUC is near 1). So one series
of normal films (the training part's names begin with IM or with NORMAL2) is held out whole, together with a fold
of the pneumonia patients: the network has to recognise normal films of another series than it learned from. The
test films take no part. Each variant changes one thing of the bundle's recipe; short runs on small pictures.
Prints one JSON line a run, and one a variant with the mean over series and seeds.

With "recipe" among the variants, each later one is also told as the AUC that it gains over the recipe, in the mean
and run by run: a change is worth keeping where every series and seed gains. --list names the variants.

Usage: python benchmarks/film_transforms.py --datalist films.json --out runs/film_transforms
       [--bundle bundles/xray_pneumonia_densenet] [--variants recipe,flip_left_right] [--series NORMAL2,IM] [--seeds 0]
       [--epochs 2] [--iterations 80] [--size 64] [--workers 0] [--list]
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np

from medimg3d.bundle.folder import read_json
from medimg3d.data.json_file import write_json
from medimg3d.workflows.train import train

BUNDLE = Path(__file__).parents[1] / "bundles" / "xray_pneumonia_densenet"
FIGURES = ("val_auc", "val_accuracy", "val_recall", "val_precision")

Config = dict[str, Any]
OURS = "medimg3d.transforms"


def main() -> None:
    """Read the arguments and go through variants, series and seeds."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--datalist", type=Path)
    arguments.add_argument("--out", type=Path, default=Path("runs/film_transforms"))
    arguments.add_argument("--bundle", type=Path, default=BUNDLE)
    arguments.add_argument("--variants", default=",".join(VARIANTS))
    arguments.add_argument("--series", default="NORMAL2,IM")
    arguments.add_argument("--seeds", default="0")
    arguments.add_argument("--epochs", type=int, default=2)
    arguments.add_argument("--iterations", type=int, default=80, help="iterations per epoch")
    arguments.add_argument("--size", type=int, default=64)
    arguments.add_argument("--workers", type=int, default=0)
    arguments.add_argument("--list", action="store_true", help="name the variants and stop")
    given = arguments.parse_args()
    if given.list:
        print("\n".join(VARIANTS))
        return
    unknown = [name for name in given.variants.split(",") if name not in VARIANTS]
    if unknown:
        arguments.error(f"no variant {unknown[0]!r}; expected any of {', '.join(VARIANTS)}")
    if given.datalist is None:  # `make bench` runs every file; hours of training are asked for by name
        print(json.dumps({"benchmark": "film_transforms", "skipped": "hours of training: give --datalist"}))
        return
    of_recipe: list[float] = []
    for variant in given.variants.split(","):
        rows = [
            run(variant, series, int(seed), given)
            for series in given.series.split(",")
            for seed in given.seeds.split(",")
        ]
        result: dict[str, Any] = {"benchmark": "film_transforms", "variant": variant, "runs": len(rows)}
        result |= {name: float(np.mean([row[name] for row in rows])) for name in FIGURES}
        aucs = [row["val_auc"] for row in rows]
        if variant == "recipe":
            of_recipe = aucs
        elif of_recipe:
            gains = [round(one - other, 5) for one, other in zip(aucs, of_recipe, strict=True)]
            result |= {"auc_gain": float(np.mean(gains)), "auc_gains": gains}
        told = {
            name: None if value != value else value for name, value in result.items()
        }  # JSON knows no NaN
        print(json.dumps(told), flush=True)


def run(variant: str, series: str, seed: int, given: argparse.Namespace) -> dict[str, Any]:
    """One short training; one that is whole is read again, not repeated."""
    folder = given.out / f"{variant}_{series}_seed{seed}"
    if not (folder / "training" / "history.png").is_file():
        train(
            given.bundle,
            out=folder,
            datalist=hold_out_series(given.datalist, series, given.out),
            epochs=given.epochs,
            seed=seed,
            resume=True,
            num_workers=given.workers,
            cache_dir=given.out / "cache",
            overrides={
                "image_size": [given.size, given.size],
                "iterations_per_epoch": given.iterations,
                "val_interval": given.epochs,
                **changes(variant, given.bundle),
            },
        )
    with open(folder / "training" / "history.csv", newline="") as file:
        last = list(csv.DictReader(file))[-1]
    row: dict[str, Any] = {"variant": variant, "series": series, "seed": seed}
    row |= {name: float(last[name]) if last[name] else float("nan") for name in FIGURES}
    told = {name: None if value != value else value for name, value in row.items()}  # JSON knows no NaN
    print(json.dumps({"benchmark": "film_transforms", **told}), flush=True)
    return row


def hold_out_series(datalist: Path, series: str, out: Path) -> Path:
    """Write a datalist whose fold 0 is one series of normal films and a fold of the pneumonia patients."""
    content = json.loads(datalist.read_text(encoding="utf-8"))
    for case in content["training"]:
        if case["class_label"].lower() == "normal":
            case["fold"] = 0 if case["id"].startswith(f"{series}-") else 1
        case["image"] = str((datalist.parent / case["image"]).resolve())
    content["training"] = [case | {"fold": min(case["fold"], 1)} for case in content["training"]]
    content["split"] = {"num_folds": 2, "seed": 0}
    content["validation"] = content["test"] = []
    return write_json(content, out / f"without_{series}.json")


def changes(variant: str, bundle: Path) -> Config:
    """Config values by id that make the variant out of the recipe."""
    recipe = read_json(bundle / "configs" / "train.json")
    preprocessing = deepcopy(recipe["preprocessing"])
    augmentation = deepcopy(recipe["train"]["random_transforms"])
    VARIANTS[variant](preprocessing["transforms"], augmentation["transforms"])
    return {"preprocessing": preprocessing, "train#random_transforms": augmentation}


def _before_scaling(name: str, **arguments: Any) -> Callable[[list[Config], list[Config]], None]:
    """A step on the whole film, after loading and before its grey values are scaled."""

    def change(preprocessing: list[Config], _augmentation: list[Config]) -> None:
        preprocessing.insert(2, {"_target_": name, "keys": "image", **arguments})

    return change


def _add(name: str, **arguments: Any) -> Callable[[list[Config], list[Config]], None]:
    """One more augmentation, first of all."""

    def change(_preprocessing: list[Config], augmentation: list[Config]) -> None:
        augmentation.insert(0, {"_target_": name, "keys": "image", **arguments})

    return change


def _without(*names: str) -> Callable[[list[Config], list[Config]], None]:
    """The recipe without these augmentations."""

    def change(_preprocessing: list[Config], augmentation: list[Config]) -> None:
        kept = [step for step in augmentation if step["_target_"] not in names]
        if len(kept) == len(augmentation):
            raise ValueError(f"The recipe has none of {', '.join(names)}.")
        augmentation[:] = kept

    return change


def _still(*ranges: str) -> Callable[[list[Config], list[Config]], None]:
    """The recipe's affine without these movements."""

    def change(_preprocessing: list[Config], augmentation: list[Config]) -> None:
        (affine,) = [step for step in augmentation if step["_target_"] == "RandAffined"]
        for name in ranges:
            del affine[name]

    return change


def _only_conversion(_preprocessing: list[Config], augmentation: list[Config]) -> None:
    """No augmentation at all."""
    augmentation[:] = augmentation[-1:]


def _full_range(preprocessing: list[Config], _augmentation: list[Config]) -> None:
    """Grey values scaled by the film's range, outliers and all, instead of its percentiles."""
    for step in preprocessing:
        if step["_target_"] == "ScaleIntensityRangePercentilesd":
            step.update(lower=0.0, upper=100.0)


VARIANTS: dict[str, Callable[[list[Config], list[Config]], None]] = {
    "recipe": lambda preprocessing, augmentation: None,
    # what is done to every film
    "crop_black_border": _before_scaling(f"{OURS}.crop_black_border.CropBlackBorderd"),
    "erase_markers": _before_scaling(f"{OURS}.erase_markers.EraseMarkersd"),
    "equalize_contrast": _before_scaling(f"{OURS}.equalize_contrast.EqualizeContrastd"),
    "median_smooth": _before_scaling("MedianSmoothd", radius=1),
    "gaussian_smooth": _before_scaling("GaussianSmoothd", sigma=1.0),
    "full_range": _full_range,
    # augmentations added
    "flip_left_right": _add("RandFlipd", prob=0.5, spatial_axis=1),
    "flip_top_bottom": _add("RandFlipd", prob=0.5, spatial_axis=0),
    "low_resolution": _add(
        "RandSimulateLowResolutiond",
        prob=0.8,
        zoom_range=(0.2, 1.0),
        downsample_mode="area",
        upsample_mode="bilinear",
    ),
    "blur": _add("RandGaussianSmoothd", prob=0.8, sigma_x=(0.5, 2.5), sigma_y=(0.5, 2.5)),
    "histogram_shift": _add("RandHistogramShiftd", prob=0.5, num_control_points=(5, 10)),
    # augmentations taken out of the recipe
    "no_augmentation": _only_conversion,
    "no_affine": _without("RandAffined"),
    "no_rotation": _still("rotate_range"),
    "no_zoom": _still("scale_range"),
    "no_shear": _still("shear_range"),
    "no_translation": _still("translate_range"),
    "no_grey_values": _without("RandAdjustContrastd", "RandScaleIntensityd", "RandShiftIntensityd"),
    "no_gamma": _without("RandAdjustContrastd"),
    "no_brightness": _without("RandScaleIntensityd", "RandShiftIntensityd"),
    "no_noise_or_blur": _without("RandGaussianNoised", "RandGaussianSmoothd"),
    "no_noise": _without("RandGaussianNoised"),
    "no_blur": _without("RandGaussianSmoothd"),
    "no_dropout": _without("RandCoarseDropoutd"),
}


if __name__ == "__main__":
    main()
