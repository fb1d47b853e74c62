"""Runs a network and keeps one layer's output and its gradient, leaving the network as it was."""

from __future__ import annotations

from typing import Any

import torch
from monai.visualize.class_activation_maps import ModelWithHooks

from medimg3d.errors import UsageError


class LayerRecorder(ModelWithHooks):
    """What MONAI's Grad-CAM runs, without its marks on the network.

    MONAI's own ``ModelWithHooks`` leaves its hooks and the weights' gradients behind, switches the layer's
    ``inplace`` off for good, and fails on a layer that is followed by an in-place ReLU (``features.norm5`` of
    its DenseNet). Here the layer passes on a copy of its output, the gradient is taken at the output alone,
    and the hook goes when the run ends.

    Two factors that cancel out of the finished map keep MONAI's formula within the numbers' range: the score
    is given as 0, since its exponential only scales the map, and the gradient is scaled to a maximum of 1 (the
    output by the inverse). Without the latter, the formula's 1e-7 outweighs the squared gradients of a map
    with many places, and the strong features swallow the weak ones.

    Args:
        network: A classifier in evaluation mode.
        layer: Name of the layer.
    """

    def __init__(self, network: torch.nn.Module, layer: str) -> None:
        super().__init__(network, ())
        self._layer = layer

    def __call__(self, x: Any, class_idx: Any = None, retain_graph: bool = False, **kwargs: Any) -> Any:
        """Logits, and for the layer: output and gradient of the class's logit, each in a tuple of one.

        Raises:
            UsageError: The layer gives no map, or the answer does not depend on it.
        """
        kept: list[torch.Tensor] = []

        def keep(_module: torch.nn.Module, _inputs: Any, output: Any) -> torch.Tensor | None:
            if not isinstance(output, torch.Tensor):
                return None
            kept.append(output.detach().requires_grad_())
            return kept[-1].clone()

        handle = self.get_layer(self._layer).register_forward_hook(keep)
        try:
            with torch.enable_grad():
                logits = self.model(x, **kwargs)
        finally:
            handle.remove()
        if not kept or kept[-1].ndim != x.ndim:
            shape = tuple(kept[-1].shape) if kept else "no tensor"
            raise UsageError(
                f"Layer {self._layer} gives {shape}; expected a map of shape (1, features, *spatial) with "
                f"{x.ndim - 2} spatial axes. Choose another layer."
            )
        self.score = torch.zeros((), device=logits.device)
        gradient = self._gradient(logits[:, class_idx].sum(), kept[-1])
        scale = gradient.abs().max()
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))
        return logits.detach(), (kept[-1].detach() * scale,), (gradient / scale,)

    def _gradient(self, score: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        found = torch.autograd.grad(score, output, allow_unused=True)[0] if score.requires_grad else None
        if found is None:
            raise UsageError(
                f"The network's answer does not depend on layer {self._layer}; choose another layer."
            )
        return found
