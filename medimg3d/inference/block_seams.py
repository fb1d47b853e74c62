"""Finished blocks with the voxels just before them, so that what lies between two blocks can be interpolated.

Blocks come in the order of the streaming predictor: columns one after the other, each in ascending blocks along the
streaming axis. Of each block its last plane along the streaming axis is kept for the next one, and where the image
is cut in columns, the last plane along each other axis for the neighbouring column: a few planes in all, never
a volume.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from medimg3d.inference.sliding_window import Box
from medimg3d.inference.streaming import Block


@dataclass(frozen=True)
class SeamedBlock:
    """A block, one voxel longer at the low end of every axis that has a block before it.

    Args:
        block: The block itself.
        start: First voxel along every axis, with the kept planes.
        parts: The block and the kept planes, that together fill the box from ``start`` once.
    """

    block: Block
    start: tuple[int, ...]
    parts: tuple[Block, ...]

    def cut(self, box: Box) -> torch.Tensor:
        """A copy of the values in a box that lies within, shape (classes, *box)."""
        values = self.block.values
        piece = values.new_empty((values.shape[0], *(stop - start for start, stop in box)))
        for part in self.parts:
            edges = [
                (max(low, start), min(high, stop))
                for (low, high), start, stop in zip(box, part.start, part.stop, strict=True)
            ]
            if all(low < high for low, high in edges):
                _inside(piece, edges, [low for low, _ in box]).copy_(_inside(part.values, edges, part.start))
        return piece


class BlockSeams:
    """Keeps what later blocks need of earlier ones.

    Args:
        spatial_size: Voxels of the image that the blocks make up.
        axis: The streaming axis; if None, the one along which the first block is cut.

    Raises:
        ValueError: There is no such axis.
    """

    def __init__(self, spatial_size: Sequence[int], axis: int | None = None) -> None:
        if axis is not None and not 0 <= axis < len(spatial_size):
            raise ValueError(f"axis must be in [0, {len(spatial_size) - 1}], got {axis}")
        self.spatial_size = tuple(spatial_size)
        self.axis = axis
        self._order: list[int] = []
        self._kept: dict[int, Block] = {}
        self._next = 0

    def extend(self, block: Block) -> SeamedBlock:
        """The block with the planes before it.

        Raises:
            ValueError: The block does not fit the image, or does not follow the one before.
        """
        self._check(block)
        start = list(block.start)
        parts = [block]
        for axis in self._order:
            if block.start[axis] == 0:
                continue
            low = [*start]
            low[axis] -= 1
            high = [*block.stop]
            high[axis] = low[axis] + 1
            parts.append(self._kept_part(axis, tuple(low), tuple(high)))
            start[axis] -= 1
        return SeamedBlock(block, tuple(start), tuple(parts))

    def keep(self, seamed: SeamedBlock) -> None:
        """Keep the last planes of a block that is done with, in place of those that were before it."""
        block = seamed.block
        for at in reversed(range(len(self._order))):  # a plane is read by later axes before it is replaced
            axis = self._order[at]
            if block.stop[axis] == self.spatial_size[axis]:
                if at == len(self._order) - 1:
                    self._kept.pop(axis, None)  # the next block begins another column
                continue
            edges = list(zip(block.start, block.stop, strict=True))
            for earlier in self._order[:at]:
                edges[earlier] = (seamed.start[earlier], block.stop[earlier])
            edges[axis] = (block.stop[axis] - 1, block.stop[axis])
            plane = seamed.cut(tuple(edges))
            if at == len(self._order) - 1:
                self._kept[axis] = _block(edges, plane)
            else:
                _inside(self._room(at, edges, plane), edges, [low for low, _ in self._span(at, edges)]).copy_(
                    plane
                )

    def _span(self, at: int, edges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """What is kept along one axis: all of the image along the axes that change faster."""
        faster = self._order[at + 1 :]
        return [
            (0, self.spatial_size[along]) if along in faster else edge for along, edge in enumerate(edges)
        ]

    def _room(self, at: int, edges: Sequence[tuple[int, int]], plane: torch.Tensor) -> torch.Tensor:
        """Where the plane goes: the values kept so far if they cover the same rows, else new ones."""
        axis = self._order[at]
        span = self._span(at, edges)
        shape = (plane.shape[0], *(stop - start for start, stop in span))
        kept = self._kept.get(axis)
        values = plane.new_empty(shape) if kept is None or kept.values.shape != shape else kept.values
        self._kept[axis] = _block(span, values)
        return values

    def _kept_part(self, axis: int, low: tuple[int, ...], high: tuple[int, ...]) -> Block:
        kept = self._kept[axis]
        origin = [
            at if along == axis else start
            for along, (at, start) in enumerate(zip(low, kept.start, strict=True))
        ]
        edges = list(zip(low, high, strict=True))
        return Block(low, high, _inside(kept.values, edges, origin))

    def _check(self, block: Block) -> None:
        inside = all(
            0 <= start < stop <= size
            for start, stop, size in zip(block.start, block.stop, self.spatial_size, strict=True)
        )
        extent = tuple(stop - start for start, stop in zip(block.start, block.stop, strict=True))
        if not inside or extent != tuple(block.values.shape[1:]):
            raise ValueError(
                f"A block of {tuple(block.values.shape[1:])} voxels at {block.start} does not fit its place in "
                f"an image of {self.spatial_size}."
            )
        if not self._order:
            self._set_order(extent)
        axis = self._order[-1]
        missing = [one for one in self._order[:-1] if block.start[one] > 0 and one not in self._kept]
        if block.start[axis] != self._next or missing:
            raise ValueError(
                f"A block begins at {block.start}; expected voxel {self._next} along axis {axis}, and columns "
                "in ascending order: pass the blocks in the order of stream_windows."
            )
        self._next = block.stop[axis] % self.spatial_size[axis]

    def _set_order(self, extent: tuple[int, ...]) -> None:
        """The axes that are cut, the slowest first."""
        cut = [
            one for one, (have, size) in enumerate(zip(extent, self.spatial_size, strict=True)) if have < size
        ]
        if self.axis is None and len(cut) > 1:
            raise ValueError(
                f"The first block is cut along axes {cut}: pass axis, the one along which blocks follow each other."
            )
        last = self.axis if self.axis is not None else (cut[0] if cut else 0)
        self._order = [*(one for one in cut if one != last), last]


def _block(edges: Sequence[tuple[int, int]], values: torch.Tensor) -> Block:
    return Block(tuple(low for low, _ in edges), tuple(high for _, high in edges), values)


def _inside(values: torch.Tensor, edges: Sequence[tuple[int, int]], origin: Sequence[int]) -> torch.Tensor:
    """The part of an array that begins at ``origin``."""
    inside = (slice(low - at, high - at) for (low, high), at in zip(edges, origin, strict=True))
    place = (slice(None), *inside)
    return values[place]
