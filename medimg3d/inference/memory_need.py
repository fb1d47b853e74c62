"""The memory that a streamed prediction takes, worked out beforehand, and the order of windows that fits a cap.

The figures are upper bounds of what :func:`medimg3d.inference.streaming.stream_windows` holds at one time, each
term of which is named below. The network's own weights and activations are the caller's to give.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from math import ceil, prod

from medimg3d.errors import UsageError
from medimg3d.inference.sliding_window import AxisWindows, SlidingWindow, ring_shape, tile_shape

FLOAT = 4
BLOCK_BYTES = 16 * 2**20
"""A block may be this large before it is cut to a sixteenth of the ring."""


@dataclass(frozen=True)
class Averaging:
    """What is averaged into one prediction: flips of the image, and several networks.

    Args:
        flips: Axes that are mirrored, 0 for the first; ``2 ** len(flips)`` orientations, the image as it is
            among them.
        networks: Number of networks.
        softmax: Average softmax probabilities (True) or the networks' raw outputs (False).
        merge: ``"volume"`` stitches every orientation of the whole image on its own grid of windows and averages
            the stitched predictions: what ``MirroringInferer`` around a sliding window gives, with one buffer an
            orientation (and, with ``softmax``, a network). ``"window"`` averages within every window before it
            is stitched, with one buffer in all: the same raw outputs where the grid of windows is symmetric,
            else near them; softmax comes before the stitching.

    Raises:
        ValueError: ``merge`` is neither, an axis stands twice, or there is no network.
    """

    flips: tuple[int, ...] = ()
    networks: int = 1
    softmax: bool = False
    merge: str = "volume"

    def __post_init__(self) -> None:
        object.__setattr__(self, "flips", tuple(self.flips))
        if self.merge not in ("volume", "window"):
            raise ValueError(f"merge must be volume or window, got {self.merge!r}")
        if len(set(self.flips)) != len(self.flips) or any(axis < 0 for axis in self.flips):
            raise ValueError(f"flips must name axes once each, counted from 0, got {self.flips}")
        if self.networks < 1:
            raise ValueError(f"networks must be at least 1, got {self.networks}")

    @property
    def passes(self) -> int:
        """Buffers that are filled side by side."""
        if self.merge == "window":
            return 1
        return int(2 ** len(self.flips)) * (self.networks if self.softmax else 1)

    @property
    def calls(self) -> int:
        """Predictions that are averaged in one window of one pass."""
        return int(2 ** len(self.flips)) * self.networks // self.passes


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes that are held at one time, part by part.

    Args:
        volume: The image itself, all channels.
        buffers: Weighted sums of every class, and their weights, of the planes that windows still reach.
        importance: Weights of a window's voxels.
        held: The block that the consumer still holds while the next one is worked out.
        windows: Inputs and outputs of one call of the network; gone while a block is finished.
        finishing: The block being finished, with its softmax and its sum over passes.
        network: The network's weights and activations, as the caller gave them.
    """

    volume: int
    buffers: int
    importance: int
    held: int
    windows: int
    finishing: int
    network: int = 0

    @property
    def streaming(self) -> int:
        """Bytes beside the image and the network."""
        return self.buffers + self.importance + self.held + max(self.windows, self.finishing)

    @property
    def total(self) -> int:
        """Bytes with the image and the network."""
        return self.volume + self.streaming + self.network


@dataclass(frozen=True)
class StreamPlan:
    """Arguments of ``stream_windows`` that fit a cap, with what they cost.

    Args:
        axis: Axis along which blocks are finished.
        tile: Voxels of a tile along the other axes; None for the whole plane.
        block: Planes a block.
        windows: Windows that are cut in all passes; more than untiled, as those on tile borders are cut again.
        need: Bytes.
    """

    axis: int
    tile: tuple[int, ...] | None
    block: int
    windows: int
    need: MemoryNeed


class DoesNotFitError(UsageError):
    """No order of windows fits the cap.

    Args:
        message: What the user is told.
        least: Least bytes that would do.
    """

    def __init__(self, message: str, least: int) -> None:
        super().__init__(message)
        self.least = least


