"""The network converted to OpenVINO, for one shape of windows, on the processor."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import torch
from torch import nn

from medimg3d.errors import MissingExtraError
from medimg3d.inference.backends.backend import Backend, FirstHead, WindowBatch
from medimg3d.inference.backends.converted import ENTRY
from medimg3d.inference.backends.kinds import BackendError
from medimg3d.inference.backends.quiet import kept_root_log
from medimg3d.inference.backends.signal_stack import kept_signal_stack
from medimg3d.inference.backends.telemetry import without_telemetry

MODEL = "model.xml"
COMPILED = "compiled"
"""Folder beside the model in which OpenVINO keeps what it compiled; one that is damaged is compiled anew."""
_HINTS = {"openvino-f32": "f32", "openvino-bf16": "bf16", "openvino-int8": "f32"}


def import_openvino() -> Any:
    """The package, told to report nothing.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        with without_telemetry():
            import openvino
    except ImportError as err:
        raise MissingExtraError("openvino", "fast") from err
    return openvino


def has_bfloat16() -> bool:
    """Whether OpenVINO works in bfloat16 on this processor."""
    return "BF16" in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@cache
def openvino_core() -> Any:
    """The one ``openvino.Core`` of this process; of several, the second to end can leave signals without a stack.

    Raises:
        MissingExtraError: OpenVINO is not installed.
    """
    core = import_openvino().Core()
    with kept_signal_stack():
        core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")  # loads what sets a stack up
    return core


def convert_to_openvino(network: nn.Module, windows: WindowBatch, folder: Path) -> None:
    """Write the network as ``model.xml`` and ``model.bin``, float32, for single windows of one shape.

    Raises:
        MissingExtraError: OpenVINO is not installed.
        BackendError: OpenVINO cannot convert it.
    """
    # Unless told not to, save_model rounds the weights to float16.
    import_openvino().save_model(openvino_model(network, windows), folder / MODEL, compress_to_fp16=False)


def openvino_model(network: nn.Module, windows: WindowBatch) -> Any:
    """The network as an ``openvino.Model``; raises as :func:`convert_to_openvino`."""
    openvino = import_openvino()
    single = replace(windows, batch=1)
    network.eval()
    try:
        with warnings.catch_warnings(), torch.no_grad(), without_telemetry(), kept_root_log():
            warnings.simplefilter("ignore")  # what tracing says of the network's code
            return openvino.convert_model(
                FirstHead(network).eval(), example_input=single.example(), input=[single.size]
            )
    except Exception as err:
        raise BackendError(
            f"OpenVINO cannot convert {type(network).__name__} ({_first_line(err)}); choose another backend."
        ) from err


def openvino_backend(name: str, folder: Path, windows: WindowBatch) -> Backend:
    """Load a converted network, with as many threads as torch is set to.

    The windows of a batch run side by side, each by a share of the threads: a thread a window takes three quarters
    of the time that all threads take for one window after the other.

    Args:
        name: ``"openvino-f32"``, ``"openvino-bf16"`` or ``"openvino-int8"`` (its other layers in float32).
        folder: As :func:`convert_to_openvino` (or the quantization) wrote it.
        windows: The windows that it was converted for, and how many come in a batch.

    Raises:
        MissingExtraError: OpenVINO is not installed.
        BackendError: OpenVINO cannot load it.
    """
    threads = torch.get_num_threads()
    settings: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": _HINTS[name],  # unset, processors with matrix units take bfloat16
        "NUM_STREAMS": (streams := min(threads, windows.batch)),
        "INFERENCE_NUM_THREADS": threads,
        "ENABLE_CPU_PINNING": False,  # pinned, two processes would share the same core
    }
    if (folder / ENTRY).is_file() and os.access(folder, os.W_OK):
        # compiling a large network takes 10 s, reading what was compiled less than one; not while it is being made
        settings["CACHE_DIR"] = str(folder / COMPILED)
    try:
        model = openvino_core().compile_model(folder / MODEL, "CPU", settings)
    except MissingExtraError:
        raise
    except Exception as err:
        raise BackendError(f"OpenVINO cannot load the network ({_first_line(err)}).") from err
    converted = replace(windows, batch=int(model.inputs[0].shape[0]))
    spare: list[torch.Tensor] = []
    return Backend(
        name,
        _runner(model, streams, spare),
        windows=converted,
        whole_batches=True,
        threads=threads,
        streams=streams,
        spare=spare,
    )


def _runner(model: Any, streams: int, spare: list[torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
    """Calls the network without copying: it reads the windows where they are and writes into a spare or new tensor."""
    openvino = import_openvino()
    shape = tuple(model.outputs[0].shape)
    requests: SimpleQueue[Any] = SimpleQueue()
    for _ in range(streams):
        requests.put(model.create_infer_request())

    def run(windows: torch.Tensor) -> torch.Tensor:
        try:
            output = spare.pop()  # its memory is mapped already
        except IndexError:
            output = torch.empty(shape)
        request = requests.get()
        try:
            request.set_input_tensor(openvino.Tensor(windows.numpy(), shared_memory=True))
            request.set_output_tensor(openvino.Tensor(output.numpy(), shared_memory=True))
            request.infer()
        finally:
            requests.put(request)
        return output

    return run


def _first_line(err: Exception) -> str:
    lines = [line.strip() for line in str(err).splitlines() if line.strip()]
    return f"{type(err).__name__}: {lines[0][:160]}" if lines else type(err).__name__
