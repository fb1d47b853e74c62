"""Samples an image on a grid with parallel axes, one axis after the other, in float32.

Along each axis a sample is a weighted mean of two neighbours. That costs two reads a value and axis, where a grid
sampler reads eight neighbours a voxel and a coordinate for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import permutations
from math import prod

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

CHUNK_BYTES = 2**22
LEAST_PLANES = 2
LAST_AXIS_COST = 2.5
"""Values along the last axis are gathered one by one; along the others whole rows are copied."""


@dataclass(frozen=True, eq=False)
class AxisSamples:
    """Where samples lie along one axis: between which two voxels, and how near the second.

    Args:
        low: First voxel of each sample, shape (samples,), int64.
        high: Second voxel; the same as ``low`` where the sample lies on a voxel.
        weight: Share of the second voxel, in [0, 1), float32.
    """

    low: NDArray[np.int64]
    high: NDArray[np.int64]
    weight: NDArray[np.float32]

    @classmethod
    def at(cls, coordinates: ArrayLike, size: int) -> AxisSamples:
        """Samples at coordinates in voxels, 0 the centre of the first; beyond the ends the end's value holds."""
        places = np.clip(np.asarray(coordinates, dtype=np.float64), 0, size - 1)
        low = np.floor(places).astype(np.int64)
        weight = (places - low).astype(np.float32)
        low, weight = low + (weight >= 1), np.where(weight >= 1, np.float32(0), weight)
        return cls(low, np.minimum(low + (weight > 0), size - 1), weight)

    def __len__(self) -> int:
        return len(self.low)

    @cached_property
    def is_exact(self) -> bool:
        """Whether every sample lies on a voxel, so that values are copied."""
        return not self.weight.any()

    @cached_property
    def is_run(self) -> bool:
        """Whether the samples are successive voxels in ascending order."""
        return self.is_exact and len(self) > 0 and bool((np.diff(self.low) == 1).all())

    def matrix(self, size: int) -> NDArray[np.float32]:
        """Weights of every voxel of an axis, shape (samples, size)."""
        weights = np.zeros((len(self), size), np.float32)
        rows = np.arange(len(self))
        weights[rows, self.low] = 1 - self.weight
        weights[rows, self.high] += self.weight
        return weights

    def part(self, start: int, stop: int, *, origin: int = 0) -> AxisSamples:
        """Samples ``start`` to ``stop - 1``, of an image that begins at voxel ``origin``."""
        return AxisSamples(
            self.low[start:stop] - origin, self.high[start:stop] - origin, self.weight[start:stop]
        )

    def among(self, voxels: NDArray[np.int64]) -> AxisSamples:
        """The same samples where only these voxels, ascending, are left."""
        return AxisSamples(np.searchsorted(voxels, self.low), np.searchsorted(voxels, self.high), self.weight)


def interpolate(values: torch.Tensor, samples: Sequence[AxisSamples | None]) -> torch.Tensor:
    """Sample an image that is small enough to be worked on whole; see :func:`resample` for a large one.

    Args:
        values: Shape (channels, *spatial), floating.
        samples: For every spatial axis; None leaves it as it is.

    Returns:
        Shape (channels, *samples), of the type of ``values``; a view of it where nothing is interpolated.
    """
    before = tuple(values.shape[1:])
    after = tuple(size if one is None else len(one) for size, one in zip(before, samples, strict=True))
    for axis in _cheapest_order(before, after):
        one = samples[axis]
        if one is not None:
            values = _along(values, axis + 1, one)
    return values


def interpolate_tile(values: torch.Tensor, samples: Sequence[AxisSamples]) -> torch.Tensor:
    """Sample a piece of a few tens of voxels an axis; for many channels several times as fast.

    Each axis is a product with a small matrix of weights. A value that is not finite spreads over its tile.

    Args:
        values: Shape (channels, *spatial), floating.
        samples: For every spatial axis.

    Returns:
        Shape (channels, *samples), of the type of ``values``.
    """
    if values.device.type != "cpu" or torch.get_float32_matmul_precision() != "highest":
        return interpolate(values, samples)
    with torch.autocast("cpu", enabled=False):  # else the products are in half precision
        for axis in reversed(range(len(samples))):
            values = _product(values, axis + 1, samples[axis])
    return values


