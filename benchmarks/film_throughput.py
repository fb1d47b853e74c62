"""Films per second in training and seconds a film at prediction: a plain PyTorch script against medimg3d.

Training: both train the bundle's DenseNet121 on the same films with the same augmentations on the same cores, in
turn, in one run. The baseline is what tutorials show: a Dataset that opens each JPEG with Pillow, float32, a
DataLoader with two workers, a plain loop. It is frozen: it may be made faster, never slower. Each side of each
round runs in a process of its own, since medimg3d changes how the process allocates memory. Prediction: what a
film costs from file to decision, and how much of that is loading. Prints one JSON line a result.

Usage: python benchmarks/film_throughput.py [--films DIR] [--iterations 12] [--rounds 2] [--no-compile] [--size 224]
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigParser
from PIL import Image

from medimg3d.bundle.code_path import bundle_code
from medimg3d.bundle.folder import BundleFolder
from medimg3d.bundle.parser import parse_config
from medimg3d.engines.heap import keep_freed_memory
from medimg3d.engines.precision_trial import try_precisions

BUNDLE = Path(__file__).parents[1] / "bundles" / "xray_pneumonia_densenet"
NUM_FILMS = 512
WARM_UP = 2


class PlainFilms(torch.utils.data.Dataset):
    """Opens, resizes and normalizes a film each time it is asked for, then augments it."""

    def __init__(self, cases: list[dict], size: list[int], augment) -> None:
        self.cases, self.size, self.augment = cases, size, augment

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, index: int):
        case = self.cases[index]
        with Image.open(case["image"]) as picture:
            grey = np.asarray(picture.convert("L").resize(self.size[::-1]), dtype=np.float32)
        film = torch.from_numpy((grey - grey.mean()) / (grey.std() + 1e-6))[None]
        return torch.as_tensor(self.augment({"image": film})["image"]), case["label"]


def baseline(parser: ConfigParser, iterations: int) -> float:
    """Seconds of the plain script."""
    config = parser.config
    random = parser.get_parsed_content("train#random_transforms")
    films = PlainFilms(parser.get_parsed_content("train#datalist"), config["image_size"], random)
    loader = torch.utils.data.DataLoader(films, batch_size=config["batch_size"], shuffle=True, num_workers=2)
    network = parser.get_parsed_content("network_def").train()
    loss_function = parser.get_parsed_content("train#loss")
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    done, begin = 0, 0.0
    while True:
        for images, labels in loader:
            optimizer.zero_grad()
            loss_function(network(images), labels).backward()
            optimizer.step()
            done += 1
            if done == WARM_UP:
                begin = time.perf_counter()
            if done == WARM_UP + iterations:
                return time.perf_counter() - begin


def ours(parser: ConfigParser, iterations: int) -> float:
    """Seconds of the overlay's trainer, as `medimg3d train` runs it."""
    from ignite.engine import Events

    trainer = parser.get_parsed_content("train#trainer")
    times: list[float] = []
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda _: times.append(time.perf_counter()))
    trainer.run()
    return times[WARM_UP + iterations - 1] - times[WARM_UP - 1]


