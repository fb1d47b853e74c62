"""The network exported to ONNX, run by ONNX Runtime on the processor."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from torch import nn

from medimg3d.errors import MissingExtraError
from medimg3d.inference.backends.backend import Backend, FirstHead, WindowBatch
from medimg3d.inference.backends.kinds import BackendError
from medimg3d.inference.backends.quiet import quiet

MODEL = "model.onnx"
_INPUT, _OUTPUT = "windows", "outputs"


def convert_to_onnx(network: nn.Module, windows: WindowBatch, folder: Path) -> None:
    """Write the network as ``model.onnx``, float32, for batches of one shape.

    Tried first is the exporter by tracing: four times faster, and it needs no further package. Where it fails, and
    once torch has dropped it, the newer exporter takes its place (it needs ``onnxscript``).

    Raises:
        MissingExtraError: The package onnx is not installed.
        BackendError: Neither can export it.
    """
    try:
        import onnx  # noqa: F401
    except ImportError as err:
        raise MissingExtraError("onnx", "onnx") from err
    network.eval()
    failures = []
    for by_graph in (False, True):
        try:
            with quiet("torch.onnx", level=logging.CRITICAL), torch.no_grad():
                torch.onnx.export(
                    FirstHead(network).eval(),
                    (windows.example(),),
                    folder / MODEL,
                    input_names=[_INPUT],
                    output_names=[_OUTPUT],
                    dynamo=by_graph,
                )
            return
        except Exception as err:  # noqa: BLE001 - each exporter fails in its own ways
            failures.append(err)
            for path in folder.iterdir():
                path.unlink()
    reason = (str(failures[0]).strip().splitlines() or [""])[0][:160]
    raise BackendError(
        f"{type(network).__name__} cannot be exported to ONNX ({type(failures[0]).__name__}: {reason}); choose "
        "another backend."
    ) from failures[0]


def onnx_backend(folder: Path, windows: WindowBatch) -> Backend:
    """Load an exported network, with as many threads as torch is set to.

    Args:
        folder: As :func:`convert_to_onnx` wrote it.
        windows: The windows that it was exported for.

    Raises:
        MissingExtraError: ONNX Runtime is not installed.
        BackendError: ONNX Runtime cannot load it.
    """
    runtime = _import_onnxruntime()
    threads = torch.get_num_threads()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors
    options.add_session_config_entry(
        "session.intra_op.allow_spinning", "0"
    )  # waiting threads leave the cores
    try:
        session = runtime.InferenceSession(str(folder / MODEL), options, providers=["CPUExecutionProvider"])
    except Exception as err:
        raise BackendError(f"ONNX Runtime cannot load the network ({type(err).__name__}).") from err

    def run(batch: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(session.run([_OUTPUT], {_INPUT: batch.numpy()})[0])

    return Backend("onnxruntime", run, windows=windows, whole_batches=True, threads=threads)


def _import_onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as err:
        raise MissingExtraError("onnxruntime", "onnx") from err
    onnxruntime.disable_telemetry_events()  # its builds for Windows report their use
    return onnxruntime
