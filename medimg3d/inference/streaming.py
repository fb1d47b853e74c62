"""Whole-volume prediction that keeps only the planes that windows still reach.

MONAI's sliding window holds every class of the whole volume in float32 until the last window is done. Here the
windows are walked slab by slab along one axis, and each block of planes is given away as soon as no later window
touches it: memory follows the plane and the window, not the length of the volume. The result is the same to the
rounding of float32 sums.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations, groupby, product
from operator import itemgetter
from typing import Any

import torch
import torch.nn.functional as F

from medimg3d.inference.first_head import first_head
from medimg3d.inference.memory_need import Averaging, default_block, least_memory_axis
from medimg3d.inference.sliding_window import AxisWindows, Box, SlidingWindow, regions, ring_shape
from medimg3d.inference.window_sums import WindowSums

Network = Callable[[torch.Tensor], Any]
Progress = Callable[[int, int], None]
_Windows = tuple[int, list[tuple[int, ...]]]
"""Number of a pass, and the first voxels of windows of it."""
_Batch = list[_Windows]
"""What goes into the network together."""


@dataclass(frozen=True)
class Block:
    """A finished part of the prediction.

    Args:
        start: First voxel along every axis of the image.
        stop: Voxel after the last one along every axis.
        values: Prediction, shape (classes, *(stop - start)), float32, on the buffer's device; the consumer's own.
    """

    start: tuple[int, ...]
    stop: tuple[int, ...]
    values: torch.Tensor

    @property
    def slices(self) -> tuple[slice, ...]:
        """Where the block lies in an array of the image's size."""
        return tuple(slice(start, stop) for start, stop in zip(self.start, self.stop, strict=True))


@dataclass(frozen=True)
class SkipAir:
    """Leaves out the windows that hold nothing but air.

    A window is left out where every voxel of every channel of the image inside it (padding aside) is at most
    ``level``. It then adds neither value nor weight: a voxel that other windows cover has the weighted mean of
    those alone, and a voxel that none but skipped windows cover is set to ``fill`` in the finished prediction,
    after softmax and averaging. So a voxel of a skipped window differs from a full run, even where it lies close
    to the body; away from skipped windows nothing changes.

    Args:
        level: Highest value of air, in the units of the image as the network gets it.
        fill: Prediction of air, one number a class: probabilities if the prediction is, else outputs.

    Raises:
        ValueError: ``fill`` is empty.
    """

    level: float
    fill: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "fill", tuple(self.fill))
        if not self.fill:
            raise ValueError("fill must have one number for each class, got none")


def stream_windows(
    volume: torch.Tensor,
    network: Network | Sequence[Network],
    window: SlidingWindow,
    *,
    axis: int | None = None,
    tile: Sequence[int] | None = None,
    block: int | None = None,
    skip: SkipAir | None = None,
    flips: Sequence[int] = (),
    softmax: bool = False,
    merge: str = "volume",
    window_device: torch.device | str | None = None,
    buffer_device: torch.device | str | None = None,
    on_window: Progress | None = None,
) -> Iterator[Block]:
    """Predict a volume block by block; the blocks cover each voxel once.

    Without ``tile`` blocks come in ascending order along ``axis``, each over the whole plane. With it, the image
    is walked in columns, one tile after the other: windows on a border between tiles are run again for each tile
    that they touch, so the result is the same and costs time, not memory.

    Batches of windows are filled from one slab of windows and its mirror images, where those are averaged after
    stitching; the last batch of a slab may be smaller. Networks that
    run several windows side by side (an attribute ``streams`` above 1) get single windows, as many at a time as the
    batch has, while those that are done are summed. Nothing is kept for gradients. Arguments are checked at the
    call, images and outputs as the blocks are drawn.

    Args:
        volume: Image, shape (channels, I, J[, K]). Floating windows reach the network in their own type, others
            as float32.
        network: Gives (batch, classes, *window) of (batch, channels, *window); of several heads in a list, tuple
            or dictionary the first counts (of a dictionary that of the least key, as in MONAI). A list or tuple of
            networks is averaged.
        window: The windows.
        axis: Axis along which blocks are finished; the one with the smallest buffer if None.
        tile: Voxels of a tile along the other axes, in their order; the whole plane if None.
        block: Planes a block holds at most; see :func:`medimg3d.inference.memory_need.default_block` if None.
        skip: Which windows are left out, and what they hold; none if None.
        flips: Axes to mirror, 0 for the first; see :class:`medimg3d.inference.memory_need.Averaging`.
        softmax: Give mean softmax probabilities (True), or mean raw outputs (False).
        merge: ``"volume"`` or ``"window"``: whether networks and flips are averaged after or before stitching.
        window_device: Where the windows go, the network's device; the volume's if None.
        buffer_device: Where outputs are summed, in float32 whatever the network gives; the volume's if None.
        on_window: Called with the number of windows done (run or skipped) and of all, after every batch.

    Returns:
        Iterator of blocks.

    Raises:
        ValueError: An argument does not fit the image, or (drawing) an output does not fit its window.
    """
    image = volume.as_tensor() if hasattr(volume, "as_tensor") else volume
    spatial = tuple(image.shape[1:])
    networks = tuple(network) if isinstance(network, list | tuple) else (network,)
    averaging = Averaging(tuple(flips), len(networks), softmax, merge)
    if any(along >= len(spatial) for along in averaging.flips):
        raise ValueError(f"flips must name axes below {len(spatial)}, got {averaging.flips}")
    if block is not None and block < 1:
        raise ValueError(f"block must be at least 1, got {block}")
    axis = least_memory_axis(window, spatial, tile) if axis is None else axis
    device = image.device if buffer_device is None else buffer_device
    walk = _Walk(
        image=image,
        window=window,
        passes=_passes(networks, averaging, window.axes(spatial)),
        softmax=softmax and merge == "volume",
        axis=axis,
        boxes=regions(spatial, axis, tile),
        block=block,
        skip=skip,
        window_device=image.device if window_device is None else window_device,
        importance=window.importance_map(spatial, device),
        on_window=on_window,
        streams=min(window.sw_batch_size, *(getattr(one, "streams", 1) for one in networks)),
    )
    return walk.blocks()


