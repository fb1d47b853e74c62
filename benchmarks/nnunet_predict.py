"""nnU-Net's predictor on a folder of images, warm; runs in nnU-Net's environment and imports nothing of this project.

After a first prediction of one image, everything that ``nnUNetv2_predict`` does is timed: the model is read, the images
are preprocessed, predicted with mirroring, resampled and written. Writes the figures to ``--report``.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

ENDING = "_0000.nii.gz"


def main() -> None:
    """Read the arguments, warm up, predict."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--images", type=Path, required=True, help="NAME_0000.nii.gz, …")
    arguments.add_argument("--model", type=Path, required=True, help="folder with plans.json and fold_N")
    arguments.add_argument("--fold", type=int, required=True)
    arguments.add_argument("--out", type=Path, required=True)
    arguments.add_argument("--report", type=Path, required=True)
    arguments.add_argument("--device", default="cpu")
    arguments.add_argument(
        "--processes", type=int, required=True, help="that preprocess, and that write; 0: none"
    )
    arguments.add_argument("--rounds", type=int, default=1)
    given = arguments.parse_args()
    torch.set_num_threads(threads(given.device))
    first = next(iter(sorted(given.images.glob(f"*{ENDING}"))))
    channels = sorted(given.images.glob(f"{first.name.removesuffix(ENDING)}_[0-9][0-9][0-9][0-9].nii.gz"))
    warm_up = given.out.with_name(f"{given.out.name}_warm_up")
    predict(given, [[str(file) for file in channels]], warm_up)
    seconds = []
    for _ in range(given.rounds):
        begin = time.perf_counter()
        predict(given, str(given.images), given.out)
        seconds.append(time.perf_counter() - begin)
    found: dict[str, Any] = {"seconds": seconds, "threads": torch.get_num_threads()}
    if given.device == "cuda":
        found["gpu_memory_gb"] = torch.cuda.max_memory_reserved() / 1e9
    given.report.write_text(json.dumps(found))


def threads(device: str) -> int:
    """As nnUNetv2_predict has it, but for the cores that may be used, not all of the machine."""
    if device != "cpu":
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else multiprocessing.cpu_count()


def predict(given: argparse.Namespace, images: Any, out: Path) -> None:
    """All images, by nnU-Net's defaults."""
    predictor = nnUNetPredictor(device=torch.device(given.device), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(given.model), (given.fold,), "checkpoint_final.pth")
    out.mkdir(parents=True, exist_ok=True)
    if given.processes == 0:
        predictor.predict_from_files_sequential(images, str(out), False, True)
        return
    predictor.predict_from_files(
        images,
        str(out),
        num_processes_preprocessing=given.processes,
        num_processes_segmentation_export=given.processes,
    )


if __name__ == "__main__":
    main()
