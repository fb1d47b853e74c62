"""The network exported to ONNX and built into a TensorRT engine, on an NVIDIA GPU."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from medimg3d.errors import MissingExtraError
from medimg3d.inference.backends.backend import Backend, WindowBatch
from medimg3d.inference.backends.kinds import BackendError
from medimg3d.inference.backends.onnx_backend import MODEL, convert_to_onnx

ENGINE = "engine.plan"


def convert_to_tensorrt(network: nn.Module, windows: WindowBatch, folder: Path) -> None:
    """Build ``engine.plan`` for this GPU, float32 in full (no TF32), for batches of one shape.

    Raises:
        MissingExtraError: TensorRT or onnx is not installed.
        BackendError: The network cannot be exported, or TensorRT cannot build it.
    """
    tensorrt = _import_tensorrt()
    logger = tensorrt.Logger(tensorrt.Logger.ERROR)
    builder = tensorrt.Builder(logger)
    # Needed by TensorRT 8; from 10 on it is the only way and the flag is ignored.
    flags = tensorrt.NetworkDefinitionCreationFlag
    explicit = 1 << int(flags.EXPLICIT_BATCH) if hasattr(flags, "EXPLICIT_BATCH") else 0
    definition = builder.create_network(explicit)
    parser = tensorrt.OnnxParser(definition, logger)
    with TemporaryDirectory() as exported:
        # On the processor: tracing must not compete with the engine for the GPU's memory.
        convert_to_onnx(_on_cpu(network), windows, Path(exported))
        if not parser.parse_from_file(str(Path(exported) / MODEL)):
            reason = parser.get_error(0).desc() if parser.num_errors else "no reason given"
            raise BackendError(f"TensorRT cannot read the network ({reason[:160]}); choose another backend.")
    settings = builder.create_builder_config()
    settings.clear_flag(tensorrt.BuilderFlag.TF32)
    engine = builder.build_serialized_network(definition, settings)
    if engine is None:
        raise BackendError(
            f"TensorRT cannot build {type(network).__name__} for this GPU; choose another backend."
        )
    (folder / ENGINE).write_bytes(bytes(engine))


def tensorrt_backend(folder: Path, windows: WindowBatch, *, device: torch.device | str = "cuda") -> Backend:
    """Load an engine.

    Args:
        folder: As :func:`convert_to_tensorrt` wrote it, on the same GPU.
        windows: The windows that it was built for.
        device: The GPU.

    Raises:
        MissingExtraError: TensorRT is not installed.
        BackendError: TensorRT cannot load it.
    """
    tensorrt = _import_tensorrt()
    device = torch.device(device)
    with torch.cuda.device(device):
        runtime = tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.ERROR))
        engine = runtime.deserialize_cuda_engine((folder / ENGINE).read_bytes())
        if engine is None:
            raise BackendError("TensorRT cannot load the engine; it was built by another version or GPU.")
        context = engine.create_execution_context()
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    given = next(name for name in names if engine.get_tensor_mode(name) == tensorrt.TensorIOMode.INPUT)
    made = next(name for name in names if engine.get_tensor_mode(name) == tensorrt.TensorIOMode.OUTPUT)
    shape = tuple(engine.get_tensor_shape(made))

    def run(batch: torch.Tensor) -> torch.Tensor:
        output = torch.empty(shape, device=device)
        context.set_tensor_address(given, batch.data_ptr())
        context.set_tensor_address(made, output.data_ptr())
        stream = torch.cuda.current_stream(device)
        if not context.execute_async_v3(stream.cuda_stream):
            raise BackendError("TensorRT failed on a batch of windows; is the GPU's memory full?")
        # The engine's own memory and the windows must outlive the work, so wait for it.
        stream.synchronize()
        return output

    return Backend("tensorrt", run, windows=windows, device=device, whole_batches=True)


def _on_cpu(network: nn.Module) -> nn.Module:
    from copy import deepcopy

    return deepcopy(network).cpu()


def _import_tensorrt() -> Any:
    try:
        import tensorrt
    except ImportError as err:
        raise MissingExtraError("tensorrt", "tensorrt") from err
    return tensorrt
