"""Patches per second in training: a plain MONAI script against `medimg3d train`, in turn, in one run.

Both train the bundle's network on the same patches' distribution with the same augmentations on the same cores.
The baseline is what MONAI's tutorials show: float32, `CacheDataset`, `DataLoader`, a plain loop. It is frozen:
it may be made faster, never slower. Prints one JSON line a result.

Usage: python benchmarks/training_throughput.py [--dataset-dir DIR] [--iterations 30] [--rounds 2]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
import warnings
from contextlib import redirect_stderr
from pathlib import Path

import torch
from monai.bundle import ConfigParser
from monai.data import CacheDataset, DataLoader, list_data_collate
from monai.transforms import Compose

from medimg3d.bundle.code_path import bundle_code
from medimg3d.bundle.folder import BundleFolder
from medimg3d.bundle.parser import parse_config
from medimg3d.engines.precision_trial import try_precisions

BUNDLE = Path(__file__).parents[1] / "bundles" / "mri_hippocampus_unet"
NUM_CASES = 40


def baseline(parser: ConfigParser, iterations: int) -> dict[str, float]:
    """The plain script: everything in one CacheDataset, metadata tracked, float32, torch's default threads."""
    keys = ["image", "label"]
    config = parser.config
    deterministic = [parser.get_parsed_content(i) for i in ("preprocessing", "label_preprocessing")]
    own = ConfigParser({"patch_size": config["patch_size"], "random": config["train"]["random_transforms"]})
    random = own.get_parsed_content("random").transforms[2:-1]  # without the crop by cached indices
    from monai.transforms import RandCropByPosNegLabeld, SpatialPadd

    size = config["patch_size"]
    crop = [SpatialPadd(keys, size), RandCropByPosNegLabeld(keys, "label", size, pos=1, neg=2, num_samples=1)]
    data = parser.get_parsed_content("train#datalist")[:NUM_CASES]
    dataset = CacheDataset(data, Compose([*deterministic, *crop, *random]), progress=False)
    loader = DataLoader(
        dataset, batch_size=config["batch_size"], shuffle=True, num_workers=2, collate_fn=list_data_collate
    )
    network = parser.get_parsed_content("network_def")
    loss_function = parser.get_parsed_content("train#loss")
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.002)
    done, seconds, network_seconds = 0, 0.0, 0.0
    network.train()
    while done < iterations + 2:
        for batch in _timed(loader):
            begin = time.perf_counter()
            optimizer.zero_grad()
            loss_function(network(batch["image"]), batch["label"]).backward()
            optimizer.step()
            network_seconds += time.perf_counter() - begin if done >= 2 else 0
            seconds += time.perf_counter() - begin + batch["waited"] if done >= 2 else 0  # two warm up
            done += 1
            if done == iterations + 2:
                break
    return {"seconds": seconds, "network_seconds": network_seconds}


def _timed(loader):
    iterator = iter(loader)
    while True:
        begin = time.perf_counter()
        try:
            batch = next(iterator)
        except StopIteration:
            return
        batch["waited"] = time.perf_counter() - begin
        yield batch


def ours(parser: ConfigParser, iterations: int) -> dict[str, float]:
    """The trainer of the overlay, as `medimg3d train` runs it; times between its own events."""
    from ignite.engine import Events

    trainer = parser.get_parsed_content("train#trainer")
    times: list[float] = []
    inside: list[float] = []
    process = trainer._process_function

    def timed_process(engine, batch):
        begin = time.perf_counter()
        output = process(engine, batch)
        inside.append(time.perf_counter() - begin)
        return output

    trainer._process_function = timed_process
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda _: times.append(time.perf_counter()))
    trainer.run()
    return {"seconds": times[-1] - times[1], "network_seconds": sum(inside[2:])}


def main() -> None:
    """Read the arguments; without data say so in one line."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument(
        "--dataset-dir", default=os.path.join(os.environ.get("MEDIMG3D_DATA", ""), "hippocampus")
    )
    arguments.add_argument("--iterations", type=int, default=30)
    arguments.add_argument("--rounds", type=int, default=2)
    arguments.add_argument("--compile", action="store_true", help="let medimg3d use torch.compile")
    given = arguments.parse_args()
    if not (Path(given.dataset_dir) / "dataset.json").is_file():
        print(json.dumps({"benchmark": "training_throughput", "skipped": "no data: set MEDIMG3D_DATA"}))
        return
    warnings.filterwarnings("ignore")
    # notices of libraries; an error leaves the block and shows
    with open(os.devnull, "w") as quiet, redirect_stderr(quiet), bundle_code(BUNDLE):
        measure(given)


def measure(given: argparse.Namespace) -> None:
    """Run both in turn and print the result of each round and the ratio."""
    values = {"dataset_dir": given.dataset_dir, "output_dir": "unused"}
    bundle = BundleFolder(BUNDLE)
    reference = parse_config(bundle, ["train"], values)
    shape = (reference["batch_size"], 1, *reference["patch_size"])
    choice = try_precisions(reference.get_parsed_content("network_def"), shape, torch.device("cpu"))
    ratios = []
    for number in range(given.rounds):
        with tempfile.TemporaryDirectory() as folder:
            plain = baseline(parse_config(bundle, ["train"], values), given.iterations)
            fast = parse_config(
                bundle,
                ["train", "train_fast"],
                values
                | {
                    "output_dir": folder,
                    "precision": choice.precision,
                    "channels_last": choice.channels_last,
                    "compiled": given.compile,
                    "show_progress": False,
                    "train#trainer#max_epochs": 1,
                    "val_interval": 1000,
                    "iterations_per_epoch": given.iterations + 2,
                },
            )
            mine = ours(fast, given.iterations)
        ratios.append(plain["seconds"] / mine["seconds"])
        for name, result in (("plain MONAI script, float32", plain), ("medimg3d train", mine)):
            patches = given.iterations * reference["batch_size"]
            line = {
                "benchmark": "training_throughput",
                "round": number,
                "what": name,
                "patches_per_second": round(patches / result["seconds"], 3),
                "share_outside_network": round(1 - result["network_seconds"] / result["seconds"], 4),
                "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            }
            print(json.dumps(line), flush=True)
    summary = {
        "benchmark": "training_throughput",
        "ratio": round(sorted(ratios)[len(ratios) // 2], 3),
        "ratios": [round(r, 3) for r in ratios],
        "medimg3d": choice.as_dict() | {"compiled": given.compile},
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(summary), flush=True)


if __name__ == "__main__":
    main()
