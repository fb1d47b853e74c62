"""Films per second in training and seconds a film at prediction: a plain PyTorch script against medimg3d.

Training: both train the bundle's DenseNet121 on the same films with the same augmentations on the same cores, in
turn, in one run. The baseline is what tutorials show: a Dataset that opens each JPEG with Pillow, float32, a
DataLoader with two workers, a plain loop. It is frozen: it may be made faster, never slower. Prediction: what a
film costs from file to decision, and how much of that is loading. Prints one JSON line a result.

Usage: python benchmarks/film_throughput.py [--films DIR] [--iterations 12] [--rounds 2] [--no-compile]
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import tempfile
import time
import warnings
from contextlib import redirect_stderr
from pathlib import Path

import numpy as np
import torch
from monai.bundle import ConfigParser
from PIL import Image

from medimg3d.bundle.code_path import bundle_code
from medimg3d.bundle.folder import BundleFolder
from medimg3d.bundle.parser import parse_config
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
    random = ConfigParser({"random": config["train"]["random_transforms"]}).get_parsed_content("random")
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
    arguments.add_argument("--no-compile", action="store_true", help="medimg3d without torch.compile")
    given = arguments.parse_args()
    if not (Path(given.films) / "labels.csv").is_file():
        print(json.dumps({"benchmark": "film_throughput", "skipped": "no films: set MEDIMG3D_DATA"}))
        return
    warnings.filterwarnings("ignore")
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w") as quiet, redirect_stderr(quiet):
        datalist = write_list(Path(given.films), Path(folder))
        with bundle_code(BUNDLE):
            measure_training(given, datalist, Path(folder))
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


def measure_training(given: argparse.Namespace, datalist: Path, folder: Path) -> None:
    """Run both in turn and print each round and the ratio."""
    bundle = BundleFolder(BUNDLE)
    values = {
        "dataset_dir": str(folder),
        "datalist_file": str(datalist),
        "output_dir": str(folder / "unused"),
    }
    reference = parse_config(bundle, ["train"], values)
    shape = (reference["batch_size"], 1, *reference["image_size"])
    allowed = ("float32",) if not given.no_compile else ("float32", "bfloat16")
    choice = try_precisions(
        reference.get_parsed_content("network_def"), shape, torch.device("cpu"), precisions=allowed
    )
    ratios = []
    films = given.iterations * reference["batch_size"]
    for number in range(given.rounds):
        plain = baseline(parse_config(bundle, ["train"], values), given.iterations)
        fast = parse_config(
            bundle,
            ["train", "train_fast"],
            values
            | {
                "output_dir": str(folder / f"round_{number}"),
                "precision": choice.precision,
                "channels_last": choice.channels_last,
                "compiled": not given.no_compile,
                "show_progress": False,
                "train#trainer#max_epochs": 1,
                "val_interval": 1000,
                "iterations_per_epoch": given.iterations + WARM_UP,
            },
        )
        mine = ours(fast, given.iterations)
        ratios.append(plain / mine)
        report(
            round=number, plain_films_per_s=films / plain, medimg3d_films_per_s=films / mine, ratio=ratios[-1]
        )
    report(
        median_ratio=float(np.median(ratios)),
        compared="DenseNet121 float32, Pillow in a DataLoader, against medimg3d train",
        precision=choice.precision,
        channels_last=choice.channels_last,
        compiled=not given.no_compile,
        peak_memory_gb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    )


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