def main() -> None:
    """Read the arguments; without films say so in one line."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--films", default=os.path.join(os.environ.get("MEDIMG3D_DATA", ""), "chest_xray"))
    arguments.add_argument("--iterations", type=int, default=12)
    arguments.add_argument("--rounds", type=int, default=2)
    arguments.add_argument("--size", type=int, default=224)
    arguments.add_argument("--no-compile", action="store_true", help="medimg3d without torch.compile")
    arguments.add_argument("--side", choices=sorted(SIDES), help=argparse.SUPPRESS)
    arguments.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    warnings.filterwarnings("ignore")
    if given.side:
        measure_side(given)
        return
    if not (Path(given.films) / "labels.csv").is_file():
        print(json.dumps({"benchmark": "film_throughput", "skipped": "no films: set MEDIMG3D_DATA"}))
        return
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w") as quiet, redirect_stderr(quiet):
        datalist = write_list(Path(given.films), Path(folder))
        measure_training(given, Path(folder))
        with bundle_code(BUNDLE):
            measure_prediction(datalist, Path(folder))


def write_list(films: Path, folder: Path) -> Path:
    """A datalist of some training films, evenly drawn."""
    with open(films / "labels.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "train"]
    chosen = rows[:: max(1, len(rows) // NUM_FILMS)][:NUM_FILMS]
    training = [
        {
            "image": str((films / r["file"]).resolve()),
            "class_label": r["label"],
            "patient": r["patient_group"],
        }
        for r in chosen
    ]
    path = folder / "films.json"
    path.write_text(json.dumps({"classes": ["NORMAL", "PNEUMONIA"], "training": training}))
    return path


def measure_training(given: argparse.Namespace, folder: Path) -> None:
    """Run both sides in turn and print each round and the ratio."""
    ratios = []
    for number in range(given.rounds):
        plain = in_own_process("plain", given, folder)
        mine = in_own_process("medimg3d", given, folder)
        ratios.append(plain["seconds"] / mine["seconds"])
        report(
            round=number,
            plain_films_per_s=plain["films"] / plain["seconds"],
            medimg3d_films_per_s=mine["films"] / mine["seconds"],
            ratio=ratios[-1],
            plain_peak_memory_gb=plain["peak_memory_gb"],
            medimg3d_peak_memory_gb=mine["peak_memory_gb"],
            **mine["settings"],
        )
    report(
        median_ratio=float(np.median(ratios)),
        size=given.size,
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        compared="DenseNet121 float32, Pillow in a DataLoader, against medimg3d train",
    )


def in_own_process(side: str, given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """What :func:`measure_side` found in a fresh process."""
    options = ["--side", side, "--folder", folder, "--iterations", given.iterations, "--size", given.size]
    command = [sys.executable, __file__, *map(str, options), *(["--no-compile"] if given.no_compile else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure_side(given: argparse.Namespace) -> None:
    """Seconds of one side in this process, as one JSON line."""
    values = {
        "dataset_dir": str(given.folder),
        "datalist_file": str(given.folder / "films.json"),
        "image_size": [given.size, given.size],
    }
    with tempfile.TemporaryDirectory() as folder, bundle_code(BUNDLE):
        seconds, settings = SIDES[given.side](given, values | {"output_dir": folder})
    batch_size = parse_config(BundleFolder(BUNDLE), ["train"])["batch_size"]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    found = {"seconds": seconds, "films": given.iterations * batch_size, "peak_memory_gb": peak}
    print(json.dumps(found | {"settings": settings}))


def plain_side(given: argparse.Namespace, values: dict[str, Any]) -> tuple[float, dict[str, Any]]:
    """The plain script."""
    return baseline(parse_config(BundleFolder(BUNDLE), ["train"], values), given.iterations), {}


def our_side(given: argparse.Namespace, values: dict[str, Any]) -> tuple[float, dict[str, Any]]:
    """As `medimg3d train` does it: allocator, precision by trial, overlay."""
    keep_freed_memory()
    bundle = BundleFolder(BUNDLE)
    reference = parse_config(bundle, ["train"], values)
    shape = (reference["batch_size"], 1, *reference["image_size"])
    precisions = ("float32", "bfloat16") if given.no_compile else ("float32",)
    network = reference.get_parsed_content("network_def")
    choice = try_precisions(network, shape, torch.device("cpu"), precisions=precisions)
    settings = {
        "precision": choice.precision,
        "channels_last": choice.channels_last,
        "compiled": not given.no_compile,
    }
    lengths = {
        "show_progress": False,
        "train#trainer#max_epochs": 1,
        "val_interval": 1000,
        "iterations_per_epoch": given.iterations + WARM_UP,
    }
    parser = parse_config(bundle, ["train", "train_fast"], values | settings | lengths)
    return ours(parser, given.iterations), settings


SIDES = {"plain": plain_side, "medimg3d": our_side}


def measure_prediction(datalist: Path, folder: Path, num_films: int = 30) -> None:
    """Seconds from file to decision with untrained weights, and the share of loading and preprocessing."""
    from medimg3d.bundle.classifier import load_classifier

    parser = parse_config(BundleFolder(BUNDLE), ["inference"])
    weights = folder / "model.pt"
    torch.save(parser.get_parsed_content("network_def").state_dict(), weights)
    model = load_classifier(BundleFolder(BUNDLE), checkpoint=weights)
    files = [Path(case["image"]) for case in json.loads(datalist.read_text())["training"][:num_films]]
    loading, network = [], []
    for file in files:
        begin = time.perf_counter()
        image = model.image(file)
        between = time.perf_counter()
        model.decision.probabilities(model.logits(image[None]).numpy())
        loading.append(between - begin)
        network.append(time.perf_counter() - between)
    load, run = float(np.median(loading)), float(np.median(network))
    report(seconds_a_film=load + run, share_of_loading=load / (load + run), compared="one film at a time")


def report(**values: object) -> None:
    """One JSON line."""
    rounded = {k: round(v, 4) if isinstance(v, float) else v for k, v in values.items()}
    print(json.dumps({"benchmark": "film_throughput", **rounded}), flush=True)


if __name__ == "__main__":
    main()
