"""A sliding window inferer whose buffer does not grow with the length of the volume."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from monai.data.meta_tensor import MetaTensor
from monai.inferers import Inferer

from medimg3d.inference.first_head import first_head
from medimg3d.inference.memory_need import Averaging
from medimg3d.inference.network_mean import AveragedNetworks
from medimg3d.inference.sliding_window import SlidingWindow
from medimg3d.inference.streaming import Block, SkipAir, stream_windows


class StreamingInferer(Inferer):
    """Stands in a bundle's config where ``SlidingWindowInferer`` stands, with the same arguments and result.

    Calling it gives the full tensor of every class, as an inferer must: its size is that of the volume times the
    classes, without MONAI's second buffer. To bound memory, take :meth:`blocks` and keep of each block what is
    needed, for example its label map (:mod:`medimg3d.inference.restore_blocks`).

    Differences: the result is float32 also for images in half precision; of several heads the first is given;
    ``condition`` and outputs of another size than the window are refused. ``flips`` and ``softmax`` give what
    ``MirroringInferer`` around it gives.

    Args:
        roi_size: As in :class:`SlidingWindow`, like all up to ``cval``.
        sw_batch_size: See there.
        overlap: See there.
        mode: See there.
        sigma_scale: See there.
        padding_mode: See there.
        cval: See there.
        sw_device: Device of the windows; the image's if None.
        device: Device of buffer and result; the image's if None.
        axis: As in :func:`stream_windows`, like all that follow.
        tile: See there.
        flips: See there.
        softmax: See there.
        merge: See there.
        air_level: Highest value of air; windows of air alone are skipped. None skips none.
        air_fill: Prediction of air, one number a class; needed with ``air_level``.
        slice_axis: Go through a volume with a 2D network, slice by slice along this axis, as ``SliceInferer`` does
            along its ``spatial_dim``. ``roi_size`` then has two numbers, as ``overlap`` and ``sigma_scale`` may.

    Raises:
        ValueError: An argument is out of its range.
    """

    def __init__(
        self,
        roi_size: Sequence[int] | int,
        sw_batch_size: int = 1,
        overlap: Sequence[float] | float = 0.25,
        mode: str = "constant",
        sigma_scale: Sequence[float] | float = 0.125,
        padding_mode: str = "constant",
        cval: float = 0.0,
        sw_device: torch.device | str | None = None,
        device: torch.device | str | None = None,
        *,
        axis: int | None = None,
        tile: Sequence[int] | None = None,
        flips: Sequence[int] = (),
        softmax: bool = False,
        merge: str = "volume",
        air_level: float | None = None,
        air_fill: Sequence[float] = (),
        slice_axis: int | None = None,
    ) -> None:
        super().__init__()
        self.slice_axis = slice_axis
        self.network_window = roi_size if isinstance(roi_size, int) else tuple(roi_size)
        self.window = SlidingWindow(
            _through(self._plane(roi_size), slice_axis, 1),
            overlap=_through(overlap, slice_axis, 0.0),
            mode=mode,
            sigma_scale=_through(sigma_scale, slice_axis, 0.125),
            sw_batch_size=sw_batch_size,
            padding_mode=padding_mode,
            cval=cval,
        )
        self.device = device
        self.averaging = Averaging(tuple(flips), 1, softmax, merge)
        self._blocks = partial(
            stream_windows,
            window=self.window,
            axis=axis,
            tile=tile,
            skip=None if air_level is None else SkipAir(air_level, tuple(air_fill)),
            flips=flips,
            softmax=softmax,
            merge=merge,
            window_device=sw_device,
        )

    def _plane(self, roi_size: Sequence[int] | int) -> Sequence[int] | int:
        """The window's size, checked where it is one of slices."""
        if self.slice_axis is None:
            return roi_size
        size = (roi_size, roi_size) if isinstance(roi_size, int) else tuple(roi_size)
        if self.slice_axis not in (0, 1, 2) or len(size) != 2:
            raise ValueError(
                f"slice_axis {self.slice_axis} with roi_size {size}: expected 0, 1 or 2 and a window of two axes"
            )
        return size

    def planned(
        self, *, axis: int, tile: Sequence[int] | None, block: int, sw_batch_size: int
    ) -> StreamingInferer:
        """The same with another order of windows: the arguments of a :class:`StreamPlan`, and a batch size."""
        other = copy(self)
        other.window = replace(self.window, sw_batch_size=sw_batch_size)
        other._blocks = partial(self._blocks, window=other.window, axis=axis, tile=tile, block=block)
        return other

    def blocks(
        self, image: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Iterator[Block]:
        """The prediction of one case, block by block.

        Args:
            image: Shape (channels, I, J[, K]).
            network: As in :func:`stream_windows`; also a :class:`medimg3d.inference.network_mean.NetworkMean`,
                whose networks are stitched one by one before they are averaged.
            *args: Passed on to the network.
            **kwargs: Passed on to the network.

        Raises:
            ValueError: ``condition`` is given, or as :func:`stream_windows`.
        """
        if kwargs.get("condition") is not None:
            raise ValueError(
                "condition is not cut into windows here; use MONAI's SlidingWindowInferer for it."
            )
        return self._blocks(
            image,
            self.members(network, *args, **kwargs),
            softmax=self.averaging_of(network).softmax,
            buffer_device=self.device,
        )

    def members(self, network: Any, *args: Any, **kwargs: Any) -> list[Callable[[torch.Tensor], Any]]:
        """The networks as they are given windows: of a 2D one that goes through a volume, windows one voxel deep.

        Args:
            network: One, several in a list, or a :class:`medimg3d.inference.network_mean.NetworkMean`.
            *args: Passed on to each.
            **kwargs: Passed on to each.
        """
        found = AveragedNetworks.of(network).members
        found = tuple(partial(_call, one, args, kwargs) for one in found) if args or kwargs else found
        if self.slice_axis is None:
            return list(found)
        return [partial(_on_slices, one, self.slice_axis + 2) for one in found]

    def averaging_of(self, network: Any) -> Averaging:
        """What is averaged into one prediction, the networks counted; argument as in :meth:`members`."""
        found = AveragedNetworks.of(network)
        softmax = self.averaging.softmax or found.probabilities
        return replace(self.averaging, networks=len(found.members), softmax=softmax)

    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """The full prediction.

        Args:
            inputs: Images, shape (B, channels, I, J[, K]); they are run one after the other.
            network: As in :func:`stream_windows`.
            *args: Passed on to the network.
            **kwargs: Passed on to the network.

        Returns:
            Shape (B, classes, I, J[, K]), float32; a ``MetaTensor`` with the images' meta data if they are one.

        Raises:
            ValueError: As :meth:`blocks`.
        """
        images = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs
        whole: torch.Tensor | None = None
        for index, image in enumerate(images):
            for block in self.blocks(image, network, *args, **kwargs):
                if whole is None:
                    shape = (images.shape[0], block.values.shape[0], *images.shape[2:])
                    whole = block.values.new_empty(shape)
                place = (slice(None), *block.slices)
                whole[index][place] = block.values
        if whole is None:
            raise ValueError("There is no image in the batch; expected at least one.")
        if isinstance(inputs, MetaTensor):
            return MetaTensor(whole).copy_meta_from(inputs, copy_attr=False)
        return whole


def _call(network: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], windows: Any) -> Any:
    return network(windows, *args, **kwargs)


def _on_slices(network: Callable[..., Any], dim: int, windows: torch.Tensor) -> torch.Tensor:
    """A 2D network on windows that are one voxel deep along ``dim``."""
    return first_head(network(windows.squeeze(dim))).unsqueeze(dim)


def _through(value: Any, slice_axis: int | None, alone: Any) -> Any:
    """Two numbers of a plane as three of a volume, with ``alone`` along the axis through the slices."""
    if not isinstance(value, Sequence):
        return value
    numbers = list(value)
    if slice_axis is not None and len(numbers) == 2:
        numbers.insert(slice_axis, alone)
    return tuple(numbers)
