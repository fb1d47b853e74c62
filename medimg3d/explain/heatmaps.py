"""Heat maps of a classifier: Grad-CAM++ (what a layer saw) and occlusion (what is lost when a place is hidden).

Both take one image as the network gets it, give a map on the same grid whose values mean something, and leave
the network as it was.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medimg3d.explain.layers import find_target_layer

if TYPE_CHECKING:
    import torch

METHODS = ("gradcampp", "occlusion")
_PATCHES_PER_SIDE = {2: 8, 3: 4}  # 15 x 15 or 7 x 7 x 7 places at half overlap: a few hundred answers


def gradcampp(
    network: torch.nn.Module, image: torch.Tensor, class_index: int, *, layer: str | None = None
) -> NDArray[np.float32]:
    """Grad-CAM++: where the layer's features that raise the class's logit are active.

    The map of the layer is enlarged linearly to the image's grid and divided by its maximum, so that 1 is the
    hottest point and 0 is no evidence. It is not stretched between its minimum and maximum: a map without
    evidence stays 0 everywhere.

    Args:
        network: A classifier that gives logits, shape (1, classes); left in evaluation mode, else unchanged.
        image: One image as the network takes it, shape (1, C, *spatial), on the network's device.
        class_index: The class to explain.
        layer: Name of the layer; found by :func:`medimg3d.explain.layers.find_target_layer` if None.

    Returns:
        Shape (*spatial), 0 to 1.

    Raises:
        UsageError: There is no such layer, or it cannot be used.
        BundleError: No layer can be used.
        ValueError: Not one image, or no such class.

    Source: Chattopadhay et al. 2018, doi:10.1109/WACV.2018.00097; ``monai.visualize.GradCAMpp``.
    """
    from monai.visualize import GradCAMpp
    from monai.visualize.visualizer import default_upsampler

    from medimg3d.explain.recorder import LayerRecorder

    image = _plain(image)
    _logits(network, image, class_index)
    target = find_target_layer(network, image, layer)
    recorder: Any = LayerRecorder(network, target)
    cam = GradCAMpp(recorder, target)
    small = cam.compute_map(image, class_idx=class_index)
    heat: NDArray[np.float32] = default_upsampler(image.shape[2:])(small)[0, 0].cpu().numpy()
    peak = float(heat.max())
    return (heat / peak if peak > 0 else heat).astype(np.float32)


def occlusion(
    network: torch.nn.Module,
    image: torch.Tensor,
    class_index: int,
    *,
    patch: tuple[int, ...] | None = None,
    overlap: float = 0.5,
    batch_size: int = 16,
) -> NDArray[np.float32]:
    """Occlusion: by how much the log-odds of the class fall when a patch is hidden.

    Positive: the place speaks for the class; negative: against it. The unit is natural log-odds, of the class
    against all others: 0.69 means that the odds halve when the place is hidden. Unlike a probability it does
    not level off where the network is sure. A patch is hidden by the image's mean, each channel's own; where
    patches overlap, their values are averaged.

    MONAI's ``OcclusionSensitivity`` gives the same map, but indexes tensors in a way that torch has announced
    to read differently one day, and fills all channels with one mean; a test holds the two together.

    Args:
        network: A classifier that gives logits, shape (n, classes); left in evaluation mode, else unchanged.
        image: One image as the network takes it, shape (1, C, *spatial), on the network's device.
        class_index: The class to explain.
        patch: Size of the patch; an eighth of each side in 2D, a quarter in 3D if None.
        overlap: Share of a patch that the next one overlaps, 0 to below 1.
        batch_size: Images that the network gets at once.

    Returns:
        Shape (*spatial), in natural log-odds; not scaled.

    Raises:
        ValueError: Not one image, no such class, a patch larger than the image, or no overlap in range.

    Source: Zeiler and Fergus 2014, doi:10.1007/978-3-319-10590-1_53.
    """
    import torch

    image = _plain(image)
    shape = tuple(image.shape[2:])
    whole = log_odds(_logits(network, image, class_index), class_index)
    places = _places(shape, patch or default_patch(shape), overlap)
    mean = image.mean(dim=tuple(range(2, image.ndim)), keepdim=True)[0]
    lost = torch.zeros(shape, dtype=torch.float64)
    count = torch.zeros(shape, dtype=torch.float64)
    for first in range(0, len(places), batch_size):
        batch = places[first : first + batch_size]
        hidden = image.repeat(len(batch), *[1] * (image.ndim - 1))
        for one, place in zip(hidden, batch, strict=True):  # a view of each image
            channels_there: Any = (slice(None), *place)
            one[channels_there] = mean
        with torch.no_grad():
            falls = (whole - log_odds(network(hidden), class_index)).cpu()
        for place, fall in zip(batch, falls, strict=True):
            lost[place] += fall
            count[place] += 1
    heat: NDArray[np.float32] = (lost / count).numpy().astype(np.float32)
    return heat


def evidence(heat: NDArray[np.float32]) -> NDArray[np.float32]:
    """What speaks for the class alone, 1 at its strongest: the positive part, divided by its maximum."""
    positive = np.clip(heat, 0, None)
    peak = float(positive.max(initial=0))
    return (positive / peak if peak > 0 else positive).astype(np.float32)


def default_patch(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Size of the patch that occlusion hides: an eighth of each side in 2D, a quarter in 3D, at least 1."""
    return tuple(max(1, round(size / _PATCHES_PER_SIDE[len(shape)])) for size in shape)


def log_odds(logits: torch.Tensor, class_index: int) -> torch.Tensor:
    """Natural log-odds of a class against all others.

    Args:
        logits: Shape (n, classes), at least two classes.
        class_index: The class.

    Returns:
        Shape (n,).
    """
    import torch

    others = [index for index in range(logits.shape[1]) if index != class_index]
    return logits[:, class_index] - torch.logsumexp(logits[:, others], dim=1)


def _places(shape: tuple[int, ...], patch: tuple[int, ...], overlap: float) -> list[tuple[slice, ...]]:
    """Where the patch is laid: a grid over the whole image, its last rows moved inwards to fit."""
    if not 0 <= overlap < 1:
        raise ValueError(f"overlap must be in [0, 1), got {overlap}.")
    if len(patch) != len(shape) or any(not 0 < side <= size for side, size in zip(patch, shape, strict=True)):
        raise ValueError(f"patch must fit into the image {shape}, got {patch}.")
    axes = []
    for size, side in zip(shape, patch, strict=True):
        starts = [*range(0, size - side, max(1, int(side * (1 - overlap)))), size - side]
        axes.append([slice(start, start + side) for start in starts])
    return list(product(*axes))


def _plain(image: torch.Tensor) -> torch.Tensor:
    """Without MONAI's metadata, which the network does not need and hooks would copy about."""
    as_tensor = getattr(image, "as_tensor", None)
    plain: torch.Tensor = as_tensor() if as_tensor else image
    return plain.detach()


def _logits(network: torch.nn.Module, image: torch.Tensor, class_index: int) -> torch.Tensor:
    import torch

    if image.ndim not in (4, 5) or image.shape[0] != 1:
        raise ValueError(f"Image has shape {tuple(image.shape)}; expected one image, (1, C, *spatial).")
    network.eval()
    with torch.no_grad():
        logits: torch.Tensor = network(image)
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise ValueError(f"The network gives shape {tuple(logits.shape)}; expected logits, (1, classes).")
    if not 0 <= class_index < logits.shape[1]:
        raise ValueError(f"class_index must be in [0, {logits.shape[1] - 1}], got {class_index}.")
    return logits
