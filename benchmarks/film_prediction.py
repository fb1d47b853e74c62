"""Films per second from file to table of decisions: a bundle's inference.json by stock MONAI against medimg3d.

The same films go through every side: "stock" is inference.json run by MONAI alone, with medimg3d out of reach (frozen:
batches of one, torch's default threads); "overlay" is MONAI's own run with inference_fast.json on top; "predict" is
medimg3d predict in plain torch, which also checks each file and hashes it, and "predict:BACKEND" the same with another
backend. Each side of each round runs in a process of its own, in turn; start-up of the process and conversion of the
network are not counted, but the latter is stated. Every side's probabilities are held against stock's. Prints one
JSON line a side and a round, and at the end the median ratios.

Usage: python benchmarks/film_prediction.py [--bundle DIR] [--images DIR] [--number 512] [--rounds 3]
       [--sides stock,overlay,predict,predict:openvino-f32] [--set images_per_batch=16] [--quick]
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from shutil import copyfile, copytree, ignore_patterns
from typing import Any

BUNDLE = Path(__file__).parents[1] / "bundles" / "xray_pneumonia_densenet"
ENDINGS = (".jpeg", ".jpg", ".png", ".bmp", ".tif", ".tiff", ".dcm", ".nii", ".nii.gz")
SIDES = "stock,overlay,predict,predict:openvino-f32,predict:onnxruntime"
QUICK = 32

Found = dict[str, Any]


def main() -> None:
    """Read the arguments, run the sides in turn; without films say so in one line."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--bundle", type=Path, default=BUNDLE)
    arguments.add_argument(
        "--images", type=Path, default=Path(os.environ.get("MEDIMG3D_DATA", "")) / "chest_xray"
    )
    arguments.add_argument("--number", type=int, default=512, help="of images, evenly drawn from the folder")
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--sides", default=SIDES)
    arguments.add_argument(
        "--set", action="append", default=[], help="id=JSON in the overlay, e.g. images_per_batch=16"
    )
    arguments.add_argument(
        "--quick", action="store_true", help=f"{QUICK} images, one round, to try the script"
    )
    arguments.add_argument("--side", help=argparse.SUPPRESS)
    arguments.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.quick:
        given.number, given.rounds = QUICK, 1
    if given.side:
        print(json.dumps(measured(given)))
        return
    with tempfile.TemporaryDirectory() as folder:
        given.folder = Path(folder)
        images = write_images(given)
        if not images:
            print(json.dumps({"benchmark": "film_prediction", "skipped": "no films: set MEDIMG3D_DATA"}))
            return
        write_bundle(given)
        run_in_turn(given)


