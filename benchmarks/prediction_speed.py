"""From a compressed CT to a saved label map: a bundle under stock MONAI against medimg3d predict.

A bundle with an untrained network of the size in question is made, and a CT of a body with noise. Each side runs in
a process of its own, in turn, on the same file; start-up of the process and conversion of the network are not
counted, but stated. The baseline is frozen: SlidingWindowInferer with overlap 0.5 and window batch 1, torch's default
threads, and after it what the zoo's bundles do: softmax, Invertd, argmax ("zoo"), or argmax and Invertd by nearest
neighbour ("cheap"). The Dice of each class compares medimg3d's labels with stock's: the network is untrained, so that
nothing can be compared with a truth, and many voxels lie between two classes, so that bfloat16 and int8 look worse
here than they are (prediction_folder.py has a trained one). openvino-int8 is quantized on windows of the small
image and taken as it is. Prints one JSON line a side and one a ratio.

Usage: python benchmarks/prediction_speed.py [--network unet] [--shape 512,512,250] [--spacing 0.8,0.8,1.5]
       [--model-spacing 1.5] [--classes 15] [--backends torch,openvino-f32] [--orders zoo,cheap] [--rounds 1]
       [--memory-gb GB] [--quick]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

Config = dict[str, Any]

PACKAGES = ("medimg3d", "monai", "torch", "openvino", "nncf")
OUT_OF_MEMORY = "killed: not enough memory?"

NETWORKS: dict[str, Config] = {
    "unet": {  # 4.8 million weights
        "_target_": "UNet", "spatial_dims": 3, "in_channels": 1, "out_channels": "@num_classes",
        "channels": [16, 32, 64, 128, 256], "strides": [2, 2, 2, 2], "num_res_units": 2, "norm": "batch",
    },
    "dynunet": {
        "_target_": "DynUNet", "spatial_dims": 3, "in_channels": 1, "out_channels": "@num_classes",
        "kernel_size": [3] * 5, "strides": [1, 2, 2, 2, 2], "upsample_kernel_size": [2] * 4,
        "filters": [32, 64, 128, 256, 320],
    },
    "swinunetr": {
        "_target_": "SwinUNETR", "in_channels": 1, "out_channels": "@num_classes", "feature_size": 24,
    },
    "mednext": {
        "_target_": "MedNeXt", "spatial_dims": 3, "in_channels": 1, "out_channels": "@num_classes",
        "init_filters": 32,
    },
}  # fmt: skip


def main() -> None:
    """Read the arguments and run the sides in turn."""
    given = read_arguments(__doc__)
    if given.side:
        print(json.dumps(SIDES[given.side.split(":")[0]](given, given.side.split(":")[1])))
        return
    with tempfile.TemporaryDirectory() as folder:
        given.folder = Path(folder)
        make_ct(given)
        make_bundle(given)
        for number in range(given.rounds):
            one_round(given, number)


def read_arguments(description: str | None) -> argparse.Namespace:
    """What is measured; the scripts beside this one that use its CT and its bundle take the same."""
    arguments = argparse.ArgumentParser(description=description)
    arguments.add_argument("--network", choices=sorted(NETWORKS), default="unet")
    arguments.add_argument("--shape", default="512,512,250")
    arguments.add_argument("--spacing", default="0.8,0.8,1.5", help="of the CT, in mm")
    arguments.add_argument("--model-spacing", type=float, default=1.5, help="of the network, in mm")
    arguments.add_argument("--window", type=int, default=96)
    arguments.add_argument("--classes", type=int, default=15)
    arguments.add_argument("--backends", default="torch,openvino-f32")
    arguments.add_argument("--orders", default="zoo,cheap", help="of the baseline; empty for none")
    arguments.add_argument("--rounds", type=int, default=1)
    arguments.add_argument("--memory-gb", type=float, help="cap of medimg3d's process")
    arguments.add_argument(
        "--quick", action="store_true", help="a CT of 96 x 96 x 64 voxels, to try the script"
    )
    arguments.add_argument("--side", help=argparse.SUPPRESS)
    arguments.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.quick:
        given.shape, given.window = "96,96,64", 64 if given.network == "swinunetr" else 48
    return given


def one_round(given: argparse.Namespace, number: int) -> None:
    """Every side once, and the ratios."""
    stock = {
        order: in_own_process(given, f"stock:{order}") for order in filter(None, given.orders.split(","))
    }
    for backend in given.backends.split(","):
        in_own_process(given, f"convert:{backend}")  # its memory and seconds apart
        ours = in_own_process(given, f"medimg3d:{backend}")
        for order, other in stock.items():
            if "failed" in (other | ours):
                continue
            report(
                given, round=number, backend=backend, against=order, ratio=other["seconds"] / ours["seconds"],
                **agreement(given.folder / f"stock_{order}", given.folder / f"medimg3d_{backend}"),
                **side_by_side(other, ours, "seconds", "peak_memory_gb"),
            )  # fmt: skip


def side_by_side(stock: dict[str, Any], ours: dict[str, Any], *names: str) -> dict[str, list[Any]]:
    """Figures of stock and of medimg3d, in this order."""
    return {name: [stock[name], ours[name]] for name in names}


def in_own_process(given: argparse.Namespace, side: str) -> dict[str, Any]:
    """What a side found; printed, too. A side that was killed is a finding; any other error ends the script."""
    options = ["--side", side, "--folder", given.folder, "--network", given.network, "--window", given.window]
    options += ["--memory-gb", given.memory_gb] if given.memory_gb else []
    found = run_side(sys.argv[0], *options, cache=given.folder / "cache")
    report(given, side=side, **found)
    return found


def run_side(script: str, *options: object, cache: Path) -> dict[str, Any]:
    """The last line of a script run in a process of its own, with the seconds of the whole process.

    Args:
        script: The script.
        options: Its arguments.
        cache: Folder of converted networks, so that a conversion is never one of an earlier day.
    """
    command = [sys.executable, "-W", "ignore", script, *map(str, options)]
    begin = time.perf_counter()
    environment = os.environ | {"MEDIMG3D_CACHE": str(cache)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    seconds = time.perf_counter() - begin
    if done.returncode == -signal.SIGKILL:
        return {"failed": OUT_OF_MEMORY, "process_s": seconds}
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found | {"process_s": seconds}


def stock_side(given: argparse.Namespace, order: str) -> dict[str, Any]:
    """Stock MONAI's evaluator, as `python -m monai.bundle run` builds it; no medimg3d. Building it is not counted."""
    sys.modules["medimg3d"] = None  # type: ignore[assignment]
    import torch
    from monai.bundle import ConfigParser

    def evaluator(images: str, out: str) -> Any:
        parser = ConfigParser()
        parser.read_config(str(given.folder / "bundle" / "configs" / f"stock_{order}.json"))
        parser["dataset_dir"], parser["output_dir"] = str(given.folder / images), str(given.folder / out)
        return parser.get_parsed_content("evaluator")

    evaluator("small", "warm_up").run()
    ready = evaluator("ct", f"stock_{order}")
    begin = time.perf_counter()
    ready.run()
    seconds = time.perf_counter() - begin
    return {"seconds": seconds, "peak_memory_gb": peak_memory_gb(), "threads": torch.get_num_threads()}


