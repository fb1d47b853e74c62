"""Planning: how long it takes, what its trainings keep on disk, and whether the plan fits into the memory asked for.

Prints one JSON line a result:

  planning_time    `medimg3d plan` of a data set, from start to end (checks, fingerprint, trials of the memory)
  training_cache   every case of it in the cache of a training, one after another; bytes against the voxels of the
                   original images at two bytes each
  plan_fits        made-up CTs with a sphere, one plan a network and figure of --memory-gb; the peaks of
                   `medimg3d train` (two epochs of three steps, worker processes included) and of `medimg3d predict`,
                   against the figure

Usage: python benchmarks/planning.py --datalist FILE [--parts time,cache,fits] [--networks dynunet,unet,swinunetr]
       [--memory-gb 2,4] [--shape 160,160,128]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from prediction_speed import print_line
from process_tree import run_watched

from medimg3d.data.datalist_file import load_datalist
from medimg3d.data.volume_file import read_volume_grid

CASES = 8
"""Made-up CTs."""

STEPS = ("--set", "iterations_per_epoch=3")


def main() -> None:
    """Read the arguments, run the parts."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--datalist", type=Path, help="of time and cache")
    arguments.add_argument("--parts", default="time,cache,fits")
    arguments.add_argument("--networks", default="dynunet,unet,swinunetr")
    arguments.add_argument("--memory-gb", default="2,4")
    arguments.add_argument("--shape", default="160,160,128", help="of the made-up CTs")
    given = arguments.parse_args()
    parts = given.parts.split(",")
    if given.datalist is None and {"time", "cache"} & set(parts):
        arguments.error("time and cache need --datalist")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "time" in parts:
            planning_time(given.datalist, folder)
        if "cache" in parts:
            training_cache(given.datalist, folder)
        if "fits" in parts:
            plan_fits(given, folder)


def planning_time(datalist: Path, folder: Path) -> None:
    """The whole command, twice: the second time, what was read is known."""
    cases = len(load_datalist(datalist).training)
    for round_name in ("first", "again"):
        done = run_watched(
            medimg3d(
                "plan",
                datalist,
                "--out",
                folder / f"planned_{round_name}",
                "--cache",
                folder / "fingerprints",
            ),
            folder / "plan.log",
        )
        print_line("planning_time", cases=cases, round=round_name, seconds=done.seconds,
                   peak_memory_gb=done.peak_memory_gb)  # fmt: skip


def training_cache(datalist: Path, folder: Path) -> None:
    """Every case once, as the training of a fold and its validation together read them."""
    from monai.bundle import ConfigParser

    from medimg3d.data.cache import DiskCacheDataset

    bundle = folder / "cache_plan"
    run_watched(medimg3d("plan", datalist, "--out", bundle, "--no-trial"), folder / "cache_plan.log")
    sys.path.insert(0, str(bundle))
    parser = ConfigParser()
    parser.read_config(bundle / "configs" / "train.json")
    parser.update(
        {"bundle_root": str(bundle), "datalist_file": str(datalist), "dataset_dir": str(datalist.parent)}
    )
    cases, transforms = (
        parser.get_parsed_content(name) for name in ("datalist", "train#deterministic_transforms")
    )
    cache = folder / "cache"
    dataset = DiskCacheDataset(cases, transforms, cache)
    begin = time.perf_counter()
    for number in range(len(dataset)):
        dataset[number]
    seconds = time.perf_counter() - begin
    voxels = sum(
        int(np.prod(read_volume_grid(file).array.shape))
        for case in load_datalist(datalist).training
        for file in case.files
    )
    kept = sum(file.stat().st_size for file in cache.rglob("*") if file.is_file())
    print_line("training_cache", cases=len(cases), seconds=seconds, cache_gb=kept / 1e9,
               half_precision_gb=2 * voxels / 1e9, ratio=kept / (2 * voxels))  # fmt: skip


def plan_fits(given: argparse.Namespace, folder: Path) -> None:
    """One line a network and figure."""
    shape = tuple(int(size) for size in given.shape.split(","))
    datalist = made_up(folder / "ct", shape)
    for network in given.networks.split(","):
        for asked in (float(figure) for figure in given.memory_gb.split(",")):
            bundle = folder / f"{network}_{asked:g}".replace(".", "_")
            run_watched(medimg3d("plan", datalist, "--out", bundle, "--network", network, "--memory-gb", asked,
                                 "--finder", "no", *STEPS), bundle.with_suffix(".log"))  # fmt: skip
            run = bundle.with_name(f"{bundle.name}_run")
            trained = run_watched(medimg3d("train", bundle, "--datalist", datalist, "--epochs", 2, "--fold", 0,
                                           "--out", run), bundle.with_suffix(".log"))  # fmt: skip
            predicted = run_watched(medimg3d("predict", run, datalist.parent / "images" / "ct_0.nii.gz", "--out",
                                             run / "predicted"), bundle.with_suffix(".log"))  # fmt: skip
            recipe = json.loads((bundle / "configs" / "train.json").read_text())
            peaks = [trained.peak_memory_gb, predicted.peak_memory_gb]
            print_line("plan_fits", network=network, asked_gb=asked, training_gb=peaks[0], prediction_gb=peaks[1],
                       ratio=max(peaks) / asked, patch=recipe["patch_size"], batch=recipe["batch_size"],
                       shape=shape)  # fmt: skip


def made_up(folder: Path, shape: tuple[int, ...]) -> Path:
    """CTs of a body with a sphere that is labelled; the datalist."""
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    training = list(write_cases(folder, shape))
    file = folder / "dataset.json"
    listed: dict[str, Any] = {
        "name": "spheres",
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "sphere"},
    }
    file.write_text(json.dumps({**listed, "numTraining": len(training), "training": training}))
    return file


def write_cases(folder: Path, shape: tuple[int, ...]) -> Iterator[dict[str, str]]:
    """The files; the sphere lies elsewhere in each."""
    import nibabel

    grid = np.ogrid[tuple(slice(-1, 1, size * 1j) for size in shape)]
    body = sum(axis**2 for axis in grid) < 0.8
    for number in range(CASES):
        rng = np.random.default_rng(number)
        centre = rng.uniform(-0.3, 0.3, 3)
        sphere = sum((axis - place) ** 2 for axis, place in zip(grid, centre, strict=True)) < 0.1
        values = np.where(body, 40, -1000) + 60 * sphere + rng.normal(0, 15, shape)
        for kind, array in (("images", values.astype(np.int16)), ("labels", sphere.astype(np.uint8))):
            nibabel.save(
                nibabel.Nifti1Image(array, np.diag([-1.5, -1.5, 1.5, 1.0])),
                folder / kind / f"ct_{number}.nii.gz",
            )
        yield {"image": f"images/ct_{number}.nii.gz", "label": f"labels/ct_{number}.nii.gz"}


def medimg3d(*words: object) -> list[object]:
    """The command in this environment."""
    return [sys.executable, "-W", "ignore", "-m", "medimg3d", *words]


if __name__ == "__main__":
    main()
