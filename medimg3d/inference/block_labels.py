"""The label map of a prediction that comes in blocks: no buffer holds all classes of the volume."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod

import torch

from medimg3d.inference.streaming import Block

LARGEST = 256


def label_map(
    blocks: Iterable[Block], spatial_size: Sequence[int], *, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """The class with the highest value at every voxel; of equals the first.

    Raw outputs, probabilities and their logarithms give the same map. Held are the map, 1 byte a voxel, and one
    block with its indices, 8 bytes a voxel of the block.

    Args:
        blocks: Finished parts that cover every voxel once, values of shape (classes, ...).
        spatial_size: Voxels of the image along its axes.
        device: Where the map lies.

    Returns:
        Labels, shape ``spatial_size``, uint8.

    Raises:
        ValueError: The blocks hold more or fewer voxels than the image, go over its border, have one class or
            more than 256.
    """
    labels = torch.zeros(tuple(spatial_size), dtype=torch.uint8, device=device)
    covered = 0
    for block in blocks:
        _check(block, spatial_size)
        labels[block.slices] = block.values.argmax(dim=0).to(device=device, dtype=torch.uint8)
        covered += prod(block.values.shape[1:])
    if covered != labels.numel():
        raise ValueError(
            f"The blocks hold {covered} voxels; expected the {labels.numel()} of the image, each once."
        )
    return labels


def _check(block: Block, spatial_size: Sequence[int]) -> None:
    classes = block.values.shape[0]
    if not 1 < classes <= LARGEST:
        raise ValueError(
            f"The prediction has {classes} classes; a label map by highest value needs 2 to {LARGEST}. "
            "Threshold a single class instead."
        )
    inside = all(
        0 <= start < stop <= size
        for start, stop, size in zip(block.start, block.stop, spatial_size, strict=True)
    )
    size = tuple(stop - start for start, stop in zip(block.start, block.stop, strict=True))
    if not inside or size != tuple(block.values.shape[1:]):
        raise ValueError(
            f"A block of {tuple(block.values.shape[1:])} voxels at {block.start} does not fit its place in an "
            f"image of {tuple(spatial_size)}."
        )