def our_side(given: argparse.Namespace, backend: str) -> dict[str, Any]:
    """`medimg3d predict`, without pictures; a first run on a small image warms it up."""
    import torch

    from medimg3d.workflows.predict import predict

    bundle, out = given.folder / "bundle", given.folder / f"medimg3d_{backend}"
    options: dict[str, Any] = {"overlays": False, "reports": False, "backend": backend}
    predict(bundle, [given.folder / "small" / "small.nii.gz"], given.folder / "warm_up", **options)
    begin = time.perf_counter()
    result = predict(bundle, [given.folder / "ct"], out, memory_gb=given.memory_gb, **options)
    seconds = time.perf_counter() - begin
    stages = dict(result.cases[0].seconds) if result.cases else {}
    return {
        "seconds": seconds, "stages": stages, "rejected": result.rejected,
        "peak_memory_gb": peak_memory_gb(), "threads": torch.get_num_threads(),
    }  # fmt: skip


def convert_side(given: argparse.Namespace, backend: str) -> dict[str, Any]:
    """Makes the backend, which the cache then has, and runs the small image."""
    from medimg3d.workflows.predict import predict

    bundle, small = given.folder / "bundle", given.folder / "small" / "small.nii.gz"
    begin = time.perf_counter()
    if backend == "openvino-int8":
        quantize_unjudged(bundle, small)
    predict(bundle, [small], given.folder / "converted", overlays=False, reports=False, backend=backend)
    return {"seconds": time.perf_counter() - begin, "peak_memory_gb": peak_memory_gb()}