def least_memory_axis(
    window: SlidingWindow, spatial_size: Sequence[int], tile: Sequence[int] | None = None
) -> int:
    """The axis along which the smallest buffer does; the first of equals, whose planes lie together."""
    shape = window.shape(spatial_size)
    return min(
        range(len(spatial_size)),
        key=lambda axis: prod(ring_shape(tile_shape(spatial_size, axis, tile), shape, axis)),
    )


def default_block(classes: int, ring: Sequence[int], axis: int) -> int:
    """Planes of a block: a sixteenth of the ring, or more while a block stays under 16 MiB."""
    plane_bytes = classes * FLOAT * prod(ring) // ring[axis]
    return max(1, ring[axis] // 16, min(ring[axis], BLOCK_BYTES // plane_bytes))


def memory_need(
    window: SlidingWindow,
    spatial_size: Sequence[int],
    *,
    classes: int,
    channels: int = 1,
    axis: int | None = None,
    tile: Sequence[int] | None = None,
    block: int | None = None,
    averaging: Averaging | None = None,
    input_bytes: int = FLOAT,
    output_bytes: int = FLOAT,
    network: int = 0,
) -> MemoryNeed:
    """Bytes that streaming a prediction takes at most, with everything on one device.

    Args:
        window: The windows.
        spatial_size: Voxels of the image along its axes.
        classes: Channels of the network's output.
        channels: Channels of the image.
        axis: Axis along which blocks are finished; the one that needs least if None.
        tile: Voxels of a tile along the other axes; the whole plane if None.
        block: Planes a block; :func:`default_block` if None.
        averaging: Flips and networks that are averaged; none if None.
        input_bytes: Bytes of one voxel of the image.
        output_bytes: Bytes of one value that the network gives: 2 in half precision.
        network: Bytes of the network's weights and activations for one batch of windows.

    Raises:
        ValueError: ``axis`` or ``tile`` does not fit the image.
    """
    averaging = Averaging() if averaging is None else averaging
    axis = least_memory_axis(window, spatial_size, tile) if axis is None else axis
    shape = window.shape(spatial_size)
    ring = ring_shape(tile_shape(spatial_size, axis, tile), shape, axis)
    planes = default_block(classes, ring, axis) if block is None else min(block, ring[axis])
    block_voxels = planes * (prod(ring) // ring[axis])
    copies = 1 + (averaging.passes > 1) + (averaging.softmax and averaging.merge == "volume")
    return MemoryNeed(
        volume=channels * prod(spatial_size) * input_bytes,
        buffers=averaging.passes * (classes + 1) * prod(ring) * FLOAT,
        importance=prod(shape) * FLOAT,
        held=classes * block_voxels * FLOAT,
        windows=_windows_bytes(window, spatial_size, axis, channels, classes, averaging, output_bytes),
        finishing=(copies * classes + 1) * block_voxels * FLOAT,
        network=network,
    )


def _windows_bytes(
    window: SlidingWindow,
    spatial_size: Sequence[int],
    axis: int,
    channels: int,
    classes: int,
    averaging: Averaging,
    output_bytes: int,
) -> int:
    """One batch: windows that are cut, padded and flipped, and the predictions made of them."""
    shape = window.shape(spatial_size)
    across = [len(one.starts) for along, one in enumerate(window.axes(spatial_size)) if along != axis]
    batch = min(window.sw_batch_size, prod(across))
    padded = any(want > size for want, size in zip(shape, spatial_size, strict=True))
    inputs = channels * FLOAT * (1 + padded + bool(averaging.flips))
    single = (
        classes * prod(shape) * FLOAT if output_bytes != FLOAT else 0
    )  # one window on its way to the sums
    return batch * prod(shape) * (inputs + classes * _value_bytes(averaging, output_bytes)) + single


def _value_bytes(averaging: Averaging, output_bytes: int) -> int:
    """Bytes a value of a batch's predictions: the output, what it is turned into, and the sum."""
    converted = FLOAT if output_bytes != FLOAT else 0
    in_window = averaging.softmax and averaging.merge == "window"
    last = FLOAT if in_window else output_bytes
    most = output_bytes
    if in_window:
        most = max(most, output_bytes + converted + FLOAT)
    if averaging.flips:
        most = max(most, 2 * last)
    if averaging.calls > 1:
        most = max(most, last + (0 if in_window else converted)) + FLOAT
    return most


def plan_stream(
    window: SlidingWindow,
    spatial_size: Sequence[int],
    cap: int,
    *,
    classes: int,
    channels: int = 1,
    averaging: Averaging | None = None,
    input_bytes: int = FLOAT,
    output_bytes: int = FLOAT,
    network: int = 0,
) -> StreamPlan:
    """The order of windows with the fewest windows whose memory stays within a cap; of equals the smallest.

    Args:
        window: The windows; their batch is kept as it is.
        spatial_size: Voxels of the image along its axes.
        cap: Bytes for everything that :func:`memory_need` counts, the image and the network among it.
        classes: Channels of the network's output.
        channels: Channels of the image.
        averaging: Flips and networks that are averaged; none if None.
        input_bytes: As in :func:`memory_need`.
        output_bytes: As in :func:`memory_need`.
        network: As in :func:`memory_need`.

    Raises:
        DoesNotFitError: Nothing fits; the message names the least cap that would do.
    """
    averaging = Averaging() if averaging is None else averaging
    best: StreamPlan | None = None
    least: int | None = None
    for axis, tile, windows in _candidates(window.axes(spatial_size)):
        ring = ring_shape(tile_shape(spatial_size, axis, tile), window.shape(spatial_size), axis)
        for block in sorted({default_block(classes, ring, axis), 1}, reverse=True):
            need = memory_need(
                window,
                spatial_size,
                classes=classes,
                channels=channels,
                axis=axis,
                tile=tile,
                block=block,
                averaging=averaging,
                input_bytes=input_bytes,
                output_bytes=output_bytes,
                network=network,
            )
            least = need.total if least is None else min(least, need.total)
            plan = StreamPlan(axis, tile, block, windows * averaging.passes, need)
            if need.total <= cap and (best is None or _cost(plan) < _cost(best)):
                best = plan
                break  # a smaller block would only be slower
    if best is None:
        raise DoesNotFitError(
            f"Prediction of {' x '.join(map(str, spatial_size))} voxels in {classes} classes needs at least "
            f"{gigabytes(least or 0)} of memory and {gigabytes(cap, down=True)} are allowed: allow more, or take "
            f"fewer windows a batch than {window.sw_batch_size}, fewer flips or a smaller window.",
            least or 0,
        )
    return best


def gigabytes(size: int, *, down: bool = False) -> str:
    """Bytes for a message, rounded up to 0.01 GB (10⁹ bytes) so that the figure named will do."""
    hundredths = size // 10**7 if down else ceil(size / 10**7)
    return f"{hundredths / 100:.2f} GB"


def _cost(plan: StreamPlan) -> tuple[int, int]:
    return plan.windows, plan.need.total


def _candidates(axes: Sequence[AxisWindows]) -> Iterator[tuple[int, tuple[int, ...] | None, int]]:
    """Every axis with every way to cut the other axes into equal tiles, and the windows that are then cut."""
    cached = cache(_windows_of_tiles)
    for axis in range(len(axes)):
        others = [one for along, one in enumerate(axes) if along != axis]
        steps = [sorted({ceil(one.size / parts) for parts in range(1, one.size + 1)}) for one in others]
        for tile in product(*steps):
            across = [cached(one, step) for one, step in zip(others, tile, strict=True)]
            whole = all(step == one.size for one, step in zip(others, tile, strict=True))
            yield axis, None if whole else tile, len(axes[axis].starts) * prod(across)


def _windows_of_tiles(one: AxisWindows, step: int) -> int:
    """Windows that all tiles along one axis touch, counted once a tile."""
    return sum(len(one.touching(start, min(start + step, one.size))) for start in range(0, one.size, step))
