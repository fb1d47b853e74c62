"""A classifier whose reasons are known, and bundles made of it: each class is the brightness of one corner."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import nn

CLASSES = ("last", "first")


class Corners(nn.Module):
    """Two maps of the image: what lies in its last corner (the high halves of all axes), and in its first."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        gates = torch.zeros(2, *shape)
        gates[(0, *(slice(size // 2, None) for size in shape))] = 1
        gates[(1, *(slice(0, size // 2) for size in shape))] = 1
        self.gates = nn.Parameter(gates)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image * self.gates


class CornerNetwork(nn.Module):
    """Logit 0: mean over the image of what is in its last corner; logit 1: of what is in its first corner."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.corners = Corners(tuple(shape))
        self.relu = nn.ReLU(inplace=True)
        self.out = nn.Linear(2, 2, bias=False)
        with torch.no_grad():
            self.out.weight.copy_(torch.eye(2))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.out(self.relu(self.corners(image)).flatten(2).mean(dim=2))


def bright_corners(shape: tuple[int, ...], *, first: float = 1.0, last: float = 0.0) -> torch.Tensor:
    """Zeros with one value in the first corner and one in the last; shape (1, 1, *shape)."""
    image = torch.zeros(1, 1, *shape)
    image[(0, 0, *(slice(0, size // 2) for size in shape))] = first
    image[(0, 0, *(slice(size // 2, None) for size in shape))] = last
    return image


def write_corner_bundle(folder: Path, shape: tuple[int, ...]) -> Path:
    """A classification bundle of :class:`CornerNetwork` on images resized to ``shape``; films if it is 2D."""
    reader = {"reader": {"_target_": "medimg3d.data.film_reader.FilmReader"}} if len(shape) == 2 else {}
    linear = "bilinear" if len(shape) == 2 else "trilinear"
    steps = [
        {"_target_": "LoadImaged", "keys": "image", **reader},
        {"_target_": "EnsureChannelFirstd", "keys": "image"},
        {"_target_": "ScaleIntensityd", "keys": "image"},
        {"_target_": "Resized", "keys": "image", "spatial_size": list(shape), "mode": linear},
    ]
    config = {
        "imports": ["$import torch"],
        "bundle_root": ".",
        "checkpoint": "models/model.pt",
        "device": "$torch.device('cpu')",
        "preprocessing": {"_target_": "Compose", "transforms": steps},
        "network_def": {"_target_": "corner_network.CornerNetwork", "shape": list(shape)},
        "inferer": {"_target_": "SimpleInferer"},
    }
    pred = {"type": "probabilities", "num_channels": 2, "channel_def": dict(zip("01", CLASSES, strict=True))}
    image = {"num_channels": 1, "spatial_shape": list(shape)}
    data_format = {"inputs": {"image": image}, "outputs": {"pred": pred}}
    metadata = {"version": "0.1.0", "network_data_format": data_format}
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    (folder / "configs" / "inference.json").write_text(json.dumps(config))
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata))
    torch.save(CornerNetwork(shape).state_dict(), folder / "models" / "model.pt")
    return folder
