"""What everything outside the network costs: load, resample, stitch, invert, save; stock MONAI against medimg3d.

The CT, the bundle and the baseline are those of prediction_speed.py. Calls are wrapped, and each counts the time that
no wrapped call inside it counts: the network, the decompression of the file, and the other parts by name. What no
wrapped call counts is "else"; medimg3d's building of the network is "start", and not compared, since stock's is not
counted. medimg3d takes its stages one after the other here, as with --memory-gb: the next
case is not loaded while the network works, so that each second has one owner. Prints one JSON line a side and one
with the two figures: what is outside the network and the decompression, as a share of the stock path's same
parts, and of medimg3d's own total.

Usage: python benchmarks/prediction_parts.py [--network unet] [--shape 512,512,250] [--backends torch,openvino-f32]
       [--orders zoo,cheap] [--quick] and the other options of prediction_speed.py
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

from prediction_speed import (
    in_own_process,
    make_bundle,
    make_ct,
    peak_memory_gb,
    quantize_unjudged,
    read_arguments,
    report,
    side_by_side,
)

NETWORK, DECOMPRESSION, START, ELSE = "network", "decompression", "start", "else"


class Stopwatch:
    """Seconds by part; a wrapped call inside a wrapped call stops the outer one's clock.

    Calls in other threads than the one that made the watch are not counted.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._thread = threading.get_ident()
        self._parts: list[str] = []
        self._since = 0.0

    def start(self) -> None:
        """From zero."""
        self.seconds.clear()
        self._parts, self._since = [ELSE], time.perf_counter()

    def stop(self) -> dict[str, float]:
        """Seconds of every part."""
        self._count()
        return dict(self.seconds)

    def timed(self, call: Callable[..., Any], part: str) -> Callable[..., Any]:
        """The call, its time counted."""

        @wraps(call)
        def counted(*args: Any, **kwargs: Any) -> Any:
            if not self._parts or threading.get_ident() != self._thread:
                return call(*args, **kwargs)
            self._count()
            self._parts.append(part)
            try:
                return call(*args, **kwargs)
            finally:
                self._count()
                self._parts.pop()

        return counted

    def wrap(self, owner: Any, name: str, part: str) -> None:
        """Count a function of a module, or a method of a class, from now on."""
        setattr(owner, name, self.timed(getattr(owner, name), part))

    def _count(self) -> None:
        now = time.perf_counter()
        self.seconds[self._parts[-1]] += now - self._since
        self._since = now


def stock_side(given: argparse.Namespace, order: str) -> dict[str, Any]:
    """Stock MONAI's evaluator; no medimg3d."""
    sys.modules["medimg3d"] = None  # type: ignore[assignment]
    import gzip

    from monai import inferers, transforms
    from monai.bundle import ConfigParser

    watch = Stopwatch()
    watch.wrap(gzip._GzipReader, "read", DECOMPRESSION)  # type: ignore[attr-defined]
    watch.wrap(transforms.LoadImaged, "__call__", "load")
    for name in ("EnsureChannelFirstd", "Orientationd", "Spacingd", "ScaleIntensityRanged", "EnsureTyped"):
        watch.wrap(getattr(transforms, name), "__call__", "preprocess")
    watch.wrap(inferers.SlidingWindowInferer, "__call__", "stitch")
    for name in ("Activationsd", "Invertd", "AsDiscreted"):
        watch.wrap(getattr(transforms, name), "__call__", "invert")
    watch.wrap(transforms.SaveImaged, "__call__", "save")

    def evaluator(images: str, out: str) -> Any:
        parser = ConfigParser()
        parser.read_config(str(given.folder / "bundle" / "configs" / f"stock_{order}.json"))
        parser["dataset_dir"], parser["output_dir"] = str(given.folder / images), str(given.folder / out)
        network = parser.get_parsed_content("network")
        network.forward = watch.timed(network.forward, NETWORK)
        return parser.get_parsed_content("evaluator")

    evaluator("small", "warm_up").run()
    ready = evaluator("ct", f"stock_{order}")
    watch.start()
    ready.run()
    return facts(watch.stop())