def orientations(axes: Sequence[int]) -> list[tuple[int, ...]]:
    """Every combination of flips, the unflipped one first, in the order of ``MirroringInferer``."""
    return [flipped for count in range(len(axes) + 1) for flipped in combinations(axes, count)]


@dataclass(frozen=True)
class _Pass:
    """Networks and flips that share one grid of windows and one buffer: their mean goes into it."""

    networks: tuple[Network, ...]
    flips: tuple[tuple[int, ...], ...]
    softmax: bool
    axes: tuple[AxisWindows, ...]

    @torch.no_grad()
    def predict(self, windows: torch.Tensor) -> torch.Tensor:
        """Mean prediction of a batch, shape (batch, classes, *window)."""
        count = len(self.networks) * len(self.flips)
        total: torch.Tensor | None = None
        for network, flipped in product(self.networks, self.flips):
            output = _run(network, windows, [along + 2 for along in flipped], self.softmax)
            if count == 1:
                return output
            if total is None:
                total = output.float() / count
            elif output.shape == total.shape:
                total.add_(output, alpha=1 / count)
            else:
                raise ValueError(
                    f"Networks give {total.shape[1]} and {output.shape[1]} classes; expected one number."
                )
            del output
        assert total is not None
        return total

    def runs_with(self, other: _Pass) -> bool:
        """Whether the windows of both can be run in one batch: one flip each, and the same networks."""
        return self.networks == other.networks and len(self.flips) == len(other.flips) == 1

    def turned(self, windows: torch.Tensor) -> torch.Tensor:
        """Windows, or what was predicted for them, in the other orientation; of a pass of one flip."""
        dims = [along + 2 for along in self.flips[0]]
        return torch.flip(windows, dims) if dims else windows

    def recycle(self, outputs: torch.Tensor) -> None:
        """Give a prediction that is summed back to a network that can write into it again."""
        is_networks_own = len(self.networks) == 1 and self.flips == ((),) and not self.softmax
        if is_networks_own and (recycle := getattr(self.networks[0], "recycle", None)) is not None:
            recycle(outputs)


def _passes(
    networks: tuple[Network, ...], averaging: Averaging, axes: tuple[AxisWindows, ...]
) -> list[_Pass]:
    flips = orientations(averaging.flips)
    if averaging.merge == "window":
        return [_Pass(networks, tuple(flips), averaging.softmax, axes)]
    groups = [(network,) for network in networks] if averaging.softmax else [networks]
    return [
        _Pass(group, (flipped,), False, _flipped_axes(axes, flipped))
        for group, flipped in product(groups, flips)
    ]


def _flipped_axes(axes: Sequence[AxisWindows], flipped: Sequence[int]) -> tuple[AxisWindows, ...]:
    """The windows of the flipped image, told in voxels of the unflipped one."""
    return tuple(one.mirrored() if along in flipped else one for along, one in enumerate(axes))


