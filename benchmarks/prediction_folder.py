"""A folder of 50 small volumes: the shipped hippocampus bundle under stock MONAI against medimg3d predict.

Real images with their truth where MEDIMG3D_DATA has them (those that the weights have not seen first), else
phantoms of their size, without a truth. Each side runs in a process of its own, in turn, after one image to warm
up with; start-up of the process, conversion of the network and its trial or quantization are not counted, but
stated. "stock" is `evaluator.run()` of the bundle's inference.json, medimg3d blocked; "medimg3d" is
`medimg3d predict` without pictures, the building of the network counted. openvino-int8 is quantized on the data set and
kept only if the mean Dice of no class falls by 0.002 on the cases that the weights have not seen: those that are
also scored here. Prints one JSON line a side (Dice is the mean over the unseen cases, class by class) and one a
comparison: ratio of cases per second, share of equal voxels, largest fall of a class's Dice.

Usage: python benchmarks/prediction_folder.py [--data DIR] [--cases 50] [--rounds 1]
       [--backends torch,openvino-f32,auto,torch-bf16,openvino-bf16,openvino-int8] [--quick]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from prediction_speed import peak_memory_gb, print_line, run_side, side_by_side

BUNDLE = Path(__file__).resolve().parents[1] / "bundles" / "mri_hippocampus_unet"
BACKENDS = "torch,openvino-f32,auto,torch-bf16,openvino-bf16,openvino-int8"
CLASSES = (1, 2)
STOCK = "stock"


def main() -> None:
    """Read the arguments and run the sides in turn."""
    given = read_arguments()
    if given.side:
        print(json.dumps(stock_side(given) if given.side == STOCK else our_side(given)))
        return
    with tempfile.TemporaryDirectory() as folder:
        given.folder = Path(folder)
        truths = make_folder(given)
        facts = {"cases": given.cases, "images": "hippocampus" if truths else "phantoms"}
        for number in range(given.rounds):
            one_round(given, truths, facts | {"round": number})


def read_arguments() -> argparse.Namespace:
    """What is measured."""
    data = os.path.join(os.environ.get("MEDIMG3D_DATA", ""), "hippocampus")
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--data", type=Path, default=Path(data), help="with dataset.json")
    arguments.add_argument("--cases", type=int, default=50)
    arguments.add_argument("--backends", default=BACKENDS)
    arguments.add_argument("--rounds", type=int, default=1)
    arguments.add_argument("--quick", action="store_true", help="4 cases, to try the script")
    arguments.add_argument("--side", help=argparse.SUPPRESS)
    arguments.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    given.data = given.data.resolve()
    given.cases = min(given.cases, 4) if given.quick else given.cases
    return given


def one_round(given: argparse.Namespace, truths: dict[str, Path], facts: dict[str, Any]) -> None:
    """Every side once, and how it compares with stock."""
    stock: dict[str, Any] = {}
    for side in (STOCK, *given.backends.split(",")):
        if side == "openvino-int8" and not truths:
            print_line("prediction_folder", **facts, side=side, skipped="no truth: set MEDIMG3D_DATA")
            continue
        options = ("--side", side, "--folder", given.folder, "--data", given.data)
        found = run_side(__file__, *options, cache=given.folder / "cache")
        if "seconds" not in found:
            print_line("prediction_folder", **facts, side=side, **found)
            continue
        found |= {"cases_per_s": given.cases / found["seconds"]}
        found |= {"dice": mean_dice(given.folder / side, truths)} if truths else {}
        print_line("prediction_folder", **facts, side=side, **found)
        if side == STOCK:
            stock = found
        elif stock:
            print_line(
                "prediction_folder",
                **facts,
                backend=side,
                ran=found["ran"],
                against=STOCK,
                **compared(given, stock, side, found),
            )


def compared(
    given: argparse.Namespace, stock: dict[str, Any], side: str, ours: dict[str, Any]
) -> dict[str, Any]:
    """Ratio of the throughputs, share of equal voxels, and the largest fall of a class's mean Dice."""
    found = {
        "ratio": stock["seconds"] / ours["seconds"],
        "equal_voxels": equal_voxels(given.folder / STOCK, given.folder / side),
        **side_by_side(stock, ours, "seconds", "cases_per_s", "peak_memory_gb"),
    }
    if "dice" in stock:
        falls = [before - after for before, after in zip(stock["dice"], ours["dice"], strict=True)]
        found |= {"largest_dice_fall": max(falls), **side_by_side(stock, ours, "dice")}
    return found


