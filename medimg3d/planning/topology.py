"""Patch, poolings and kernels of a U-shaped network, by nnU-Net's rules.

Source: Isensee et al. 2021, doi:10.1038/s41592-020-01008-z; nnunetv2, default_experiment_planner.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

SMALLEST = 4
"""Voxels that an axis keeps at the bottom of the network."""


@dataclass(frozen=True)
class Topology:
    """How a network halves its patch.

    Attributes:
        patch: Voxels along each axis that the network sees.
        strides: Of each level along each axis; the first is 1.
        kernels: Of each level along each axis, 1 or 3.
    """

    patch: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]
    kernels: tuple[tuple[int, ...], ...]

    @property
    def divisors(self) -> tuple[int, ...]:
        """What each axis of the patch is a multiple of."""
        return tuple(
            int(np.prod([stride[axis] for stride in self.strides])) for axis in range(len(self.patch))
        )

    @property
    def num_levels(self) -> int:
        """Levels, the first included."""
        return len(self.strides)

    def with_one_kernel(self) -> Topology:
        """The same levels with one kernel for all, as networks need it that take no kernel a level.

        It is 3 along every axis that some level halves or has a kernel of 3 along, and 1 along the others: a stride of
        2 under a kernel of 1 would drop every other slice unseen.
        """
        mixed = [
            any(kernel[axis] > 1 for kernel in self.kernels) or self.divisors[axis] > 1
            for axis in range(len(self.patch))
        ]
        return replace(self, kernels=(tuple(3 if own else 1 for own in mixed),) * self.num_levels)


def fit_topology(patch: Sequence[float], spacing_mm: Sequence[float], *, max_poolings: int = 5) -> Topology:
    """Halve each axis while it keeps 4 voxels; axes with voxels twice as long as the shortest wait.

    Kernels are 1 along an axis whose voxels are more than twice as long as the shortest, and 3 from the level on
    where they are not. The patch is then widened to a multiple of what the axes are divided by.

    Args:
        patch: Wished size in voxels.
        spacing_mm: Voxel size along each axis; only ratios count.
        max_poolings: Most halvings of an axis.

    Returns:
        Levels, kernels and the widened patch.
    """
    size, spacing = np.array(patch, dtype=float), np.array(spacing_mm, dtype=float)
    axes = range(len(size))
    poolings = [0] * len(size)
    kernels = [[1 if spacing[a] / spacing.min() > 2 else 3 for a in axes]]
    strides = [[1] * len(size)]
    while True:
        free = [a for a in axes if size[a] >= 2 * SMALLEST and poolings[a] < max_poolings]
        if not free:
            break
        shortest = min(spacing[a] for a in free)
        halved = [a for a in free if spacing[a] / shortest <= 2]
        strides.append([2 if a in halved else 1 for a in axes])
        for a in halved:
            size[a] = np.ceil(size[a] / 2)
            spacing[a] *= 2
            poolings[a] += 1
        shortest = spacing.min()
        kernels.append([3 if kernels[-1][a] == 3 or spacing[a] / shortest <= 2 else 1 for a in axes])
    divided = [2**pooling for pooling in poolings]
    widened = tuple(int(np.ceil(patch[a] / divided[a]) * divided[a]) for a in axes)
    return Topology(widened, tuple(map(tuple, strides)), tuple(map(tuple, kernels)))


def even_topology(patch: Sequence[float], *, levels: int) -> Topology:
    """For networks that halve every axis alike: the patch widened to multiples of ``2 ** (levels - 1)``.

    At least two voxels stay at the bottom, since one alone cannot be normalized.
    """
    divisor = 2 ** (levels - 1)
    widened = [int(max(1, np.ceil(size / divisor)) * divisor) for size in patch]
    if set(widened) == {divisor}:
        widened[int(np.argmax(patch))] *= 2
    axes = len(widened)
    strides = ((1,) * axes, *(((2,) * axes,) * (levels - 1)))
    return Topology(tuple(widened), strides, ((3,) * axes,) * levels)


def first_patch(
    median_shape: Sequence[float], spacing_mm: Sequence[float], *, most_voxels: float
) -> tuple[int, ...]:
    """The largest patch worth trying: as long in mm along every axis, no axis longer than the median image.

    Args:
        median_shape: In voxels of the network's images.
        spacing_mm: Their size; only ratios count.
        most_voxels: Upper bound of the product of the axes.

    Returns:
        Voxels along each axis.
    """
    shape, spacing = np.array(median_shape, dtype=float), np.array(spacing_mm, dtype=float)
    free = np.ones(len(shape), dtype=bool)
    patch = shape.copy()
    while free.any():  # what a short axis leaves over, the others may use
        budget = most_voxels / np.prod(patch[~free])
        edge_mm = (budget * np.prod(spacing[free])) ** (1 / free.sum())
        wished = edge_mm / spacing
        short = free & (wished >= shape)
        if not short.any():
            patch[free] = wished[free]
            break
        free &= ~short
    return tuple(int(max(1, round(size))) for size in np.minimum(patch, shape))


def at_least_16_somewhere(patch: Sequence[int]) -> tuple[int, ...]:
    """Small images are padded, so that the network has three levels."""
    sizes = [max(2 * SMALLEST, size) if size >= 5 else size for size in patch]
    longest = sizes.index(max(sizes))
    sizes[longest] = max(4 * SMALLEST, sizes[longest])
    return tuple(sizes)


def shrink(patch: Sequence[int], median_shape: Sequence[float], divisors: Sequence[int]) -> tuple[int, ...]:
    """One step smaller: the axis that covers most of the image loses one multiple of its divisor.

    Returns:
        The smaller patch; the same where no axis can lose anything.
    """
    cover = [size / whole for size, whole in zip(patch, median_shape, strict=True)]
    order = sorted(range(len(patch)), key=lambda axis: -cover[axis])
    for axis in order:
        step = max(divisors[axis], 1)
        if patch[axis] - step >= 2 * SMALLEST:
            return tuple(size - step if a == axis else size for a, size in enumerate(patch))
    return tuple(patch)