def our_side(given: argparse.Namespace, backend: str) -> dict[str, Any]:
    """`medimg3d predict`, its stages in turn."""
    from medimg3d.bundle.inference import Inference
    from medimg3d.workflows import predict as workflow

    bundle, small = given.folder / "bundle", given.folder / "small" / "small.nii.gz"
    if backend == "openvino-int8":
        quantize_unjudged(bundle, small)
    watch = Stopwatch()
    time_network(watch, backend)
    time_reading(watch)
    run_in_the_foreground(workflow)
    for name in ("read_facts", "load_inference", "with_backend"):
        watch.wrap(workflow, name, START)
    watch.wrap(workflow, "load_case", "load and preprocess")
    watch.wrap(Inference, "labels_of", "stitch and invert")
    watch.wrap(workflow, "write_case", "save")
    options: dict[str, Any] = {"overlays": False, "reports": False, "backend": backend, "workers": 0}
    workflow.predict(bundle, [small], given.folder / "warm_up", **options)
    watch.start()
    result = workflow.predict(bundle, [given.folder / "ct"], given.folder / f"medimg3d_{backend}", **options)
    seconds = watch.stop()
    if result.rejected:
        raise SystemExit(f"rejected: {result.rejected}")
    return facts(seconds)


def run_in_the_foreground(workflow: Any) -> None:
    """Let each batch of windows be one call that is waited for, so that its time is the network's alone."""
    prepare = workflow.with_backend

    def prepared(*args: Any, **options: Any) -> Any:
        model = prepare(*args, **options)
        if getattr(model.network, "streams", 1) > 1:
            model.network.streams = 1
        return model

    workflow.with_backend = prepared


def time_network(watch: Stopwatch, backend: str) -> None:
    """Count the calls of the network, or of what runs in its place."""
    from medimg3d.bundle.inference import Inference
    from medimg3d.inference.backends.backend import Backend
    from medimg3d.workflows import predict as workflow

    watch.wrap(Backend, "__call__", NETWORK)
    if backend != "torch":
        return
    load = workflow.load_inference

    def load_timed(*args: Any, **options: Any) -> Inference:
        model = load(*args, **options)
        model.network.forward = watch.timed(model.network.forward, NETWORK)
        return model

    workflow.load_inference = load_timed


def time_reading(watch: Stopwatch) -> None:
    """Count what the stream of a compressed file gives; ISA-L's own class cannot be changed."""
    from medimg3d.data import fast_nifti

    opened = fast_nifti.gzip_reader

    @contextmanager
    def timed_reader(file: Any) -> Any:
        with opened(file) as stream:
            for name in ("read", "readinto", "seek", "peek"):
                setattr(stream, name, watch.timed(getattr(stream, name), DECOMPRESSION))
            yield stream

    fast_nifti.gzip_reader = timed_reader  # type: ignore[assignment]


def facts(seconds: dict[str, float]) -> dict[str, Any]:
    """Totals of a side."""
    if not (seconds.get(NETWORK) and seconds.get(DECOMPRESSION)):
        raise SystemExit("no call of the network or of gzip was counted: what this script wraps has moved")
    total = sum(seconds.values())
    outside = total - sum(seconds.get(part, 0.0) for part in (NETWORK, DECOMPRESSION, START))
    return {"seconds": total, "outside_s": outside, "parts": seconds, "peak_memory_gb": peak_memory_gb()}


SIDES = {"stock": stock_side, "medimg3d": our_side}


def main() -> None:
    """Read the arguments and run the sides in turn."""
    given = read_arguments(__doc__)
    if given.side:
        side, which = given.side.split(":")
        print(json.dumps(SIDES[side](given, which)))
        return
    with tempfile.TemporaryDirectory() as folder:
        given.folder = Path(folder)
        make_ct(given)
        make_bundle(given)
        orders = filter(None, given.orders.split(","))
        stock = {order: in_own_process(given, f"stock:{order}") for order in orders}
        for backend in given.backends.split(","):
            ours = in_own_process(given, f"medimg3d:{backend}")
            for order, other in stock.items():
                if "failed" not in other | ours:
                    compare(given, backend, ours, order, other)


def compare(
    given: argparse.Namespace, backend: str, ours: dict[str, Any], order: str, stock: dict[str, Any]
) -> None:
    """The two figures."""
    report(
        given, backend=backend, against=order, outside_of_stock=ours["outside_s"] / stock["outside_s"],
        outside_of_own_total=ours["outside_s"] / ours["seconds"],
        **side_by_side(stock, ours, "seconds", "outside_s", "peak_memory_gb"),
    )  # fmt: skip


if __name__ == "__main__":
    main()