def _run(network: Network, windows: torch.Tensor, dims: list[int], softmax: bool) -> torch.Tensor:
    """One network on one orientation, its output turned back."""
    output = first_head(network(torch.flip(windows, dims) if dims else windows))
    expected = (windows.shape[0], *windows.shape[2:])
    if (output.shape[0], *output.shape[2:]) != expected:
        raise ValueError(
            f"The network gives {tuple(output.shape)} for windows of {tuple(windows.shape)}; expected "
            f"{windows.shape[0]} predictions of the windows' own size."
        )
    if softmax:
        output = torch.softmax(output.float(), dim=1)
    return torch.flip(output, dims) if dims else output


@dataclass
class _Walk:
    """One prediction under way."""

    image: torch.Tensor
    window: SlidingWindow
    passes: list[_Pass]
    softmax: bool
    axis: int
    boxes: list[Box]
    block: int | None
    skip: SkipAir | None
    window_device: torch.device | str
    importance: torch.Tensor
    on_window: Progress | None
    streams: int = 1
    done: int = 0
    _sums: list[WindowSums | None] = field(default_factory=list)
    _pool: ThreadPoolExecutor | None = None

    def blocks(self) -> Iterator[Block]:
        """Every region, one after the other."""
        try:
            if self.streams > 1:
                self._pool = ThreadPoolExecutor(self.streams, "stream")
            for box in self.boxes:
                yield from self._region(box)
                self._sums = []  # before the next region's are made
        finally:
            if self._pool is not None:
                self._pool.shutdown(cancel_futures=True)

    def _region(self, box: Box) -> Iterator[Block]:
        """Slabs in the order of their first plane, over all passes: what lies before it, no later one touches."""
        self._sums = [
            None if self.skip is None else self._buffer(len(self.skip.fill), box) for _ in self.passes
        ]
        slabs = sorted(
            (start, index) for index, task in enumerate(self.passes) for start in task.axes[self.axis].starts
        )
        finished = 0
        for start, group in groupby(slabs, key=itemgetter(0)):
            numbers = [index for _, index in group]
            first = min(max(start - self.passes[index].axes[self.axis].before, 0) for index in numbers)
            yield from self._finish(finished, first, box)
            finished = first
            self._add_slabs(numbers, start, box)
        yield from self._finish(finished, box[self.axis][1], box)

    def _buffer(self, classes: int, box: Box) -> WindowSums:
        return WindowSums(
            classes,
            [stop - start for start, stop in box],
            self.importance.shape,
            axis=self.axis,
            device=self.importance.device,
        )

    def _add_slabs(self, numbers: Sequence[int], start: int, box: Box) -> None:
        """Run the windows of some passes that begin at one plane and touch the region."""
        wanted = [(index, self._wanted(index, start, box)) for index in numbers]
        threads = torch.get_num_threads()
        if self._pool is not None:  # the other cores have windows to work on
            torch.set_num_threads(1)
        try:
            for batch, predicted in self._predicted(self._batches(wanted)):
                for (index, corners), outputs in zip(batch, predicted, strict=True):
                    self._add_batch(index, corners, outputs, box)
                    self._tell(len(corners))
                if len(batch) == 1:
                    self.passes[batch[0][0]].recycle(predicted[0])
                del predicted, outputs  # not held while the next ones are worked out
        finally:
            if self._pool is not None:
                torch.set_num_threads(threads)

    def _wanted(self, index: int, start: int, box: Box) -> list[tuple[int, ...]]:
        """First voxels of the windows of one pass that are run."""
        axes = self.passes[index].axes
        corners = list(
            product(
                *(
                    (start,) if along == self.axis else one.touching(*box[along])
                    for along, one in enumerate(axes)
                )
            )
        )
        wanted = [corner for corner in corners if not self._is_air(axes, corner)]
        self._tell(len(corners) - len(wanted))
        return wanted

    def _batches(self, wanted: Sequence[_Windows]) -> list[_Batch]:
        """Windows as they are given to the network: a batch is filled up with those of another flip."""
        size = 1 if self._pool is not None else self.window.sw_batch_size
        batches: list[_Batch] = []
        room = 0
        for index, corners in wanted:
            own = self.passes[index]
            if not (batches and own.runs_with(self.passes[batches[-1][-1][0]])):
                room = 0
            at = 0
            while at < len(corners):
                if not room:
                    batches.append([])
                    room = size
                part = corners[at : at + room]
                batches[-1].append((index, part))
                at += len(part)
                room -= len(part)
        return batches

    def _predicted(self, batches: Sequence[_Batch]) -> Iterator[tuple[_Batch, list[torch.Tensor]]]:
        """Batches of windows with their predictions, in order; of several streams, as many as a batch are held."""
        if self._pool is None:
            for batch in batches:
                yield batch, self._predict(batch)
            return
        ahead: deque[tuple[_Batch, Future[list[torch.Tensor]]]] = deque()
        for batch in batches:
            ahead.append((batch, self._pool.submit(self._predict, batch)))
            if len(ahead) >= self.window.sw_batch_size:
                done, future = ahead.popleft()
                yield done, future.result()
                del future
        while ahead:
            done, future = ahead.popleft()
            yield done, future.result()
            del future

    def _predict(self, batch: _Batch) -> list[torch.Tensor]:
        """A prediction for each part of a batch, (windows, classes, *window)."""
        parts = []
        for index, corners in batch:
            task = self.passes[index]
            windows = torch.cat([self._cut(task.axes, corner) for corner in corners])
            if len(batch) == 1:
                return [task.predict(windows.to(self.window_device))]
            parts.append(task.turned(windows))
        tasks = [self.passes[index] for index, _ in batch]
        outputs = replace(tasks[0], flips=((),)).predict(torch.cat(parts).to(self.window_device))
        split = outputs.split([len(corners) for _, corners in batch])
        return [task.turned(part) for task, part in zip(tasks, split, strict=True)]

    def _add_batch(
        self, index: int, corners: Sequence[tuple[int, ...]], outputs: torch.Tensor, box: Box
    ) -> None:
        task = self.passes[index]
        sums = self._sums[index]
        if sums is None:
            sums = self._sums[index] = self._buffer(outputs.shape[1], box)
        if outputs.shape[1] != sums.classes:
            raise ValueError(
                f"The network gives {outputs.shape[1]} classes; expected {sums.classes}, as its first output or "
                "the fill of skipped windows has."
            )
        for output, corner in zip(outputs, corners, strict=True):
            origin = [
                at - one.before - start for at, one, (start, _) in zip(corner, task.axes, box, strict=True)
            ]
            sums.add(output, self.importance, origin)

    def _cut(self, axes: Sequence[AxisWindows], corner: Sequence[int]) -> torch.Tensor:
        """One window with its padding, shape (1, channels, *window), floating."""
        cuts = [one.cut(at) for one, at in zip(axes, corner, strict=True)]
        inside = (slice(None), *(voxels for voxels, _, _ in cuts))
        piece = self.image[inside][None]
        piece = piece if piece.is_floating_point() else piece.float()
        pads = [count for _, before, after in reversed(cuts) for count in (before, after)]
        if not any(pads):
            return piece
        if self.window.padding_mode == "constant":
            return F.pad(piece, pads, value=self.window.cval)
        return F.pad(piece, pads, mode=self.window.padding_mode)

    def _is_air(self, axes: Sequence[AxisWindows], corner: Sequence[int]) -> bool:
        if self.skip is None:
            return False
        inside = (slice(None), *(one.cut(at)[0] for one, at in zip(axes, corner, strict=True)))
        return bool(self.image[inside].amax() <= self.skip.level)

    def _tell(self, count: int) -> None:
        self.done += count
        if self.on_window is not None and count:
            self.on_window(self.done, self.windows)

    @cached_property
    def windows(self) -> int:
        """Windows of all regions and passes."""
        total = 0
        for box, task in product(self.boxes, self.passes):
            across = 1
            for one, (start, stop) in zip(task.axes, box, strict=True):
                across *= len(one.touching(start, stop))
            total += across
        return total

    def _finish(self, start: int, stop: int, box: Box) -> Iterator[Block]:
        """Planes ``start`` to ``stop - 1`` in blocks."""
        if start >= stop:
            return
        sums = [one for one in self._sums if one is not None]
        step = self.block
        if step is None:
            ring = ring_shape(sums[0].extent, self.importance.shape, self.axis)
            step = default_block(sums[0].classes, ring, self.axis)
        for first in range(start, stop, step):
            last = min(first + step, stop)
            edges = list(box)
            edges[self.axis] = (first, last)
            yield Block(
                tuple(low for low, _ in edges),
                tuple(high for _, high in edges),
                self._mean(sums, first, last),
            )

    @torch.no_grad()
    def _mean(self, sums: Sequence[WindowSums], start: int, stop: int) -> torch.Tensor:
        """Mean of all passes over the planes; of those that cover a voxel where windows are skipped."""
        total: torch.Tensor | None = None
        seen: torch.Tensor | None = None
        for one in sums:
            values, weights = one.take(start, stop)
            values = torch.softmax(values, dim=0) if self.softmax else values
            if self.skip is not None:
                covered = weights > 0
                values = values.masked_fill_(~covered, 0)
                seen = covered.float() if seen is None else seen.add_(covered)
            total = values if total is None else total.add_(values)
            del values
        assert total is not None
        if seen is None or self.skip is None:
            return total if len(sums) == 1 else total.div_(len(sums))
        total.div_(seen.clamp(min=1))
        for channel, value in zip(total, self.skip.fill, strict=True):
            channel.masked_fill_(seen[0] == 0, value)
        return total
