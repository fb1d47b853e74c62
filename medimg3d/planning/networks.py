"""The networks that a plan can choose, as MONAI config blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from medimg3d.planning.topology import Topology, even_topology, fit_topology

_LEVELS = {"segresnet": 4, "mednext": 5, "swinunetr": 6}
"""Levels of the networks that halve every axis alike."""

_WIDTHS = {
    "dynunet": (16, 24, 32, 48, 64),
    "unet": (16, 24, 32, 48, 64),
    "segresnet": (8, 16, 24, 32, 48),
    "mednext": (16, 24, 32, 48),
    "swinunetr": (12, 24, 36, 48),
    "densenet": (32, 48, 64),
}

WIDTH_STEPS = {"segresnet": 8, "swinunetr": 12}
"""What the filters of the first level must be a multiple of: groups of a normalization, heads of an attention."""

MOST_FILTERS = {2: 16, 3: 10}
"""Filters of the lowest levels, as a multiple of the first level's (nnU-Net: 512 and 320 for 32)."""


def divisor_of(network: str) -> int:
    """What every axis of a patch must be a multiple of; 1 for networks that leave a short axis alone."""
    return 2 ** (_LEVELS[network] - 1) if network in _LEVELS else 1


def has_own_depth(network: str) -> bool:
    """Whether its levels are given, however often the axes of a patch could be halved."""
    return network in _LEVELS


def widths_of(network: str) -> tuple[int, ...]:
    """Filters of the first level that may be chosen, ascending."""
    return _WIDTHS[network]


def first_width(network: str, device: str) -> int:
    """Filters of the first level: what published networks have on a GPU, about half of it on a CPU."""
    on_gpu = {"segresnet": 32, "swinunetr": 24, "densenet": 64}
    on_cpu = {"swinunetr": 12, "densenet": 32}
    return on_gpu.get(network, 32) if device == "cuda" else on_cpu.get(network, 16)


def has_heads(network: str, topology: Topology, *, wished: bool) -> bool:
    """Whether the network is trained with further heads (deep supervision)."""
    return wished and network == "dynunet" and topology.num_levels >= 3


def topology_of(
    network: str, patch: Sequence[float], spacing_mm: Sequence[float], *, max_poolings: int
) -> Topology:
    """Levels of a network for a patch; the patch is widened to what it can take.

    MONAI's UNet takes one kernel for all its levels, DynUNet one for each.
    """
    if network in _LEVELS:
        return even_topology(patch, levels=_LEVELS[network])
    topology = fit_topology(patch, spacing_mm, max_poolings=max_poolings)
    return topology.with_one_kernel() if network == "unet" else topology


def network_block(
    network: str, topology: Topology, *, width: int, in_channels: int, deep_supervision: bool
) -> dict[str, Any]:
    """The block ``network_def`` of a bundle's configs.

    On thick slices DynUNet has kernels of 1 across them until voxels are about cubes. MONAI's UNet has one kernel on
    all levels, transposed convolutions included: 3 along every axis that is halved somewhere, so that it mixes slices
    from the first level on and has more weights. Size stays: both ways MONAI pads a kernel of 3 by 1, and a transposed
    one by ``stride - 1`` more at the end.

    Args:
        network: One of ``dynunet``, ``unet``, ``segresnet``, ``mednext``, ``swinunetr``.
        topology: Levels of the network.
        width: Filters of the first level.
        in_channels: Channels of the image.
        deep_supervision: Further heads in training, where the network has them.

    Returns:
        The block; ``out_channels`` refers to ``@num_classes``.
    """
    common = {"spatial_dims": len(topology.patch), "in_channels": in_channels, "out_channels": "@num_classes"}
    most = width * MOST_FILTERS[len(topology.patch)]
    filters = [min(width * 2**level, most) for level in range(topology.num_levels)]
    strides = [_plain(stride) for stride in topology.strides]
    if network == "dynunet":
        heads = has_heads(network, topology, wished=deep_supervision)
        return {
            "_target_": "DynUNet",
            **common,
            "kernel_size": [_plain(kernel) for kernel in topology.kernels],
            "strides": strides,
            "upsample_kernel_size": strides[1:],
            "filters": filters,
            "norm_name": ["INSTANCE", {"affine": True}],
            "deep_supervision": heads,
            **({"deep_supr_num": topology.num_levels - 2} if heads else {}),
        }
    if network == "unet":
        kernel = _plain(topology.with_one_kernel().kernels[0])
        return {
            "_target_": "UNet",
            **common,
            "channels": filters,
            "strides": strides[1:],
            "kernel_size": kernel,
            "up_kernel_size": kernel,
            "num_res_units": 2,
            "norm": ["INSTANCE", {"affine": True}],
        }
    if network == "segresnet":
        return {
            "_target_": "SegResNet",
            **common,
            "init_filters": width,
            "blocks_down": [1, 2, 2, 4],
            "blocks_up": [1, 1, 1],
        }
    if network == "mednext":
        return {
            "_target_": "MedNeXt",
            **common,
            "init_filters": width,
            "kernel_size": 3,
            "use_residual_connection": True,
        }
    return {"_target_": "SwinUNETR", **common, "feature_size": width, "use_v2": True}


def classifier_block(spatial_dims: int, *, width: int, in_channels: int) -> dict[str, Any]:
    """The block ``architecture`` of a classifier: DenseNet121 in 2D, a smaller DenseNet in 3D."""
    common = {"spatial_dims": spatial_dims, "in_channels": in_channels, "out_channels": "@num_classes"}
    if spatial_dims == 2:
        return {"_target_": "DenseNet121", **common, "dropout_prob": 0.0}
    blocks = [3, 6, 12, 8]
    return {
        "_target_": "DenseNet",
        **common,
        "init_features": width,
        "growth_rate": width // 2,
        "block_config": blocks,
    }


def learning_rate_of(network: str) -> float:
    """First learning rate of AdamW."""
    return {"swinunetr": 5e-4, "mednext": 1e-3, "densenet": 1e-3}.get(network, 2e-3)


def _plain(sizes: Sequence[int]) -> int | list[int]:
    """One number where all axes are alike."""
    return sizes[0] if len(set(sizes)) == 1 else list(sizes)


def slice_topology(topology: Topology, axis: int | None) -> tuple[int, ...]:
    """The patch on the images' own axes: 1 voxel along the axis that slices are cut across."""
    if axis is None:
        return topology.patch
    patch = list(topology.patch)
    patch.insert(axis, 1)
    return tuple(patch)


def smallest_input(topology: Topology) -> list[str]:
    """Sizes that the network takes, as metadata writes them: ``16*n``; n = 1 leaves two voxels at the bottom."""
    return [f"{2 * divisor}*n" for divisor in topology.divisors]


def voxels_of(patch: Sequence[int]) -> int:
    """Product of the axes."""
    return int(np.prod(patch))
