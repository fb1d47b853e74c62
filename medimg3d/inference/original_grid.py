"""The original grid in tiles, each with the scores on the model's grid that it is interpolated from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray

from medimg3d.geometry.axis_map import TOLERANCE_VOXELS, AxisMap
from medimg3d.geometry.linear_sampling import AxisSamples, interpolate_tile
from medimg3d.inference.block_seams import BlockSeams, SeamedBlock
from medimg3d.inference.streaming import Block

TILE_VOXELS = ((8, 96), (32, 64), (2**16, 32))
"""Edge of a tile in voxels of the original grid, at most, for up to so many classes: what the cache holds."""
HALF_VOXEL = 0.5 + TOLERANCE_VOXELS

Cropped = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class OriginalAxis:
    """Samples along one axis of the original grid.

    Args:
        samples: On the model's axis, for every original voxel.
        gain: What is left of the score, 0 to 1, float32: less than 1 beyond a crop.
        start: First voxel that the model's grid reaches.
        stop: Voxel after the last one.
        scale: The model's voxels per original voxel, without sign.
    """

    samples: AxisSamples
    gain: NDArray[np.float32]
    start: int
    stop: int
    scale: float

    @classmethod
    def of(
        cls, axis_map: AxisMap, axis: int, cropped: tuple[int, int] | None, box: tuple[int, int] | None
    ) -> OriginalAxis:
        """One original axis; ``cropped`` and ``box`` are the pairs of its own."""
        size = axis_map.model_shape[axis_map.model_axis[axis]]
        places = axis_map.coordinates(axis)
        if cropped is None:
            gain = ((places >= -HALF_VOXEL) & (places <= size - 1 + HALF_VOXEL)).astype(np.float32)
        else:
            places = np.clip(places, -cropped[0], size - 1 + cropped[1])
            beyond = np.maximum(np.maximum(-places, places - (size - 1)), 0)
            gain = np.where(beyond < 1 - TOLERANCE_VOXELS, 1 - beyond, 0).astype(np.float32)
        if box is not None:
            gain[: box[0]] = 0
            gain[box[1] :] = 0
        reached = np.flatnonzero(gain)
        start, stop = (int(reached[0]), int(reached[-1]) + 1) if len(reached) else (0, 0)
        return cls(AxisSamples.at(places, size), gain, start, stop, abs(axis_map.scale[axis]))

    def owned(self, low: int, high: int, edge: int) -> Iterator[slice]:
        """Tiles of the voxels whose second neighbour is one of the model's voxels ``low`` to ``high - 1``."""
        second = self.samples.high[self.start : self.stop]
        inside = np.flatnonzero((second >= low) & (second < high))
        if len(inside):
            first, last = self.start + int(inside[0]), self.start + int(inside[-1]) + 1
            step = int(np.clip(edge / 2 / self.scale, 1, edge))  # not too many of the model's voxels either
            for at in range(first, last, step):
                yield slice(at, min(at + step, last))

    def reads(self, voxels: slice) -> tuple[int, int]:
        """Voxels of the model's axis that some original voxels lie between."""
        low, high = self.samples.low[voxels], self.samples.high[voxels]
        return int(min(low[0], low[-1])), int(max(high[0], high[-1])) + 1


@dataclass(frozen=True)
class Tile:
    """A piece of the original grid, and what it is interpolated from.

    Args:
        place: Where it lies on the original grid.
        scores: Shape (classes, ...) on the model's grid, in the order of the original axes.
        samples: Along every axis of ``scores``.
        gain: Along every original axis.
    """

    place: tuple[slice, ...]
    scores: torch.Tensor
    samples: tuple[AxisSamples, ...]
    gain: tuple[NDArray[np.float32], ...]

    def values(self, classes: Sequence[int] | None = None) -> torch.Tensor:
        """Interpolated scores of some classes or all, shape (classes, *tile)."""
        scores = self.scores if classes is None else self.scores[list(classes)]
        values = interpolate_tile(scores, self.samples)
        for along, gain in enumerate(self.gain):
            if (gain < 1).any():
                shape = [-1 if along == dim - 1 else 1 for dim in range(values.ndim)]
                values = values * torch.from_numpy(gain).to(values.device).view(shape)
        return values


