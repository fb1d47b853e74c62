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

from medimg3d.inference.memory_need import Averaging
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
    ) -> None:
        super().__init__()
        self.window = SlidingWindow(
            roi_size if isinstance(roi_size, int) else tuple(roi_size),
            overlap=tuple(overlap) if isinstance(overlap, Sequence) else overlap,
            mode=mode,
            sigma_scale=tuple(sigma_scale) if isinstance(sigma_scale, Sequence) else sigma_scale,
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
            network: As in :func:`stream_windows`.
            *args: Passed on to the network.
            **kwargs: Passed on to the network.

        Raises:
            ValueError: ``condition`` is given, or as :func:`stream_windows`.
        """
        if kwargs.get("condition") is not None:
            raise ValueError(
                "condition is not cut into windows here; use MONAI's SlidingWindowInferer for it."
            )
        run = partial(_call, network, args, kwargs) if args or kwargs else network
        return self._blocks(image, run, buffer_device=self.device)

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
