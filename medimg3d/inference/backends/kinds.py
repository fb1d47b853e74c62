"""The backends by name, and which of them can run on this machine; loads no torch."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

from medimg3d.errors import Medimg3dError, MissingExtraError, UsageError

CPP_COMPILERS = ("g++", "clang++", "c++", "cl")


class BackendError(Medimg3dError):
    """A backend cannot run here, or cannot run this network."""


@dataclass(frozen=True)
class Kind:
    """A backend's name and what it needs.

    Args:
        precision: ``"float32"``, ``"bfloat16"`` or ``"int8"``: what the network is worked out in.
        devices: Kinds of device that it runs on, ``"cpu"`` and ``"cuda"``.
        packages: Import names of what it needs besides torch.
        extra: Extra of medimg3d that brings them.
        purpose: What it is, in a few words.
    """

    precision: str
    devices: tuple[str, ...]
    packages: tuple[str, ...] = ()
    extra: str = ""
    purpose: str = ""

    @property
    def reduced(self) -> bool:
        """Whether it works with fewer bits than float32, so that results differ."""
        return self.precision != "float32"


KINDS = {
    "torch": Kind("float32", ("cpu", "cuda"), purpose="PyTorch as it is: the reference"),
    "torch-channels-last": Kind("float32", ("cpu", "cuda"), purpose="PyTorch, channels last in memory"),
    "torch-bf16": Kind("bfloat16", ("cpu", "cuda"), purpose="PyTorch, bfloat16 autocast, channels last"),
    "compile": Kind("float32", ("cpu", "cuda"), purpose="torch.compile"),
    "openvino-f32": Kind("float32", ("cpu",), ("openvino",), "fast", "OpenVINO"),
    "openvino-bf16": Kind("bfloat16", ("cpu",), ("openvino",), "fast", "OpenVINO in bfloat16"),
    "openvino-int8": Kind("int8", ("cpu",), ("openvino",), "int8", "OpenVINO, quantized to 8 bits"),
    "onnxruntime": Kind("float32", ("cpu",), ("onnxruntime", "onnx"), "onnx", "ONNX Runtime"),
    "tensorrt": Kind("float32", ("cuda",), ("tensorrt", "onnx"), "tensorrt", "TensorRT"),
}


def kind_of_backend(name: str) -> Kind:
    """The kind of that name.

    Raises:
        UsageError: There is none.
    """
    if name not in KINDS:
        raise UsageError(f"Unknown backend {name!r}; expected one of {', '.join(KINDS)}.")
    return KINDS[name]


def available_backends(device: str = "cpu") -> dict[str, str | None]:
    """Every backend, with the reason why it cannot run on a device of this machine; None if it can.

    Args:
        device: ``"cpu"``, ``"cuda"`` or ``"cuda:1"``.

    Returns:
        Name → reason, one line that says what to do, or None.
    """
    problems = {name: problem(name, device) for name in KINDS}
    return {name: None if found is None else str(found) for name, found in problems.items()}


def candidates(device: str = "cpu", *, allow_reduced: bool = False) -> list[str]:
    """The backends that are worth a trial on a device, the likeliest first.

    ``compile`` is not among them on a processor: it compiles for a minute in every process.
    """
    if device.partition(":")[0] == "cuda":
        full, reduced = ["tensorrt", "torch", "torch-channels-last", "compile"], ["torch-bf16"]
    else:
        full = ["openvino-f32", "torch", "torch-channels-last", "onnxruntime"]
        reduced = ["openvino-int8", "openvino-bf16", "torch-bf16"]
    return [*reduced, *full] if allow_reduced else full


def problem(name: str, device: str = "cpu") -> Medimg3dError | None:
    """What keeps a backend from running on a device of this machine, as the error to raise; None if nothing.

    Raises:
        UsageError: There is no such backend.
    """
    kind, wanted = kind_of_backend(name), device.partition(":")[0]
    if name == "tensorrt" and not _has_cuda():
        return BackendError("tensorrt needs an NVIDIA GPU; PyTorch finds none here. Choose another backend.")
    if wanted not in kind.devices:
        return BackendError(
            f"{name} runs on {' or '.join(kind.devices)}, not on {wanted}; pass --device {kind.devices[0]}, or "
            "choose another backend."
        )
    for package in kind.packages:
        if find_spec(package) is None:
            return MissingExtraError(package, kind.extra)
    more = _MORE_PROBLEMS.get(name)
    return more(wanted) if more else None


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def _no_compiler(device: str) -> Medimg3dError | None:
    if device == "cuda" and find_spec("triton") is None:
        return BackendError("compile needs the package triton on a GPU; install it, or choose torch.")
    if device == "cpu" and not any(
        shutil.which(one) for one in (os.environ.get("CXX"), *CPP_COMPILERS) if one
    ):
        return BackendError("compile needs a C++ compiler (g++ or clang++); install one, or choose torch.")
    return None


def _no_bfloat16(device: str) -> Medimg3dError | None:
    from medimg3d.inference.backends.openvino_backend import has_bfloat16

    if has_bfloat16():
        return None
    return BackendError("openvino-bf16 needs a processor with bfloat16 instructions; choose openvino-f32.")


_MORE_PROBLEMS: dict[str, Callable[[str], Medimg3dError | None]] = {
    "compile": _no_compiler,
    "openvino-bf16": _no_bfloat16,
}
