"""Where sliding windows lie, how the image is padded for them and how their voxels are weighted.

The geometry is that of ``monai.inferers.sliding_window_inference`` to the voxel, axis by axis, so that a
prediction that is walked in another order or in parts is the same prediction. Nothing here needs an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

MODES = ("constant", "gaussian")
PADDING_MODES = ("constant", "reflect", "replicate", "circular")

Box = tuple[tuple[int, int], ...]
"""Start and stop in voxels of the image along every axis, stop exclusive."""


@dataclass(frozen=True)
class AxisWindows:
    """The windows along one axis.

    Args:
        size: Voxels of the image.
        window: Voxels of a window.
        before: Voxels padded before the image; 0 unless the image is smaller than the window.
        after: Voxels padded after it.
        starts: First voxel of every window, ascending, counted on the padded axis.
    """

    size: int
    window: int
    before: int
    after: int
    starts: tuple[int, ...]

    @property
    def padded(self) -> int:
        """Voxels of the padded axis."""
        return self.before + self.size + self.after

    def mirrored(self) -> AxisWindows:
        """The windows of the flipped image, told in voxels of the unflipped one."""
        starts = tuple(self.padded - self.window - start for start in reversed(self.starts))
        return replace(self, before=self.after, after=self.before, starts=starts)

    def touching(self, start: int, stop: int) -> tuple[int, ...]:
        """Starts of the windows that hold one of the image's voxels ``start`` to ``stop - 1``."""
        low, high = start + self.before, stop + self.before
        return tuple(at for at in self.starts if at < high and at + self.window > low)

    def cut(self, start: int) -> tuple[slice, int, int]:
        """What a window holds: the image's voxels, and how many are padded before and after them."""
        low = start - self.before
        high = low + self.window
        inside = slice(max(low, 0), min(high, self.size))
        return inside, inside.start - low, high - inside.stop


@dataclass(frozen=True)
class SlidingWindow:
    """How an image is covered with windows; arguments and defaults as in MONAI.

    Args:
        roi_size: Voxels of a window along each axis, or one number for all; an axis that is None or not
            positive takes the image's own size.
        overlap: Share of a window that overlaps the next, in [0, 1), one number or one per axis.
        mode: ``"constant"`` weighs a window's voxels alike, ``"gaussian"`` less towards its edges.
        sigma_scale: Standard deviation of the Gaussian as a share of the window, one number or one per axis.
        sw_batch_size: Windows a call of the network.
        padding_mode: How an image smaller than the window is padded: ``"constant"``, ``"reflect"``,
            ``"replicate"`` or ``"circular"``.
        cval: Value of the padding of ``"constant"``.

    Raises:
        ValueError: An argument is out of its range.

    Source: Project-MONAI/MONAI 1.6.1, ``monai/inferers/utils.py``.
    """

    roi_size: int | tuple[int | None, ...]
    overlap: float | tuple[float, ...] = 0.25
    mode: str = "constant"
    sigma_scale: float | tuple[float, ...] = 0.125
    sw_batch_size: int = 1
    padding_mode: str = "constant"
    cval: float = 0.0

    def __post_init__(self) -> None:
        for name in ("roi_size", "overlap", "sigma_scale"):
            value: Any = getattr(self, name)
            if isinstance(value, Sequence):
                object.__setattr__(self, name, tuple(value))
        object.__setattr__(self, "mode", str(getattr(self.mode, "value", self.mode)))
        object.__setattr__(self, "padding_mode", str(getattr(self.padding_mode, "value", self.padding_mode)))
        if any(not 0 <= share < 1 for share in _as_tuple(self.overlap)):
            raise ValueError(f"overlap must be in [0, 1), got {self.overlap}")
        if any(scale <= 0 for scale in _as_tuple(self.sigma_scale)):
            raise ValueError(f"sigma_scale must be above 0, got {self.sigma_scale}")
        if self.mode not in MODES:
            raise ValueError(f"mode must be one of {', '.join(MODES)}, got {self.mode!r}")
        if self.padding_mode not in PADDING_MODES:
            raise ValueError(
                f"padding_mode must be one of {', '.join(PADDING_MODES)}, got {self.padding_mode!r}"
            )
        if self.sw_batch_size < 1:
            raise ValueError(f"sw_batch_size must be at least 1, got {self.sw_batch_size}")

    def shape(self, spatial_size: Sequence[int]) -> tuple[int, ...]:
        """Voxels of a window on an image of this size.

        Raises:
            ValueError: ``roi_size`` is for another number of axes.
        """
        wanted = _per_axis(self.roi_size, len(spatial_size), "roi_size")
        return tuple(
            want if want and want > 0 else size for want, size in zip(wanted, spatial_size, strict=True)
        )

    def axes(self, spatial_size: Sequence[int]) -> tuple[AxisWindows, ...]:
        """The windows along every axis of an image; those of the image are their product.

        Args:
            spatial_size: Voxels of the image along its axes, without channels.

        Raises:
            ValueError: ``roi_size`` or ``overlap`` is for another number of axes.
        """
        overlaps = _per_axis(self.overlap, len(spatial_size), "overlap")
        return tuple(
            _along(size, window, overlap)
            for size, window, overlap in zip(spatial_size, self.shape(spatial_size), overlaps, strict=True)
        )

    def importance_map(self, spatial_size: Sequence[int], device: torch.device | str = "cpu") -> torch.Tensor:
        """Weights of a window's voxels, the shape of a window, float32, all above 0; MONAI's own."""
        import torch
        from monai.data.utils import compute_importance_map

        scales = _per_axis(self.sigma_scale, len(spatial_size), "sigma_scale")
        return compute_importance_map(
            self.shape(spatial_size), mode=self.mode, sigma_scale=scales, device=device, dtype=torch.float32
        )