@dataclass(frozen=True)
class OriginalGrid:
    """The original grid on the model's.

    Args:
        axis_map: The one on the other.
        axes: Samples along every original axis.
    """

    axis_map: AxisMap
    axes: tuple[OriginalAxis, ...]

    @classmethod
    def of(
        cls, axis_map: AxisMap, cropped: Cropped | None, box: Sequence[tuple[int, int]] | None
    ) -> OriginalGrid:
        """The grid, with what was cropped; arguments as in :func:`restore_blocks.restore_labels`.

        Raises:
            ValueError: ``cropped`` or ``box`` is for another number of axes.
        """
        for name, given in (("cropped", cropped), ("box", box)):
            if given is not None and len(given) != len(axis_map.original_shape):
                raise ValueError(f"{name} has {len(given)} axes; expected {len(axis_map.original_shape)}")
        return cls(
            axis_map,
            tuple(
                OriginalAxis.of(
                    axis_map,
                    axis,
                    None if cropped is None else cropped[model_axis],
                    None if box is None else box[axis],
                )
                for axis, model_axis in enumerate(axis_map.model_axis)
            ),
        )

    @property
    def is_exact(self) -> bool:
        """Whether every original voxel is one of the model's."""
        return all(one.samples.is_exact for one in self.axes)

    def tiles(
        self, blocks: Iterable[Block], axis: int | None, *, softmax: bool, sigmoid: bool
    ) -> Iterator[Tile]:
        """Every piece of the original grid that the model's reaches, once, as soon as its scores are there.

        Raises:
            ValueError: The blocks do not fit the model's grid or each other, or both activations are asked for.
        """
        for ready in self.ready_tiles(blocks, axis, softmax=softmax, sigmoid=sigmoid):
            for cut in ready:
                yield cut()

    def ready_tiles(
        self, blocks: Iterable[Block], axis: int | None, *, softmax: bool, sigmoid: bool
    ) -> Iterator[list[Callable[[], Tile]]]:
        """The same block by block: what cuts each tile, to be called in any thread before the next block is drawn.

        Raises:
            ValueError: As :meth:`tiles`.
        """
        if softmax and sigmoid:
            raise ValueError("softmax and sigmoid are both asked for; expected one of them, or none.")
        seams = BlockSeams(self.axis_map.model_shape, axis)
        done = 0
        for block in blocks:
            seamed = seams.extend(block)
            cut = partial(self._cut, seamed, softmax=softmax, sigmoid=sigmoid)
            yield [partial(cut, place) for place in self._places_of(seamed)]
            done += prod(block.values.shape[1:])
            seams.keep(seamed)
            del block, seamed, cut  # not held while the next one is worked out
        expected = prod(self.axis_map.model_shape)
        if done != expected:
            raise ValueError(
                f"The blocks hold {done} voxels; expected the {expected} of the image, each once."
            )

    def _places_of(self, seamed: SeamedBlock) -> Iterator[tuple[slice, ...]]:
        """Where the tiles lie that a block completes: those whose second neighbours it holds."""
        block = seamed.block
        classes = block.values.shape[0]
        edge = next((edge for most, edge in TILE_VOXELS if classes <= most), TILE_VOXELS[-1][1])
        return product(
            *(
                list(one.owned(block.start[m], block.stop[m], edge))
                for one, m in zip(self.axes, self.axis_map.model_axis, strict=True)
            )
        )

    def _cut(self, seamed: SeamedBlock, place: tuple[slice, ...], *, softmax: bool, sigmoid: bool) -> Tile:
        model_axis = self.axis_map.model_axis
        box = [(0, 0)] * len(place)
        for one, m, voxels in zip(self.axes, model_axis, place, strict=True):
            box[m] = one.reads(voxels)
        tile = Tile(
            place,
            seamed.cut(tuple(box)).permute([0, *(m + 1 for m in model_axis)]),
            tuple(
                one.samples.part(voxels.start, voxels.stop, origin=box[m][0])
                for one, m, voxels in zip(self.axes, model_axis, place, strict=True)
            ),
            tuple(one.gain[voxels] for one, voxels in zip(self.axes, place, strict=True)),
        )
        return _with_activation(tile, softmax=softmax, sigmoid=sigmoid)


def _with_activation(tile: Tile, *, softmax: bool, sigmoid: bool) -> Tile:
    if softmax:
        return Tile(tile.place, torch.softmax(tile.scores, dim=0), tile.samples, tile.gain)
    if sigmoid:
        return Tile(tile.place, torch.sigmoid(tile.scores), tile.samples, tile.gain)
    return tile
