"""What a training step and a prediction of a bundle need in memory, measured in a process of their own.

``python -m medimg3d.planning.trial BUNDLE REPORT`` builds the parts out of the bundle's own configs, so that what is
measured is what will run.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from medimg3d.data.training_record import read_json
from medimg3d.errors import DataError, is_out_of_memory, root_cause
from medimg3d.inference.process_memory import peak_of, resident_bytes

GB = 1e9
TIMEOUT_S = 900.0
RUNNING_GB = 0.15
"""What a whole training holds beyond the steps and the validation of its trial: engines, handlers, batches in flight.
A training of made-up CTs held 0.16 GB more than its trial (a DynUNet in float32), or less in bfloat16."""

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
        validate_gb: Of a validation between two training steps with a full batch of windows, the rest of the image
            left out; None for classifiers, too.
        base_gb: Of the process before either, its libraries loaded.
        step_s: Seconds of the last training step.
        problem: Why there are no figures, where there are none.
    """

    train_gb: float | None
    predict_gb: float | None
    base_gb: float = 0.0
    step_s: float = 0.0
    validate_gb: float | None = None
    problem: str = "did not fit"


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
        return Measured(None, None, problem=f"took more than {TIMEOUT_S / 60:.0f} minutes")
    found = read_json(report)
    killed = done.returncode in (-9, 137)  # by the system, for want of memory
    if done.returncode and not killed:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise DataError(
            f"The trial of the planned network failed ({last[:300]}). Plan with --no-trial to look at the configs."
        )
    return Measured(
        found.get("train_gb"),
        found.get("predict_gb"),
        base_gb=found.get("base_gb", 0.0),
        step_s=found.get("step_s", 0.0),
        validate_gb=found.get("validate_gb"),
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
    steps = _TrainingSteps(bundle, torch.device(device), config)
    parts: dict[str, Callable[[], None]] = {"train_gb": steps.run}
    if config == "train":
        parts = {"predict_gb": partial(_predict, bundle, torch.device(device)), **parts}
        if steps.class_names is None:
            parts |= {"validate_gb": steps.validate, "train_gb_again": steps.run}
    for name, part in parts.items():
        try:
            needed = _peak_gb(device, part)
        except Exception as err:
            if not is_out_of_memory(root_cause(err)):
                raise
            needed = None
        if name != "predict_gb" and needed is not None and device == "cpu":
            workers = int(read_json(bundle / "configs" / f"{config}.json").get("num_workers", 0))
            needed += RUNNING_GB + LOADING_GB * workers
        if name == "train_gb_again":
            before = found["train_gb"]
            found["train_gb"] = None if before is None or needed is None else max(before, needed)
        else:
            found[name] = needed
        found["step_s"] = steps.last_s
        report.write_text(json.dumps(found))
        if needed is None and name != "predict_gb":
            return


class _TrainingSteps:
    """Network, loss and optimizer of a bundle, to train some steps on noise and to validate in between."""

    def __init__(self, bundle: Path, device: Any, config: str) -> None:
        self.bundle, self.device, self.config = bundle, device, config
        self.parser = _parser(bundle, config, device)
        self.class_names = self.parser.get("class_names")
        self.last_s = 0.0
        """Seconds of the last step."""
        self._built: tuple[Any, ...] = ()

    def run(self) -> None:
        """The steps."""
        import torch

        metadata = read_json(self.bundle / "configs" / "metadata.json")["network_data_format"]
        channels = int(metadata["inputs"]["image"]["num_channels"])
        size = self.parser["image_size" if self.class_names is not None else "window_size"]
        batch = int(self.parser["batch_size"])
        if not self._built:
            self._built = self._build()
        network, _, loss, optimizer = self._built
        if self.class_names is not None:
            label = torch.arange(batch, device=self.device) % len(self.class_names)
        else:
            values = 2 if self.config != "train" else len(metadata["outputs"]["pred"]["channel_def"])
            label = torch.randint(0, values, (batch, 1, *size), device=self.device, dtype=torch.uint8)
        for _ in range(_STEPS):
            begin = time.perf_counter()
            images = torch.randn((batch, channels, *size), device=self.device)
            optimizer.zero_grad()
            loss(network(images), label).backward()
            optimizer.step()
            self.last_s = time.perf_counter() - begin

    def _build(self) -> tuple[Any, ...]:
        if self.class_names is not None:
            self.parser["train"]["class_weights"] = [1.0] * len(self.class_names)
        get = self.parser.get_parsed_content
        return get("network").train(), get("averaged"), get("train#loss"), get("train#optimizer")

    def validate(self) -> None:
        """Windows of one batch with the averaged weights, as a validation in the middle of a training takes them."""
        import torch

        from medimg3d.engines.validation_memory import begin_validation, end_validation

        begin_validation()
        image = torch.randn(_image_of_windows(self.bundle, self.parser), device=self.device)
        with torch.no_grad():
            self.parser.get_parsed_content("inferer")(image, self._built[1].model.eval())
        end_validation()


def _predict(bundle: Path, device: Any) -> None:
    import torch

    parser = _parser(bundle, "inference", device)
    network = parser.get_parsed_content("network").eval()
    image = torch.randn(_image_of_windows(bundle, parser), device=device)
    with torch.no_grad():
        parser.get_parsed_content("inferer")(image, network)


def _image_of_windows(bundle: Path, parser: Any) -> tuple[int, ...]:
    """Shape (1, C, I, J[, K]) of an image of as many windows as are taken at once; of a classifier, its own."""
    metadata = read_json(bundle / "configs" / "metadata.json")["network_data_format"]
    channels = int(metadata["inputs"]["image"]["num_channels"])
    if "window_size" not in parser:
        return (1, channels, *(int(own) for own in parser["image_size"]))
    size = [int(own) for own in parser["window_size"]]
    by_slices = parser["inferer"]["inferer"].get("spatial_dim")
    windows = int(parser["windows_per_batch"])
    if by_slices is not None:
        size.insert(by_slices, windows)
    else:
        step = 1 - float(parser["window_overlap"])
        size[0] = round(size[0] * (1 + step * (windows - 1)))
    return (1, channels, *size)


def _parser(bundle: Path, name: str, device: Any) -> Any:
    from monai.bundle import ConfigParser

    parser = ConfigParser()
    parser.read_config(str(bundle / "configs" / f"{name}.json"))
    parser["bundle_root"] = str(bundle)
    parser["device"] = f"$torch.device('{device}')"
    return parser


def _peak_gb(device: str, part: Callable[[], None]) -> float:
    """Run something; the most that the process (the GPU) held meanwhile, in GB."""
    import gc

    gc.collect()
    if device == "cuda":
        import torch

        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        part()
        return torch.cuda.max_memory_reserved() / GB
    before = resident_bytes()
    _, more = peak_of(part)
    if before is None or more is None:  # no Linux: the peak since the process began
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / GB
    return (before + more) / GB


if __name__ == "__main__":
    try:
        run_trial(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
    except Exception as err:  # noqa: BLE001 - the last line is what the planner tells
        traceback.print_exc()
        cause = root_cause(err)
        print(f"{type(cause).__name__}: {' '.join(str(cause).split())}", file=sys.stderr)  # noqa: T201 - see above
        sys.exit(1)