def regions(spatial_size: Sequence[int], axis: int, tile: Sequence[int] | None) -> list[Box]:
    """The image in columns along ``axis``, one a tile of the other axes; the last ones may be smaller.

    Args:
        spatial_size: Voxels of the image along its axes.
        axis: Axis that no column is cut along.
        tile: Voxels of a column along the other axes, in their order; None for one column.

    Raises:
        ValueError: The tile has another number of axes, or is empty.
    """
    shape = tile_shape(spatial_size, axis, tile)
    return list(
        product(
            *(
                [(start, min(start + step, size)) for start in range(0, size, step)]
                for size, step in zip(spatial_size, shape, strict=True)
            )
        )
    )


def tile_shape(spatial_size: Sequence[int], axis: int, tile: Sequence[int] | None) -> tuple[int, ...]:
    """Voxels of the largest column along every axis; arguments and errors as :func:`regions`."""
    if not 0 <= axis < len(spatial_size):
        raise ValueError(f"axis must be in [0, {len(spatial_size) - 1}], got {axis}")
    if tile is None:
        return tuple(spatial_size)
    if len(tile) != len(spatial_size) - 1 or any(step < 1 for step in tile):
        raise ValueError(
            f"tile must have {len(spatial_size) - 1} sizes of at least 1, one for each axis but axis {axis}, "
            f"got {tuple(tile)}"
        )
    steps = iter(tile)
    return tuple(size if along == axis else min(next(steps), size) for along, size in enumerate(spatial_size))


def ring_shape(extent: Sequence[int], window: Sequence[int], axis: int) -> tuple[int, ...]:
    """Voxels that are buffered of a region: all of it, but along ``axis`` no more planes than a window has."""
    return tuple(
        min(size, reach) if along == axis else size
        for along, (size, reach) in enumerate(zip(extent, window, strict=True))
    )


def _along(size: int, window: int, overlap: float) -> AxisWindows:
    """MONAI's scan interval, ``dense_patch_slices`` and padding for one axis."""
    lacking = max(window - size, 0)
    padded = size + lacking
    interval = window if window == padded else max(int(window * (1 - overlap)), 1)
    count = -(-(padded - window) // interval) + 1
    starts = tuple(min(index * interval, padded - window) for index in range(count))
    return AxisWindows(size, window, lacking // 2, lacking - lacking // 2, starts)


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _per_axis(value: Any, axes: int, name: str) -> tuple[Any, ...]:
    values = value if isinstance(value, tuple) else (value,) * axes
    if len(values) != axes:
        raise ValueError(f"{name} has {len(values)} numbers; expected {axes}, one for each axis of the image")
    return values
