"""Small networks with fixed random weights, of the families that the bundles use."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch
from monai.networks.nets import DynUNet, UNet
from torch import nn


def tiny_unet(dims: int = 3, *, channels: int = 1, classes: int = 3, seed: int = 0) -> nn.Module:
    """A UNet of two levels; windows of a multiple of 2 voxels."""
    torch.manual_seed(seed)
    return UNet(dims, channels, classes, (4, 8), (2,)).eval()


def tiny_dynunet(seed: int = 0) -> nn.Module:
    """A 3D DynUNet trained with two further heads (it gives one in its evaluation mode)."""
    torch.manual_seed(seed)
    return DynUNet(
        3,
        1,
        3,
        kernel_size=[3] * 4,
        strides=[1, 2, 2, 2],
        upsample_kernel_size=[2] * 3,
        filters=[4, 8, 16, 32],
        norm_name=("INSTANCE", {"affine": True}),
        deep_supervision=True,
        deep_supr_num=2,
    ).eval()


class Scaled(nn.Module):
    """Three classes, each the image times a number: outputs can be worked out by hand."""

    def __init__(self, factors: tuple[float, ...] = (1.0, 2.0, -1.0)) -> None:
        super().__init__()
        self.factors = nn.Parameter(torch.tensor(factors))

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        return windows[:, :1] * self.factors.view(1, -1, *[1] * (windows.ndim - 2))


def needs_installed(*packages: str) -> None:
    """Skip the test where a package is not installed; unlike ``pytest.importorskip`` it loads none of them."""
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        pytest.skip(f"{missing[0]} is not installed")
