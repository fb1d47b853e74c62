"""Makes a backend by its name: converts the network or takes it from the cache, and holds it against torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from medimg3d.errors import Medimg3dError
from medimg3d.inference.backends.agreement import Agreement, Reference, check
from medimg3d.inference.backends.backend import Backend, WindowBatch
from medimg3d.inference.backends.compiled import compiled_backend
from medimg3d.inference.backends.converted import Entry, converted, default_cache_dir
from medimg3d.inference.backends.kinds import BackendError, problem
from medimg3d.inference.backends.model_key import model_key
from medimg3d.inference.backends.onnx_backend import convert_to_onnx, onnx_backend
from medimg3d.inference.backends.openvino_backend import convert_to_openvino, openvino_backend
from medimg3d.inference.backends.quantized import accepted_entry
from medimg3d.inference.backends.tensorrt_backend import convert_to_tensorrt, tensorrt_backend
from medimg3d.inference.backends.torch_backend import torch_backend


@dataclass(frozen=True)
class _Form:
    """What a network is converted to.

    Args:
        name: Of the form; several backends may share one.
        checked_as: Backend that holds a fresh conversion against torch.
        packages: Whose versions the conversion depends on.
        convert: Writes it.
        load: Makes the backend of a name from a folder.
    """

    name: str
    checked_as: str
    packages: tuple[str, ...]
    convert: Callable[[nn.Module, WindowBatch, Path], None]
    load: Callable[[str, Path, WindowBatch, torch.device], Backend]


_OPENVINO = _Form(
    "openvino",
    "openvino-f32",
    ("openvino",),
    convert_to_openvino,
    lambda name, folder, windows, device: openvino_backend(name, folder, windows),
)
_ONNX = _Form(
    "onnx",
    "onnxruntime",
    ("onnx", "onnxruntime"),
    convert_to_onnx,
    lambda name, folder, windows, device: onnx_backend(folder, windows),
)
_TENSORRT = _Form(
    "tensorrt",
    "tensorrt",
    ("tensorrt", "onnx"),
    convert_to_tensorrt,
    lambda name, folder, windows, device: tensorrt_backend(folder, windows, device=device),
)
_FORMS = {
    "openvino-f32": _OPENVINO,
    "openvino-bf16": _OPENVINO,
    "onnxruntime": _ONNX,
    "tensorrt": _TENSORRT,
}


def make_backend(
    name: str,
    network: nn.Module,
    *,
    window_shape: tuple[int, ...],
    in_channels: int = 1,
    batch: int = 1,
    weights_sha256: str,
    cache_dir: Path | None = None,
    device: torch.device | str = "cpu",
) -> Backend:
    """A backend that runs a network's windows, held against torch in float32 on one window when it is made.

    Args:
        name: One of :data:`medimg3d.inference.backends.kinds.KINDS`.
        network: The network with its weights, on the device; put into its evaluation mode.
        window_shape: Voxels of a window along I, J[, K].
        in_channels: Channels of the image.
        batch: Windows in one call; a converted network runs batches of this size only.
        weights_sha256: Hash of the file of the weights: a converted network is found again by it.
        cache_dir: Folder of converted networks; the user's own cache if None.
        device: Where it is to run.

    Raises:
        UsageError: There is no backend of that name.
        MissingExtraError: A package is not installed.
        BackendError: The backend cannot run here, cannot convert the network, or gives other outputs than torch.
    """
    windows = WindowBatch(tuple(window_shape), in_channels, batch)
    return build(
        name,
        network,
        windows,
        weights_sha256=weights_sha256,
        cache_dir=default_cache_dir() if cache_dir is None else cache_dir,
        device=torch.device(device),
        reference=Reference(network, windows, device),
    )


def build(
    name: str,
    network: nn.Module,
    windows: WindowBatch,
    *,
    weights_sha256: str,
    cache_dir: Path,
    device: torch.device,
    reference: Reference,
) -> Backend:
    """As :func:`make_backend`, with torch's answer for the example given (several backends share it)."""
    if (found := problem(name, str(device))) is not None:
        raise found
    if name == "compile":
        return _compiled(network, windows, device, reference)
    if name == "openvino-int8":
        entry = accepted_entry(network, windows, weights_sha256=weights_sha256, cache_dir=cache_dir)
        return openvino_backend(name, entry.folder, windows)
    if name not in _FORMS:
        return torch_backend(name, network, windows, device=device)
    form = _FORMS[name]
    key = model_key(
        form.name,
        network,
        windows,
        weights_sha256=weights_sha256,
        packages=form.packages,
        device=str(device),
    )

    def agreement(folder: Path) -> Mapping[str, Any]:
        with form.load(form.checked_as, folder, windows, device) as fresh:
            return check(fresh, reference).as_json()

    entry = converted(
        key, cache_dir, convert=lambda folder: form.convert(network, windows, folder), check=agreement
    )
    backend = form.load(name, entry.folder, windows, device)
    if name != form.checked_as:
        _check_once(backend, entry, reference)
    return backend


def _check_once(backend: Backend, entry: Entry, reference: Reference) -> None:
    """Hold another precision of a converted network against torch, once, and keep the answer."""
    note = f"agreement-{backend.name}"
    if entry.note(note) is None:
        entry.write_note(note, _check_or_close(backend, reference).as_json())


def _compiled(
    network: nn.Module, windows: WindowBatch, device: torch.device, reference: Reference
) -> Backend:
    """The first call compiles, so that it is the one to check: in every process anew."""
    backend = compiled_backend(network, windows, device=device)
    try:
        _check_or_close(backend, reference)
    except Medimg3dError:
        raise
    except Exception as err:
        raise BackendError(
            f"torch.compile fails on {type(network).__name__} ({type(err).__name__}); choose torch."
        ) from err
    return backend


def _check_or_close(backend: Backend, reference: Reference) -> Agreement:
    try:
        return check(backend, reference)
    except BaseException:
        backend.close()
        raise
