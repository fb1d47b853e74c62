"""Which layer of a network to read a heat map from: the last one that still has places in it."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

from medimg3d.errors import BundleError, UsageError

if TYPE_CHECKING:
    import torch


def spatial_layers(network: torch.nn.Module, image: torch.Tensor) -> dict[str, tuple[int, ...]]:
    """Layers whose output is still a map, in the order in which they last ran.

    Args:
        network: A classifier; left in evaluation mode, without the hooks that were needed.
        image: One image, shape (1, C, *spatial), on the network's device.

    Returns:
        Name of the layer (one without layers of its own) → shape of its output (1, features, *spatial), with
        more than one place along some axis.
    """
    import torch

    found: dict[str, tuple[int, ...]] = {}

    def record(name: str, output: object) -> None:
        found.pop(name, None)  # a layer that runs again counts where it runs last
        if isinstance(output, torch.Tensor) and output.ndim == image.ndim and max(output.shape[2:]) > 1:
            found[name] = tuple(output.shape)

    def hook(name: str) -> torch.utils.hooks.RemovableHandle:
        module = network.get_submodule(name)
        return module.register_forward_hook(lambda _module, _inputs, output: record(name, output))

    handles = [
        hook(name) for name, module in network.named_modules() if next(module.children(), None) is None
    ]
    network.eval()
    try:
        with torch.no_grad():
            network(image)
    finally:
        for handle in handles:
            handle.remove()
    return found


def find_target_layer(network: torch.nn.Module, image: torch.Tensor, name: str | None = None) -> str:
    """The layer for a class activation map.

    In a MONAI DenseNet this is ``class_layers.relu``: the output of the last feature block (``features.norm5``)
    after its ReLU, just before the pooling that forgets where things are.

    Args:
        network: A classifier; left in evaluation mode.
        image: One image, shape (1, C, *spatial), on the network's device.
        name: A layer to take instead, as in ``network.named_modules()``.

    Returns:
        Name of the layer.

    Raises:
        UsageError: There is no layer of that name.
        BundleError: No layer has a map as its output (shape (1, features, *spatial)), as in a transformer.
    """
    if name is not None:
        check_layer(network, name)
        return name
    layers = spatial_layers(network, image)
    if not layers:
        raise BundleError(
            "The network has no layer whose output is a map of the image; Grad-CAM++ needs one. "
            "Name a layer, or use occlusion, which needs none."
        )
    return list(layers)[-1]


def check_layer(network: torch.nn.Module, name: str) -> None:
    """Refuse a layer that the network does not have.

    Raises:
        UsageError: There is no layer of that name; the message names similar ones.
    """
    names = [known for known, _ in network.named_modules() if known]
    if name not in names:
        similar = get_close_matches(name, names, n=3, cutoff=0.4) or names[-3:]
        raise UsageError(f"The network has no layer {name!r}; expected one such as {', '.join(similar)}.")
