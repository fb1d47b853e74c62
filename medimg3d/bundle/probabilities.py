"""The class probabilities behind a bundle's label maps, member by member where the bundle is an ensemble."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medimg3d.bundle.inference import Inference
from medimg3d.errors import BundleError

if TYPE_CHECKING:
    import torch


def member_probabilities(model: Inference, item: dict[str, Any]) -> Iterator[NDArray[np.float32]]:
    """What each network of a bundle gives for a case, on the image's own grid; a single network gives one.

    Args:
        model: From ``load_inference`` with ``fast=False``.
        item: What ``model.prepare`` gave.

    Yields:
        Probabilities, shape (classes, I, J, K); each voxel's sum is 1. A softmax stands before the inversion.

    Raises:
        BundleError: The postprocessing has no argmax.
    """
    import torch
    from monai.data import decollate_batch

    from medimg3d.inference.batch_of_one import batch_of_one_item

    before, _ = split_at_argmax(model)
    batch = batch_of_one_item(item)
    pixels = batch["image"].to(model.device)
    is_raw = _gives_raw_outputs(model)
    with torch.no_grad():
        for output in _outputs(model, pixels):
            probabilities = torch.softmax(output.float(), dim=1) if is_raw else output.float()
            single = decollate_batch(batch | {"image": pixels, "pred": probabilities})[0]
            for step in before:
                single = step(single)
            yield _levelled(single["pred"])


def labels_after(model: Inference, probabilities: NDArray[np.float32], item: dict[str, Any]) -> NDArray[Any]:
    """The label map of mean probabilities: the postprocessing from its argmax on.

    Args:
        model: As for :func:`member_probabilities`.
        probabilities: Shape (classes, I, J, K), on the image's own grid.
        item: What ``model.prepare`` gave; its original affine is that of the labels.

    Returns:
        Labels, shape (I, J, K), uint8.
    """
    import torch
    from monai.data import MetaTensor

    _, after = split_at_argmax(model)
    affine = torch.as_tensor(np.asarray(item["image"].meta.get("original_affine", np.eye(4))))
    result: dict[str, Any] = {"pred": MetaTensor(torch.from_numpy(probabilities), affine=affine)}
    for step in after:
        result = step(result)
    return np.asarray(result["pred"].cpu().numpy()[0].astype(np.uint8))


def split_at_argmax(model: Inference) -> tuple[list[Any], list[Any]]:
    """The steps of the postprocessing before its argmax, and those from it on; a softmax is left out.

    Raises:
        BundleError: There is none: regions, or another way to labels.
    """
    from monai.transforms import Activationsd, AsDiscreted

    steps = [
        step
        for step in getattr(model.postprocessing, "transforms", (model.postprocessing,))
        if not (isinstance(step, Activationsd) and step.softmax[0])
    ]
    for position, step in enumerate(steps):
        if isinstance(step, AsDiscreted) and step.argmax[0]:
            return steps[:position], steps[position:]
    raise BundleError(
        f"{model.facts.name}: the postprocessing of configs/inference.json has no AsDiscreted with argmax; expected "
        "one, before which class probabilities stand."
    )


def _outputs(model: Inference, pixels: torch.Tensor) -> Iterator[torch.Tensor]:
    each = getattr(model.inferer, "each", None)  # the bundle's own EnsembleInferer
    if each is None:
        yield model.inferer(pixels, model.network)
    else:
        yield from each(pixels, model.network)


def _gives_raw_outputs(model: Inference) -> bool:
    """Whether a softmax is due: not after an inferer that averages probabilities (ensemble, flips)."""
    inferer: Any = model.inferer
    if hasattr(inferer, "each"):
        return False
    return not (type(inferer).__name__ == "MirroringInferer" and inferer.softmax)


def _levelled(prediction: torch.Tensor) -> NDArray[np.float32]:
    """Sums of exactly 1 after an interpolation; what preprocessing cut away is background."""
    values = np.array(prediction.detach().cpu().numpy(), dtype=np.float32)
    np.maximum(values, 0, out=values)
    total = values.sum(axis=0)
    outside = total < 1e-3
    values[:, outside] = 0
    values[0, outside] = 1
    values /= np.where(outside, 1, total)
    return values