def quantize_unjudged(bundle: Path, image: Path) -> None:
    """An 8-bit form on windows of one image; an untrained network has no Dice to judge it by."""
    from medimg3d.bundle.folder import BundleFolder
    from medimg3d.bundle.inference import load_inference, read_facts
    from medimg3d.data.datalist import Case
    from medimg3d.inference.backends.quantize import quantize_if_good
    from medimg3d.workflows.quantize_bundle import training_windows

    folder = BundleFolder(bundle)
    facts = read_facts(folder)
    model = load_inference(folder, facts, fast=True)
    windows = training_windows(model, [Case(image=image)])
    made = quantize_if_good(
        model.network, windows, lambda _: [1.0], scored_on="nothing: untrained",  # type: ignore[arg-type]
        window_shape=tuple(windows[0].shape[1:]), in_channels=windows[0].shape[0],
        batch=model.inferer.stream.window.sw_batch_size,  # type: ignore[attr-defined]
        weights_sha256=facts.weights_sha256,
    )  # fmt: skip
    if made.backend is None:
        raise SystemExit(made.reason)


SIDES = {"stock": stock_side, "convert": convert_side, "medimg3d": our_side}


def make_ct(given: argparse.Namespace) -> None:
    """An ellipsoid body with organs and noise in air, int16, compressed; and a small one to warm up with."""
    import nibabel

    spacing = [float(size) for size in given.spacing.split(",")]
    small = ",".join([str(given.window)] * 3)
    for folder, shape_text in (("ct", given.shape), ("small", small)):
        shape = [int(size) for size in shape_text.split(",")]
        rng = np.random.default_rng(0)
        grid = np.ogrid[tuple(slice(-1, 1, size * 1j) for size in shape)]
        ct = np.full(shape, -1000, np.int16)
        for scale, value in ((0.85, 40), (0.6, 80), (0.45, -80), (0.3, 150), (0.15, 400)):
            ct[sum((axis / scale) ** 2 for axis in grid) < 1] = value
        for plane in range(shape[2]):
            ct[..., plane] += rng.normal(0, 15, shape[:2]).astype(np.int16)
        (given.folder / folder).mkdir()
        image = nibabel.Nifti1Image(ct, np.diag([-spacing[0], -spacing[1], spacing[2], 1.0]))
        nibabel.save(image, given.folder / folder / f"{folder}.nii.gz")


def make_bundle(given: argparse.Namespace) -> None:
    """Configs of both sides, metadata, weights."""
    import torch
    from monai.bundle import ConfigParser

    configs = given.folder / "bundle" / "configs"
    configs.mkdir(parents=True)
    common = common_config(given)
    for order in ("zoo", "cheap"):
        (configs / f"stock_{order}.json").write_text(json.dumps(common | {"postprocessing": after(order)}))
    (configs / "inference.json").write_text(json.dumps(common | {"postprocessing": after("zoo")}))
    (configs / "inference_fast.json").write_text(json.dumps(fast_config()))
    names = {str(n): f"part {n}" for n in range(given.classes)}
    data = {
        "inputs": {"image": {"num_channels": 1}},
        "outputs": {"pred": {"type": "image", "channel_def": names}},
    }
    (configs / "metadata.json").write_text(json.dumps({"version": "0", "network_data_format": data}))
    torch.manual_seed(0)
    network = ConfigParser(common).get_parsed_content("network_def")
    (given.folder / "bundle" / "models").mkdir()
    torch.save(network.state_dict(), given.folder / "bundle" / "models" / "model.pt")


def common_config(given: argparse.Namespace) -> Config:
    """What both sides share, with the baseline's inferer."""
    image = {"keys": "image"}
    steps = [
        {"_target_": "LoadImaged", **image},
        {"_target_": "EnsureChannelFirstd", **image},
        {"_target_": "Orientationd", **image, "axcodes": "RAS", "labels": None},
        {"_target_": "Spacingd", **image, "pixdim": [given.model_spacing] * 3, "mode": "bilinear"},
        {
            "_target_": "ScaleIntensityRanged",
            **image,
            "a_min": -200,
            "a_max": 300,
            "b_min": 0,
            "b_max": 1,
            "clip": True,
        },
        {"_target_": "EnsureTyped", **image, "dtype": "$torch.float32"},
    ]
    checkpoint = str(given.folder / "bundle" / "models" / "model.pt")
    return {
        "imports": ["$import torch", "$import glob"],
        "num_classes": given.classes,
        "window_size": [given.window] * 3,
        "checkpoint": checkpoint,
        "dataset_dir": str(given.folder / "ct"),
        "output_dir": "out",
        "device": "$torch.device('cpu')",
        "preprocessing": {"_target_": "Compose", "transforms": steps},
        "network_def": NETWORKS[given.network],
        "network": "$@network_def",
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": "@window_size", "sw_batch_size": 1,
                    "overlap": 0.5, "mode": "gaussian"},
        "dataset": {"_target_": "Dataset", "transform": "@preprocessing",
                    "data": "$[{'image': p} for p in glob.glob(@dataset_dir + '/*.nii.gz')]"},
        "evaluator": {
            "_target_": "SupervisedEvaluator", "device": "@device", "network": "@network", "inferer": "@inferer",
            "val_data_loader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1},
            "postprocessing": "@postprocessing",
            "val_handlers": [{"_target_": "CheckpointLoader", "load_path": "@checkpoint",
                              "load_dict": {"model": "@network"}}],
        },
    }  # fmt: skip


