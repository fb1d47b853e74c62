"""Takes images through a classifier in batches, loading ahead of the network; each image fails alone."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from concurrent.futures import Future
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medimg3d.bundle.classifier import Classifier
from medimg3d.data.content_hash import content_sha256
from medimg3d.data.inputs import InputFile
from medimg3d.data.load_ahead import load_ahead
from medimg3d.errors import DataError
from medimg3d.explain.source_image import read_source

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class Classified:
    """What became of an image.

    Attributes:
        probabilities: Calibrated, shape (classes,).
        image_sha256: Hash of its file.
    """

    probabilities: NDArray[np.float64]
    image_sha256: str


@dataclass(frozen=True, eq=False)
class _Loaded:
    """An image as the network sees it, shape (C, *spatial), and the hash of its file."""

    pixels: torch.Tensor
    image_sha256: str


def classified(
    images: Sequence[InputFile], model: Classifier
) -> Generator[tuple[InputFile, Classified | Exception], None, None]:
    """Probabilities of images, in their order.

    Args:
        images: The files.
        model: Gives the size of the batches.

    Returns:
        Iterator of (image, what became of it): its probabilities, or what was raised for it.
    """
    batches = (images[at : at + model.batch_size] for at in range(0, len(images), model.batch_size))
    with closing(load_ahead(batches, lambda image: _load(image.path, model))) as loaded:
        for batch in loaded:
            yield from zip([image for image, _ in batch], _outcomes(batch, model), strict=True)


def _outcomes(
    batch: list[tuple[InputFile, Future[_Loaded]]], model: Classifier
) -> list[Classified | Exception]:
    errors = [future.exception() for _, future in batch]
    for error in errors:
        if error is not None and not isinstance(error, Exception):
            raise error
    good = [future.result() for (_, future), error in zip(batch, errors, strict=True) if error is None]
    found = iter(_together_or_alone(good, model))
    return [error if isinstance(error, Exception) else next(found) for error in errors]


def _together_or_alone(loaded: list[_Loaded], model: Classifier) -> list[Classified | Exception]:
    """One call of the network for all; where that fails, one for each, so that only the culprit is lost."""
    if not loaded:
        return []
    try:
        return list(_run(loaded, model))
    except Exception as err:  # noqa: BLE001 - whatever the network stumbles over must not stop the rest
        if len(loaded) == 1:
            return [err]
    return [outcome for one in loaded for outcome in _together_or_alone([one], model)]


def _run(loaded: list[_Loaded], model: Classifier) -> list[Classified]:
    import torch

    pixels = torch.stack([torch.as_tensor(one.pixels) for one in loaded])
    rows = model.decision.probabilities(model.logits(pixels).numpy())
    return [Classified(row, one.image_sha256) for row, one in zip(rows, loaded, strict=True)]


def _load(path: Path, model: Classifier) -> _Loaded:
    """Load and preprocess; runs in several threads at once.

    Raises:
        DataError: It cannot be predicted on.
    """
    pixels = _preprocessed(path, model)
    if float(pixels.max()) == float(pixels.min()):
        raise DataError("has one value everywhere; expected an image of something")
    if not bool(pixels.isfinite().all()):
        raise DataError("holds NaN or infinite values; expected numbers")
    shape = tuple(pixels.shape[1:])
    if model.runner is not None and shape != model.image_shape:
        raise DataError(
            f"is {shape} after preprocessing, and {model.backend} takes {model.image_shape}; leave --backend away"
        )
    return _Loaded(pixels, content_sha256(path))


def _preprocessed(path: Path, model: Classifier) -> torch.Tensor:
    """The image as a plain tensor; a file that cannot be used is refused in words of its own."""
    if model.refuses_bad_films:
        with suppress(Exception):  # read again below, for the reason that MONAI hides
            return _plain(model.image(path))
    source = read_source(path, num_spatial_dims=model.num_spatial_dims, num_channels=model.facts.num_channels)
    with source.loadable() as file:
        return _plain(model.image(file))


def _plain(image: torch.Tensor) -> torch.Tensor:
    """Without MONAI's record: every operation on a MetaTensor takes longer."""
    plain: torch.Tensor = image.as_tensor() if hasattr(image, "as_tensor") else image
    return plain