def write_images(given: argparse.Namespace) -> int:
    """Copies of images evenly drawn from a folder, with running numbers as names; how many."""
    if not given.images.is_dir():
        return 0
    found = sorted(path for path in given.images.rglob("*") if path.name.lower().endswith(ENDINGS))
    chosen = found[:: max(1, len(found) // given.number)][: given.number]
    (given.folder / "images").mkdir()
    for number, path in enumerate(chosen):
        ending = next(
            end for end in sorted(ENDINGS, key=len, reverse=True) if path.name.lower().endswith(end)
        )
        copyfile(path, given.folder / "images" / f"image_{number:05d}{ending}")
    given.number = len(chosen)
    return len(chosen)


def write_bundle(given: argparse.Namespace) -> None:
    """A copy of the bundle with the values of --set in its overlay."""
    copy = given.folder / given.bundle.resolve().name  # its package is called by the folder
    copytree(given.bundle, copy, ignore=ignore_patterns("__pycache__", "docs"))
    given.bundle = copy
    overlay = copy / "configs" / "inference_fast.json"
    content = json.loads(overlay.read_text())
    for text in given.set:
        name, _, value = text.partition("=")
        content[name] = json.loads(value)
    overlay.write_text(json.dumps(content, indent=2))


def run_in_turn(given: argparse.Namespace) -> None:
    """Every side in every round; then the medians."""
    sides = given.sides.split(",")
    rates: dict[str, list[float]] = {side: [] for side in sides}
    for side in sides:
        if ":" in side:  # converts the network, and a choice by trial is made
            report(given, side=side, warm_up=True, **in_own_process(given, side))
    for number in range(given.rounds):
        for side in sides:
            found = in_own_process(given, side)
            rates[side].append(found["images_per_s"])
            if "stock" in sides and side != "stock":
                found |= held_against_stock(given.folder, side)
            report(given, side=side, round=number, **found)
    if "stock" in sides:
        stock = statistics.median(rates["stock"])
        ratios = {side: round(statistics.median(rates[side]) / stock, 2) for side in sides if side != "stock"}
        report(given, median_ratio_to_stock=ratios)


def in_own_process(given: argparse.Namespace, side: str) -> Found:
    """What a side found in a fresh process."""
    options = ["--side", side, "--folder", given.folder, "--bundle", given.bundle, "--number", given.number]
    command = [sys.executable, "-W", "ignore", __file__, *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{side}: {done.stderr[-3000:]}")
    found: Found = json.loads(done.stdout.splitlines()[-1])
    return found


def measured(given: argparse.Namespace) -> Found:
    """One side in this process."""
    kind, _, backend = given.side.partition(":")
    out = given.folder / given.side.replace(":", "_")
    found = predict_side(given, out, backend or None) if kind == "predict" else monai_side(given, out, kind)
    rows = len(table(out))
    if rows != given.number:
        raise SystemExit(f"{given.side} wrote {rows} rows, expected {given.number}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {**found, "images_per_s": rows / found["seconds"], "peak_memory_gb": peak}


def monai_side(given: argparse.Namespace, out: Path, kind: str) -> Found:
    """MONAI's evaluator as `python -m monai.bundle run` builds it."""
    if kind == "stock":
        sys.modules["medimg3d"] = None  # type: ignore[assignment]
    from monai.bundle import ConfigWorkflow

    sys.path.insert(0, str(given.bundle))
    names = ["inference", *(["inference_fast"] if kind == "overlay" else [])]
    workflow = ConfigWorkflow(
        config_file=[str(given.bundle / "configs" / f"{name}.json") for name in names],
        meta_file=str(given.bundle / "configs" / "metadata.json"),
        workflow_type="inference",
        logging_file=False,
        bundle_root=str(given.bundle),
        dataset_dir=str(given.folder / "images"),
        output_dir=str(out),
    )
    workflow.initialize()
    workflow.parser.get_parsed_content("evaluator")  # everything is built before the clock starts
    begin = time.perf_counter()
    workflow.run()
    return {"seconds": time.perf_counter() - begin}


def predict_side(given: argparse.Namespace, out: Path, backend: str | None) -> Found:
    """`medimg3d predict`, from its first progress (the network is there, no image read) to the end of its tables."""
    from medimg3d.workflows.predict_classification import predict_classification

    times: list[float] = []
    begin = time.perf_counter()
    predict_classification(
        given.bundle, [given.folder / "images"], out, backend=backend,
        progress=lambda done, of: times.append(time.perf_counter()),
    )  # fmt: skip
    settings = json.loads((out / "run.json").read_text())["settings"]
    return {
        "seconds": time.perf_counter() - times[0],
        "start_seconds": times[0] - begin,
        "backend": settings["backend"],
    }


def table(out: Path) -> list[dict[str, str]]:
    """Rows of a side's predictions.csv."""
    with open(out / "predictions.csv", newline="") as file:
        return list(csv.DictReader(file))


def held_against_stock(folder: Path, side: str) -> Found:
    """Largest difference of a side's probabilities to stock's, and how many decisions differ; the order must not."""
    own, stock = table(folder / side.replace(":", "_")), table(folder / "stock")
    if [row["file"] for row in own] != [row["file"] for row in stock]:
        raise SystemExit(f"{side} lists other files than stock, or in another order")
    pairs = list(zip(own, stock, strict=True))
    return {
        "largest_difference_to_stock": max(
            abs(float(one["probability"]) - float(other["probability"])) for one, other in pairs
        ),
        "other_decisions_than_stock": sum(one["decision"] != other["decision"] for one, other in pairs),
    }


def report(given: argparse.Namespace, **values: object) -> None:
    """One JSON line."""
    affinity = getattr(os, "sched_getaffinity", None)
    facts = {
        "benchmark": "film_prediction",
        "bundle": given.bundle.name,
        "images": given.number,
        "cores": len(affinity(0)) if affinity else os.cpu_count(),
        "versions": {name: version(name) for name in ("torch", "monai")},
        **({"set": given.set} if given.set else {}),
    }
    rounded = {k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in values.items()}
    print(json.dumps({**facts, **rounded}), flush=True)


if __name__ == "__main__":
    main()
