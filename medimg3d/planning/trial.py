"""What a training step and a prediction of a bundle need in memory, measured in a process of their own.

``python -m medimg3d.planning.trial BUNDLE REPORT`` builds the parts out of the bundle's own configs, so that what is
measured is what will run.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from medimg3d.data.training_record import read_json
from medimg3d.errors import DataError
from medimg3d.inference.process_memory import peak_of, resident_bytes

GB = 1e9
TIMEOUT_S = 900.0
RUNNING_GB = 0.25
"""What a whole training holds beyond the step: engines, handlers, batches in flight. A training of the hippocampus set
held 0.17 GB more than its trial, one of made-up CTs 0.25 GB."""

LOADING_GB = 0.2
"""What each process that loads for a training holds for itself: 0.13 GB with few cases, of which it keeps prepared ones
up to 128 MiB."""

_STEPS = 2


@dataclass(frozen=True)
class Measured:
    """Peak memory, in GB (10⁹ bytes); None where it did not fit at all.

    Attributes:
        train_gb: Of a training; on a CPU with the processes that load for it, on a GPU that of the GPU.
        predict_gb: Of a prediction with a full batch of windows.
        base_gb: Of the process before either, its libraries loaded.
        step_s: Seconds of the last training step.
    """

    train_gb: float | None
    predict_gb: float | None
    base_gb: float = 0.0
    step_s: float = 0.0


def measure(bundle: Path, *, device: str, config: str = "train") -> Measured:
    """Run a trial of a bundle in a process of its own.

    Args:
        bundle: Folder with configs and carried code; needs no weights.
        device: ``cpu`` or ``cuda``.
        config: The training config; of ``train_finder`` no prediction is measured.

    Raises:
        DataError: The trial failed for another reason than memory.
    """
    report = bundle / "trial.json"
    report.unlink(missing_ok=True)
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "medimg3d.planning.trial",
        str(bundle),
        str(report),
        device,
        config,
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return Measured(None, None)
    found = read_json(report)
    killed = done.returncode in (-9, 137)  # by the system, for want of memory
    if not found and not killed:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise DataError(
            f"The trial of the planned network failed ({last[:300]}). Plan with --no-trial to look at the configs."
        )
    return Measured(
        found.get("train_gb"), found.get("predict_gb"), found.get("base_gb", 0.0), found.get("step_s", 0.0)
    )


def run_trial(bundle: Path, report: Path, device: str, config: str = "train") -> None:
    """Measure in this process; the report is written after each part, so that what was measured outlives a kill."""
    import ignite  # noqa: F401 - what a training loads counts
    import torch
    import torch.utils.tensorboard

    from medimg3d.engines.heap import keep_freed_memory

    sys.path.insert(0, str(bundle))
    keep_freed_memory()
    found: dict[str, Any] = {"base_gb": (resident_bytes() or 0) / GB}
    parts = [("train_gb", partial(_train, bundle, torch.device(device), config))]
    if config == "train":
        parts.insert(0, ("predict_gb", partial(_predict, bundle, torch.device(device))))
    for name, part in parts:
        try:
            seconds, found[name] = _with_peak(device, part)
        except (MemoryError, torch.OutOfMemoryError):
            seconds, found[name] = 0.0, None
        if name == "train_gb":
            found["step_s"] = seconds
            if found[name] is not None and device == "cpu":
                workers = int(read_json(bundle / "configs" / f"{config}.json").get("num_workers", 0))
                found[name] += RUNNING_GB + LOADING_GB * workers
        report.write_text(json.dumps(found))


def _train(bundle: Path, device: Any, config: str) -> float:
    import time

    import torch

    parser = _parser(bundle, config, device)
    classes = parser.get("class_names")
    if classes is not None:
        parser["train"]["class_weights"] = [1.0] * len(classes)
    metadata = read_json(bundle / "configs" / "metadata.json")["network_data_format"]
    channels = int(metadata["inputs"]["image"]["num_channels"])
    size = parser["image_size"] if classes is not None else parser["window_size"]
    batch = int(parser["batch_size"])
    network = parser.get_parsed_content("network").train()
    averaged = parser.get_parsed_content("averaged")
    loss = parser.get_parsed_content("train#loss")
    optimizer = parser.get_parsed_content("train#optimizer")
    if classes is not None:
        label = torch.arange(batch, device=device) % len(classes)
    else:
        values = 2 if config != "train" else len(metadata["outputs"]["pred"]["channel_def"])
        label = torch.randint(0, values, (batch, 1, *size), device=device, dtype=torch.uint8)
    begin = time.perf_counter()
    for _ in range(_STEPS):
        begin = time.perf_counter()
        images = torch.randn((batch, channels, *size), device=device)
        optimizer.zero_grad()
        loss(network(images), label).backward()
        optimizer.step()
    return time.perf_counter() - begin + 0 * len(list(averaged.model.parameters()))


def _predict(bundle: Path, device: Any) -> float:
    import torch

    parser = _parser(bundle, "inference", device)
    metadata = read_json(bundle / "configs" / "metadata.json")["network_data_format"]
    channels = int(metadata["inputs"]["image"]["num_channels"])
    network = parser.get_parsed_content("network").eval()
    inferer = parser.get_parsed_content("inferer")
    if "window_size" in parser:
        size = [int(own) for own in parser["window_size"]]
        by_slices = parser["inferer"]["inferer"].get("spatial_dim")
        windows = int(parser["windows_per_batch"])
        if by_slices is not None:
            size.insert(by_slices, windows)
        else:
            step = 1 - float(parser["window_overlap"])
            size[0] = round(size[0] * (1 + step * (windows - 1)))  # as many windows as are taken at once
    else:
        size = [int(own) for own in parser["image_size"]]
    with torch.no_grad():
        inferer(torch.randn((1, channels, *size), device=device), network)
    return 0.0


def _parser(bundle: Path, name: str, device: Any) -> Any:
    from monai.bundle import ConfigParser

    parser = ConfigParser()
    parser.read_config(str(bundle / "configs" / f"{name}.json"))
    parser["bundle_root"] = str(bundle)
    parser["device"] = f"$torch.device('{device}')"
    return parser


def _with_peak(device: str, part: Callable[[], float]) -> tuple[float, float | None]:
    """Run something; its result and the most that the process (the GPU) held meanwhile, in GB."""
    import gc

    gc.collect()
    if device == "cuda":
        import torch

        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return part(), torch.cuda.max_memory_reserved() / GB
    before = resident_bytes()
    result, more = peak_of(part)
    if before is None or more is None:  # no Linux: the peak since the process began
        return result, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / GB
    return result, (before + more) / GB


if __name__ == "__main__":
    run_trial(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
