"""Gives a classifier that is ready to predict another backend for its images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from medimg3d.bundle.classifier import Classifier
from medimg3d.bundle.run_windows import PLAIN, backend_for
from medimg3d.errors import UsageError


def with_image_backend(
    model: Classifier, backend: str | None, *, cache_dir: Path | None = None
) -> Classifier:
    """The same bundle with its network run by another backend, in batches of the bundle's size.

    Args:
        model: From :func:`medimg3d.bundle.classifier.load_classifier`.
        backend: A name, ``"auto"`` for the fastest of a short trial, or None for plain torch.
        cache_dir: Folder of converted networks; the user's own cache if None.

    Raises:
        UsageError: There is no backend of that name, it is for label maps only, or the bundle's images have no fixed
            size.
        MissingExtraError: The package of the backend is not installed.
        BackendError: The backend cannot run here, cannot convert the network, or gives other scores than torch.
    """
    if backend in (None, PLAIN):
        return model
    if backend == "openvino-int8":
        raise UsageError(
            f"--backend {backend} is for bundles that segment: it is accepted by Dice, and {model.facts.name} "
            "classifies. Choose a backend in float32."
        )
    if model.image_shape is None:
        raise UsageError(
            f"--backend {backend} needs images of a fixed size after preprocessing, and {model.facts.name} states none "
            "(image_size in configs/inference.json); leave --backend away."
        )
    made = backend_for(
        str(backend),
        model.network,
        model.facts,
        shape=model.image_shape,
        batch=model.batch_size,
        device=model.device,
        cache_dir=cache_dir,
    )
    return model if made is None else replace(model, runner=made)
