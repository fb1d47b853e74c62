# Copied from medimg3d/networks/contrastive.py; do not edit here.
# Source sha256: d829d2a6b3ae0419ac91bc2db40d67dae6ff670501966b78c1aed27c852ba63b
"""Self-supervised pretraining: two augmented views of one image should lie together, of two images apart.

Bundles carry a copy of this file: it imports nothing of medimg3d. The loss is MONAI's ``ContrastiveLoss``.

Source: Chen et al. 2020, A Simple Framework for Contrastive Learning of Visual Representations (SimCLR),
arXiv:2002.05709.
"""

from __future__ import annotations

import torch
from torch import nn

WIDTH = 128


class ContrastiveNetwork(nn.Module):
    """A classification network whose head is replaced by a small projection, for views instead of images.

    Args:
        network: The network; its head is taken off.
        head: Name of its last linear layer.
        spatial_dims: 2 or 3.
        width: Length of the projected vectors.

    Raises:
        ValueError: The head is no linear layer.
    """

    def __init__(
        self, network: nn.Module, head: str = "class_layers.out", spatial_dims: int = 2, width: int = WIDTH
    ) -> None:
        super().__init__()
        parent_name, _, name = head.rpartition(".")
        parent = network.get_submodule(parent_name)
        layer = getattr(parent, name, None)
        if not isinstance(layer, nn.Linear):
            raise ValueError(f"The network's layer {head!r} is {type(layer).__name__}; expected Linear.")
        setattr(parent, name, nn.Identity())
        self.backbone = network
        self.projection = nn.Sequential(
            nn.Linear(layer.in_features, layer.in_features), nn.ReLU(), nn.Linear(layer.in_features, width)
        )
        self.spatial_dims = spatial_dims

    def forward(self, views: torch.Tensor) -> torch.Tensor:
        """Project each view.

        Args:
            views: Shape (B, views, C, *spatial); (B, C, *spatial) counts as one view.

        Returns:
            Shape (B, views, width).
        """
        if views.ndim == self.spatial_dims + 2:
            views = views.unsqueeze(1)
        vectors = self.projection(self.backbone(views.flatten(0, 1)))
        projected: torch.Tensor = vectors.unflatten(0, views.shape[:2])
        return projected


class ViewsLoss(nn.Module):
    """A contrastive loss of two batches, for batches of pairs; targets do not count.

    Args:
        loss: Called with two batches of vectors, shape (B, width) each, such as MONAI's ``ContrastiveLoss``.
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, views: torch.Tensor, targets: torch.Tensor | None = None) -> torch.Tensor:
        """The loss of ``views``, shape (B, 2, width)."""
        value: torch.Tensor = self.loss(views[:, 0].float(), views[:, 1].float())
        return value
