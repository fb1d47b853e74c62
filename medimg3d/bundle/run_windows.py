"""Gives a bundle that is ready to predict another backend for its windows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medimg3d.bundle.inference import BundleFacts, Inference
from medimg3d.errors import UsageError

if TYPE_CHECKING:
    import torch

    from medimg3d.inference.backends.backend import Backend

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
    from medimg3d.inference.network_mean import AveragedNetworks

    stream = getattr(model.inferer, "stream", None)
    if not model.is_fast or stream is None:
        raise UsageError(
            f"--backend {backend} needs a bundle with configs/inference_fast.json, and {model.facts.name} has none "
            "(or it was turned off); leave --backend away."
        )
    roi_size = stream.network_window
    shape = (roi_size,) * model.facts.num_axes if isinstance(roi_size, int) else tuple(roi_size)
    if any(size is None or size < 1 for size in shape):
        raise UsageError(f"--backend {backend} needs windows of a fixed size, and roi_size is {shape}.")
    common: dict[str, Any] = {
        "shape": shape,
        "batch": stream.window.sw_batch_size,
        "device": model.device,
        "cache_dir": cache_dir,
    }
    networks = AveragedNetworks.of(model.network)
    made = backend_for(str(backend), networks.members[0], model.facts, **common)
    if made is None:
        return model
    further = [
        backend_for(made.name, network, replace(model.facts, weights_sha256=sha256), **common)
        for network, sha256 in zip(networks.members[1:], networks.further_sha256, strict=True)
    ]
    if not further:
        return replace(model, network=made, backend=made.name)
    members = (made, *(network for network in further if network is not None))
    return replace(model, network=replace(networks, members=members), backend=made.name)


def backend_for(
    name: str,
    network: Any,
    facts: BundleFacts,
    *,
    shape: tuple[int, ...],
    batch: int,
    device: torch.device,
    cache_dir: Path | None = None,
) -> Backend | None:
    """What runs a bundle's network in torch's place; None if it is plain torch (``"auto"`` may choose it).

    Args:
        name: A backend, or ``"auto"``.
        network: The network with its weights, on the device.
        facts: Of the bundle.
        shape: Of one input along I, J[, K].
        batch: Inputs in one call.
        device: Where it is to run.
        cache_dir: Folder of converted networks; the user's own cache if None.

    Raises:
        UsageError: There is no backend of that name.
        MissingExtraError: The package of the backend is not installed.
        BackendError: As :func:`medimg3d.inference.backends.make.make_backend`.
    """
    from medimg3d.inference.backends.make import make_backend
    from medimg3d.inference.backends.trial import choose_backend

    common: dict[str, Any] = {
        "window_shape": shape,
        "in_channels": facts.num_channels,
        "batch": batch,
        "weights_sha256": facts.weights_sha256,
        "cache_dir": cache_dir,
        "device": device,
    }
    chosen = choose_backend(None, network, **common).name if name == "auto" else name
    return None if chosen == PLAIN else make_backend(chosen, network, **common)