def resample(
    values: torch.Tensor, samples: Sequence[AxisSamples], *, chunk_bytes: int = CHUNK_BYTES
) -> torch.Tensor:
    """Sample an image, some planes of the first axis at a time: beside the result a few planes are held.

    Args:
        values: Shape (channels, *spatial), any type of number.
        samples: For every spatial axis.
        chunk_bytes: Bytes of the planes worked on at one time, about; at least 2 planes.

    Returns:
        Shape (channels, *samples), float32.
    """
    first, *others = samples
    result = torch.empty((values.shape[0], *map(len, samples)), dtype=torch.float32, device=values.device)
    largest = prod(max(size, len(one)) for size, one in zip(values.shape[2:], others, strict=True))
    step = max(LEAST_PLANES, chunk_bytes // max(1, 4 * values.shape[0] * largest))
    for start in range(0, len(first), step):
        part = first.part(start, start + step)
        planes = np.unique(np.concatenate([part.low, part.high]))
        piece = _take_planes(values, planes).to(torch.float32)
        piece = interpolate(piece, [None, *others])
        result[:, start : start + step] = _along(piece, 1, part.among(planes))
    return result


def _take_planes(values: torch.Tensor, planes: NDArray[np.int64]) -> torch.Tensor:
    if planes[-1] - planes[0] + 1 == len(planes):
        return values.narrow(1, int(planes[0]), len(planes))
    return values.index_select(1, torch.from_numpy(planes).to(values.device))


def _along(values: torch.Tensor, dim: int, samples: AxisSamples) -> torch.Tensor:
    """Sample along one dimension."""
    if samples.is_run:
        return values.narrow(dim, int(samples.low[0]), len(samples))
    values = values.contiguous()
    low = _take(values, dim, samples.low)
    if samples.is_exact:
        return low
    shape = [1] * values.ndim
    shape[dim] = len(samples)
    weight = torch.from_numpy(samples.weight).to(values).view(shape)
    return low.lerp_(_take(values, dim, samples.high), weight)


def _product(values: torch.Tensor, dim: int, samples: AxisSamples) -> torch.Tensor:
    """Sample along one dimension by a matrix product."""
    if samples.is_run:
        return values.narrow(dim, int(samples.low[0]), len(samples))
    before, after = values.shape[:dim], values.shape[dim + 1 :]
    matrix = torch.from_numpy(samples.matrix(values.shape[dim])).to(values.dtype)
    if not after:
        return values @ matrix.T
    product = matrix @ values.reshape(prod(before), values.shape[dim], prod(after))
    return product.view(*before, len(samples), *after)


def _take(values: torch.Tensor, dim: int, index: NDArray[np.int64]) -> torch.Tensor:
    """A new tensor of these places; NumPy gathers single values ten times as fast as torch on a CPU."""
    if dim == values.ndim - 1 and values.device.type == "cpu" and values.dtype == torch.float32:
        return torch.from_numpy(np.take(values.detach().numpy(), index, axis=-1))
    return values.index_select(dim, torch.from_numpy(index).to(values.device))


@lru_cache(maxsize=256)
def _cheapest_order(before: tuple[int, ...], after: tuple[int, ...]) -> tuple[int, ...]:
    """The order of axes in which the fewest values are worked out on the way."""

    def cost(order: tuple[int, ...]) -> float:
        sizes = list(before)
        total = 0.0
        for axis in order:
            sizes[axis] = after[axis]
            total += prod(sizes) * (LAST_AXIS_COST if axis == len(before) - 1 else 1)
        return total

    return min(permutations(range(len(before))), key=cost)
