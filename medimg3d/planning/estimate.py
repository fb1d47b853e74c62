"""What a network needs in memory, estimated from the sizes of its layers: where to begin measuring."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

BASE_GB = 0.5
"""Of a process with its libraries."""

KEPT = 1.3
"""Bytes kept for the backward pass and scratch space, as a multiple of the layers' outputs in float32."""


def estimate_gb(network: Mapping[str, Any], shape: Sequence[int], *, num_classes: int) -> float:
    """Peak memory of a training step, in GB.

    Args:
        network: Config block of the network.
        shape: Shape of a batch, (B, C, I, J[, K]).
        num_classes: What ``@num_classes`` stands for.

    Returns:
        Good to about a third; ratios between batches and patches are better.
    """
    outputs, parameters = count_numbers(network, shape, num_classes=num_classes)
    # weights, gradients, AdamW's two averages, the moving average
    return BASE_GB + (KEPT * 4 * outputs + 5 * 4 * parameters) / 1e9


def whole_image_gb(voxels: int, *, channels: int, num_classes: int, mirrored: bool) -> float:
    """Memory of a prediction that holds a whole image with all its classes, in GB, the network's own left out.

    So do MONAI's sliding window, and a bundle's validation and plain inference with it; ``medimg3d predict`` does not.
    Measured with 3 and 8 classes on 160 x 160 x 128 voxels: 2.6 and 2.0 copies of all classes, 3.3 and 2.9 where mirror
    images are averaged.

    Args:
        voxels: Of the image as the network sees it.
        channels: Of the image.
        num_classes: Outputs of the network.
        mirrored: Whether mirror images are averaged.
    """
    copies = (3 if mirrored else 2) * num_classes + 1 + channels
    return BASE_GB + 4 * voxels * copies / 1e9


def inverted_image_gb(own_voxels: int, resampled_voxels: int, *, num_classes: int) -> float:
    """Memory in which MONAI's ``Invertd`` brings a prediction back onto the voxels of its file, in GB.

    Its inverse of ``Spacing`` resamples the scores of all classes. ``spatial_resample`` has them in float32 (4 bytes)
    and, as it computes in float64, in 8 bytes more, before and after: 12 a class on either grid. The places that it
    takes them from are three float64 for each voxel of the file: 24. Not all of it is held at once, and the loop has
    scores of its own: from 80³ to 160³ voxels, 4 and 12 classes took 0.25 and 0.60 GB, where this says 0.32 and 0.76.

    Args:
        own_voxels: Of the image as it stands in its file.
        resampled_voxels: Of the image as the network sees it.
        num_classes: Outputs of the network.
    """
    needed = own_voxels * (24 + 12 * num_classes) + resampled_voxels * 12 * num_classes
    return BASE_GB + needed / 1e9


def weights_mb(network: Mapping[str, Any], *, num_classes: int) -> float:
    """Size of the network's weights in float32, in MB (10⁶ bytes)."""
    built = _build(json.dumps(network), num_classes)
    return 4 * sum(parameter.numel() for parameter in built.parameters()) / 1e6


def count_numbers(network: Mapping[str, Any], shape: Sequence[int], *, num_classes: int) -> tuple[int, int]:
    """Numbers that all layers put out for one batch, and numbers that the network learns.

    Only the weights are allocated: images and outputs are shapes without values (torch's device ``meta``).
    """
    outputs, parameters = _count_of_two(json.dumps(network), tuple(shape[1:]), num_classes)
    return outputs * shape[0] // 2, parameters


@lru_cache(maxsize=256)
def _count_of_two(network: str, shape: tuple[int, ...], num_classes: int) -> tuple[int, int]:
    """For a batch of two, since some layers refuse one."""
    import torch

    outputs = 0

    def add(_module: Any, _inputs: Any, output: Any) -> None:
        nonlocal outputs
        for one in output if isinstance(output, (list, tuple)) else [output]:
            outputs += one.numel() if torch.is_tensor(one) else 0

    built = _build(network, num_classes).to("meta").train()
    for module in built.modules():
        if not list(module.children()):
            module.register_forward_hook(add)
    with torch.no_grad(), torch.device("meta"):
        built(torch.empty((2, *shape)))
    return outputs, sum(parameter.numel() for parameter in built.parameters())


def _build(network: str, num_classes: int) -> Any:
    import torch
    from monai.bundle import ConfigParser

    with torch.random.fork_rng(devices=[]):
        parser = ConfigParser({"num_classes": num_classes, "network": json.loads(network)})
        return parser.get_parsed_content("network")