def after(order: str) -> Config:
    """The baseline's post-processing."""
    softmax = {"_target_": "Activationsd", "keys": "pred", "softmax": True}
    argmax = {"_target_": "AsDiscreted", "keys": "pred", "argmax": True}
    invert = {"_target_": "Invertd", "keys": "pred", "transform": "@preprocessing", "orig_keys": "image"}
    smooth, nearest = invert | {"nearest_interp": False}, invert | {"nearest_interp": True}
    steps = [softmax, smooth, argmax] if order == "zoo" else [argmax, nearest]
    return {"_target_": "Compose", "transforms": [*steps, saving()]}


def saving() -> Config:
    """How both sides' configs write the label map."""
    return {"_target_": "SaveImaged", "keys": "pred", "output_dir": "@output_dir", "output_postfix": "seg",
            "separate_folder": False, "resample": False, "output_dtype": "$'uint8'", "print_log": False}  # fmt: skip


def fast_config() -> Config:
    """The overlay, as the shipped bundles have it."""
    return {
        "preprocessing#transforms#0#reader": "medimg3d.data.fast_nifti_reader.FastNiftiReader",
        "preprocessing#transforms#0#dtype": None,
        "preprocessing#transforms#0#keep_small_integers": True,
        "preprocessing#transforms#2#_target_": "medimg3d.transforms.in_place_orientation.InPlaceOrientationd",
        "preprocessing#transforms#3#_target_": "medimg3d.transforms.separable_spacing.SeparableSpacingd",
        "inferer": {"_target_": "medimg3d.inference.label_map_inferer.LabelMapInferer", "roi_size": "@window_size",
                    "sw_batch_size": 5, "overlap": 0.5, "mode": "gaussian", "softmax": True},
        "postprocessing": {"_target_": "Compose", "transforms": [saving()]},
    }  # fmt: skip


def agreement(stock: Path, ours: Path) -> dict[str, float]:
    """The lowest Dice of a class between two label maps, the voxels of that class, and the share of equal voxels."""
    import nibabel

    one, other = (
        np.asarray(nibabel.load(next(folder.glob("*_seg.nii.gz"))).dataobj) for folder in (stock, ours)
    )
    both, first, second = (
        np.bincount(a.ravel().astype(np.int64), minlength=256) for a in (one[one == other], one, other)
    )
    present = np.flatnonzero(first + second)
    dice = 2 * both[present] / (first + second)[present]
    return {
        "least_dice": float(dice.min()),
        "voxels_of_that_class": int(first[present[dice.argmin()]]),
        "equal_voxels": float(np.mean(one == other)),
    }


def peak_memory_gb() -> float:
    """Of this process. Not ru_maxrss where it can be avoided: on Linux it holds the parent's peak, too."""
    status = Path("/proc/self/status")
    if status.is_file():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        return int(lines["VmHWM"].split()[0]) * 1024 / 1e9
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e9


def report(given: argparse.Namespace, **values: Any) -> None:
    """One JSON line."""
    facts = {"network": given.network, "shape": given.shape, "classes": given.classes}
    print_line(Path(sys.argv[0]).stem, **facts, **values)


def print_line(benchmark: str, **values: Any) -> None:
    """One JSON line, with what it was run on."""
    print(json.dumps({"benchmark": benchmark, **rounded(values), **machine_facts()}), flush=True)


def rounded(value: Any) -> Any:
    """Numbers to four places, inside as well."""
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(inner) for inner in value]
    return round(value, 4) if isinstance(value, float) else value


def machine_facts() -> dict[str, Any]:
    """Cores that may be used, processor, versions."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"cores": cores, "processor": processor(), "versions": versions()}


def processor() -> str:
    """Its name."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text(errors="replace").splitlines() if facts.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def versions() -> dict[str, str]:
    """Of Python and of the packages that are installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


if __name__ == "__main__":
    main()
