"""How much memory a prediction of 105 classes takes: under a cap, and against the depth of the image.

A bundle with an untrained UNet and an int16 CT of a body with noise are made as in prediction_speed.py. Each run is
`medimg3d predict` in a process of its own, which is held by RLIMIT_DATA under a cap of 3 GB or more: what it asks
beyond is refused, and it fails. RLIMIT_DATA counts heap and anonymous memory. RLIMIT_AS would count addresses, too,
which torch and the converters of networks reserve without ever touching them. The peak is that of resident memory
(which counts the code of the libraries, about 0.2 GB, that RLIMIT_DATA does not count).

The network makes its classes by the last layer alone (no residual unit of 105 channels at full resolution, as the
UNet of prediction_speed.py would have), as networks for many classes do; the window is that of their bundles, 96.

Prints one JSON line a cap (`refused` with the message where the case is refused), and one for memory against depth:
that has fewer classes, since the windows' sums do not depend on the depth and the time does.

Usage: python benchmarks/prediction_memory.py [--shape 512,512,400] [--spacing 0.78,0.78,1.0] [--model-spacing 1.5]
       [--window 96] [--classes 105] [--caps 4,2,0.2] [--depths 400,1200] [--depth-classes 8]
       [--backend NAME] [--quick]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import prediction_speed as speed

speed.NETWORKS["unet_many"] = {
    "_target_": "UNet", "spatial_dims": 3, "in_channels": 1, "out_channels": "@num_classes",
    "channels": [16, 32, 64, 128, 256], "strides": [2, 2, 2, 2], "num_res_units": 0, "norm": "instance",
}  # fmt: skip


LEAST_HELD = 3.0
"""GB; smaller caps are not held by the system."""


def main() -> None:
    """Read the arguments and run the caps, then the depths."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--shape", default="512,512,400")
    arguments.add_argument("--spacing", default="0.78,0.78,1.0", help="of the CT, in mm")
    arguments.add_argument("--model-spacing", type=float, default=1.5, help="of the network, in mm")
    arguments.add_argument("--window", type=int, default=96)
    arguments.add_argument("--classes", type=int, default=105)
    arguments.add_argument("--caps", default="4,2,0.2", help="GB; empty for none")
    arguments.add_argument("--depths", default="400,1200", help="slices; empty for none")
    arguments.add_argument("--depth-classes", type=int, default=8)
    arguments.add_argument("--backend", default="", help="the command's own choice if empty")
    arguments.add_argument(
        "--quick", action="store_true", help="a small CT and few classes, to try the script"
    )
    arguments.add_argument("--held", help=argparse.SUPPRESS)
    arguments.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.held is not None:
        print(json.dumps(held_run(given.folder, given.backend, float(given.held))))
        return
    if given.quick:
        given.shape, given.window, given.classes, given.depth_classes = "128,128,64", 32, 20, 3
        given.caps, given.depths = "1,0.2", "64,256"
    given.network = "unet_many"
    caps = [float(cap) for cap in given.caps.split(",") if cap]
    depths = [int(depth) for depth in given.depths.split(",") if depth]
    for cap, found in zip(caps, runs(given, caps), strict=True):
        speed.report(given, cap_gb=cap, **found)
    if len(depths) > 1:
        against_depth(given, depths)


def against_depth(given: argparse.Namespace, depths: list[int]) -> None:
    """Peaks without a cap, and the bytes that each further voxel of the original image takes."""
    given.classes = given.depth_classes
    plane = given.shape.split(",")[:2]
    found: dict[int, dict[str, Any]] = {}
    for depth in depths:
        given.shape = ",".join([*plane, str(depth)])
        (found[depth],) = runs(given, [0])
        speed.report(given, **found[depth])
    if any("peak_memory_gb" not in one for one in found.values()):
        return
    peaks = {depth: one["peak_memory_gb"] for depth, one in found.items()}
    voxels = int(plane[0]) * int(plane[1]) * (depths[-1] - depths[0])
    more = (peaks[depths[-1]] - peaks[depths[0]]) * 1e9 / voxels
    speed.report(given, depths=depths, peak_memory_gb=peaks, bytes_per_extra_voxel=more)


def runs(given: argparse.Namespace, caps: Sequence[float]) -> Iterator[dict[str, Any]]:
    """Predictions of one image, each in a process of its own; a cap of 0 is none."""
    if not caps:
        return
    with tempfile.TemporaryDirectory() as folder:
        given.folder = Path(folder)
        speed.make_ct(given)
        speed.make_bundle(given)
        for cap in caps:
            options = ["--held", cap, "--folder", folder, f"--backend={given.backend}"]
            command = [sys.executable, "-W", "ignore", __file__, *map(str, options)]
            begin = time.perf_counter()
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            found = {"process_s": time.perf_counter() - begin}
            if done.stdout.strip():
                yield found | json.loads(done.stdout.splitlines()[-1])
            else:
                yield found | {"failed": done.stderr.strip()[-300:], "exit_code": done.returncode}


def held_run(folder: Path, backend: str, cap: float) -> dict[str, Any]:
    """In the process of its own: the limit is set, the command runs, and what was held is told."""
    from contextlib import redirect_stderr, redirect_stdout
    from io import StringIO

    from medimg3d.cli.main import run as medimg3d
    from medimg3d.inference.process_memory import peak_bytes

    plans = watch_plans()
    # Smaller caps are kept by medimg3d itself, and the peak is measured: the limit counts what threads and the
    # allocator reserve and never touch, and below what Python and torch hold nothing could run to say so.
    is_limited = cap >= LEAST_HELD and limit_data(cap)
    out = folder / "out"
    command = ["predict", folder / "bundle", folder / "ct", "--out", out, "--no-overlays", "--no-reports"]
    command += [*(["--backend", backend] if backend else []), *(["--memory-gb", cap] if cap else [])]
    told = StringIO()
    begin = time.perf_counter()
    code: Any = 0
    with redirect_stdout(told), redirect_stderr(told):
        try:
            medimg3d([str(part) for part in command])
        except SystemExit as end:
            code = end.code
    seconds = time.perf_counter() - begin
    record = json.loads((out / "run.json").read_text()) if (out / "run.json").is_file() else {"cases": []}
    first: dict[str, Any] = next(iter(record["cases"]), {})
    refused = [case["reason"] for case in record["cases"] if case["status"] == "rejected"]
    return {
        "exit_code": code, "seconds": seconds, "held_by_rlimit": is_limited,
        "backend": record.get("settings", {}).get("backend"),
        "peak_memory_gb": (peak_bytes() or 0) / 1e9,
        **({"planned": plans[-1]} if plans else {}), **({"refused": refused} if refused else {}),
        **({"stages": first["seconds"]} if "seconds" in first else {}),
        **({"message": told.getvalue()[-300:]} if code and not refused else {}),
    }  # fmt: skip


def limit_data(cap: float) -> bool:
    """Hold this process: what it asks for beyond the cap is refused by the system."""
    import resource

    most = int(cap * 1e9)
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    return True


def watch_plans() -> list[str]:
    """The lines in which the planner says what it chose."""
    import logging

    plans: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            plans.append(record.getMessage())

    logger = logging.getLogger("medimg3d.bundle.memory_plan")
    logger.setLevel(logging.INFO)
    logger.addHandler(Keep())
    return plans


if __name__ == "__main__":
    main()