def stock_side(given: argparse.Namespace) -> dict[str, Any]:
    """Stock MONAI's evaluator, as `python -m monai.bundle run` builds it; no medimg3d."""
    sys.modules["medimg3d"] = None  # type: ignore[assignment]
    sys.path.insert(0, str(BUNDLE))  # as MONAI does with the bundle's folder
    import torch
    from monai.bundle import ConfigParser

    def evaluator(images: str, out: str) -> Any:
        parser = ConfigParser()
        parser.read_config(str(BUNDLE / "configs" / "inference.json"))
        parser["bundle_root"] = str(BUNDLE)
        parser["dataset_dir"], parser["output_dir"] = str(given.folder / images), str(given.folder / out)
        parser.get_parsed_content("initialize")
        return parser.get_parsed_content("evaluator")

    begin = time.perf_counter()
    evaluator("one", "warm_up").run()
    ready = evaluator("images", STOCK)
    warm_up = time.perf_counter() - begin
    begin = time.perf_counter()
    ready.run()
    seconds = time.perf_counter() - begin
    facts = {"peak_memory_gb": peak_memory_gb(), "threads": torch.get_num_threads()}
    return {"seconds": seconds, "warm_up_s": warm_up, **facts}


def our_side(given: argparse.Namespace) -> dict[str, Any]:
    """`medimg3d predict` with a backend, without pictures; a first run makes and warms the backend."""
    import torch

    from medimg3d.errors import Medimg3dError
    from medimg3d.workflows.predict import predict

    options: dict[str, Any] = {"overlays": False, "reports": False, "backend": given.side}
    first = {"calibration": given.data / "dataset.json"} if given.side == "openvino-int8" else {}
    begin = time.perf_counter()
    try:
        predict(BUNDLE, [given.folder / "one"], given.folder / "warm_up", **options, **first)
    except Medimg3dError as err:  # refused, or not for this machine
        return {"skipped": str(err)}
    ready = time.perf_counter() - begin
    begin = time.perf_counter()
    result = predict(BUNDLE, [given.folder / "images"], given.folder / given.side, **options)
    seconds = time.perf_counter() - begin
    return {
        "seconds": seconds, "warm_up_with_conversion_s": ready, "ran": result.settings["backend"],
        "rejected": len(result.rejected), "peak_memory_gb": peak_memory_gb(), "threads": torch.get_num_threads(),
    }  # fmt: skip


def make_folder(given: argparse.Namespace) -> dict[str, Path]:
    """Put the images into one folder, and the first into another; the truth of the unseen ones by case.

    Read once on the way, the files are in the system's cache for every side.
    """
    for name in ("images", "one"):
        (given.folder / name).mkdir()
    has_data = (given.data / "dataset.json").is_file()
    images, truths = real_images(given) if has_data else (phantoms(given), {})
    for image in images:
        (given.folder / "images" / image.name).write_bytes(image.read_bytes())
    (given.folder / "one" / images[0].name).write_bytes(images[0].read_bytes())
    return truths


def real_images(given: argparse.Namespace) -> tuple[list[Path], dict[str, Path]]:
    """Images, those unseen by the weights first, and the truths of the unseen ones by case."""
    from medimg3d.data.content_hash import content_sha256
    from medimg3d.data.datalist_file import load_datalist

    record = json.loads((BUNDLE / "models" / "training_cases.json").read_text())
    seen = {case["image_sha256"] for case in record["cases"]}
    cases = [
        (content_sha256(case.files[0]) in seen, case)
        for case in load_datalist(given.data / "dataset.json").training
    ]
    chosen = [case for is_seen in (False, True) for was, case in cases if was == is_seen][: given.cases]
    unseen = {id(case) for was, case in cases if not was}
    truths = {case.name: case.label for case in chosen if case.label is not None and id(case) in unseen}
    return [case.files[0] for case in chosen], truths


def phantoms(given: argparse.Namespace) -> list[Path]:
    """Noise with a bright blob, of the size of the real images."""
    import nibabel

    (given.folder / "made").mkdir()
    files = []
    for number in range(given.cases):
        rng = np.random.default_rng(number)
        shape = tuple(int(size) for size in rng.integers((31, 40, 24), (44, 60, 48)))
        grid = np.ogrid[tuple(slice(-1, 1, size * 1j) for size in shape)]
        image = rng.normal(100, 10, shape) + 80 * (sum((axis / 0.5) ** 2 for axis in grid) < 1)
        files.append(given.folder / "made" / f"phantom_{number:03d}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(image.astype(np.float32), np.eye(4)), files[-1])
    return files


def mean_dice(folder: Path, truths: dict[str, Path]) -> list[float]:
    """Mean Dice of each class over the cases that have a truth."""
    return [
        float(
            np.mean(
                [
                    dice(labels(folder / f"{case}_seg.nii.gz") == one, labels(truth) == one)
                    for case, truth in truths.items()
                ]
            )
        )
        for one in CLASSES
    ]


def dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Of two masks; the hippocampus always has both classes."""
    return 2 * float((one & other).sum()) / float(one.sum() + other.sum())


def equal_voxels(one: Path, other: Path) -> float:
    """Share of the voxels of all cases in which the label maps of two folders agree."""
    equal = total = 0
    for file in sorted(one.glob("*_seg.nii.gz")):
        first, second = labels(file), labels(other / file.name)
        equal, total = equal + int((first == second).sum()), total + first.size
    return equal / total


def labels(file: Path) -> NDArray[np.int64]:
    """A label map."""
    import nibabel

    array: NDArray[np.int64] = np.rint(np.asarray(nibabel.load(file).dataobj)).astype(np.int64)
    return array


if __name__ == "__main__":
    main()
