"""Gives a bundle that is ready to predict another backend for its windows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from medimg3d.bundle.inference import Inference
from medimg3d.errors import UsageError

PLAIN = "torch"


def with_backend(model: Inference, backend: str | None, *, cache_dir: Path | None = None) -> Inference:
    """The same bundle with its windows run by another backend.

    Args:
        model: From :func:`medimg3d.bundle.inference.load_inference` with ``fast=True``.
        backend: A name, ``"auto"`` for the fastest of a short trial, or None for plain torch.
        cache_dir: Folder of converted networks; the user's own cache if None.

    Raises:
        UsageError: The bundle has no ``inference_fast.json``, or its windows have no fixed size.
        MissingExtraError: The package of the backend is not installed.
        BackendError: The backend cannot run here, cannot convert the network, or gives other outputs than torch.
    """
    if backend in (None, PLAIN):
        return model
    from medimg3d.inference.backends.make import make_backend
    from medimg3d.inference.backends.trial import choose_backend

    window = getattr(getattr(model.inferer, "stream", None), "window", None)
    if not model.is_fast or window is None:
        raise UsageError(
            f"--backend {backend} needs a bundle with configs/inference_fast.json, and {model.facts.name} has none "
            "(or it was turned off); leave --backend away."
        )
    network: Any = model.network
    shape = tuple(window.roi_size) if not isinstance(window.roi_size, int) else (window.roi_size,) * 3
    if any(size is None or size < 1 for size in shape):
        raise UsageError(f"--backend {backend} needs windows of a fixed size, and roi_size is {shape}.")
    common: dict[str, Any] = {
        "window_shape": shape,
        "in_channels": model.facts.num_channels,
        "batch": window.sw_batch_size,
        "weights_sha256": model.facts.weights_sha256,
        "cache_dir": cache_dir,
        "device": model.device,
    }
    name = choose_backend(None, network, **common).name if backend == "auto" else str(backend)
    if name == PLAIN:
        return model
    return replace(model, network=make_backend(name, network, **common), backend=name)
