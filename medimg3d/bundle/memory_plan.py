"""Fits a bundle's prediction into the memory that the user allows, or says beforehand that it does not fit."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medimg3d.bundle.inference import Inference
from medimg3d.bundle.run_windows import PLAIN
from medimg3d.errors import Medimg3dError, UsageError

if TYPE_CHECKING:
    from monai.data import MetaTensor

    from medimg3d.inference.memory_need import StreamPlan

_log = logging.getLogger(__name__)

CHANNELS_LAST = "torch-channels-last"
TEMPORARY_BYTES = 64 * 2**20
"""Tiles on their way to the original grid, for each of the threads at work on them, and what else is held briefly."""

SLACK_BYTES = 64 * 2**20
"""Freed memory that the allocator has not given back when the peak is reached; it differs so much between runs."""


def lightest_backend(model: Inference) -> str:
    """The backend in torch that holds least memory: channels last in memory where windows have a fixed size.

    In the plain layout oneDNN works in blocks of channels and copies the last layer's output into that layout: of a
    network of many classes that is as much again as the output itself.

    Args:
        model: A bundle in plain torch.
    """
    from medimg3d.inference.label_map_inferer import LabelMapInferer

    if not isinstance(model.inferer, LabelMapInferer):
        return PLAIN
    size = model.inferer.stream.network_window
    is_fixed = all(one is not None and one > 0 for one in ((size,) if isinstance(size, int) else size))
    return CHANNELS_LAST if is_fixed else PLAIN


class MemoryPlanner:
    """Chooses axis, tiles and window batch so that the whole process stays within a cap.

    The process as it is, the network's activations (measured on one empty window) and the label map count; what the
    windows and sums need is worked out by
    :func:`medimg3d.inference.memory_need.plan_stream`.

    Args:
        model: A bundle with ``inference_fast.json``.
        cap: Bytes for the whole process.

    Raises:
        UsageError: The bundle has no ``inference_fast.json``, or the system does not tell its memory.
    """

    def __init__(self, model: Inference, cap: int) -> None:
        from medimg3d.inference.label_map_inferer import LabelMapInferer
        from medimg3d.inference.process_memory import resident_bytes

        if not isinstance(model.inferer, LabelMapInferer):
            raise UsageError(
                f"--memory-gb needs a bundle with configs/inference_fast.json, and {model.facts.name} has none (or it "
                "was turned off); leave --memory-gb away."
            )
        if resident_bytes() is None:
            raise UsageError(
                "--memory-gb needs Linux, which tells how much memory a process holds; leave it away."
            )
        self.model = model
        self.cap = cap
        self._measured: dict[tuple[int, ...], tuple[int, int]] = {}

    def check_beforehand(self, path: Path, *, num_files: int = 1) -> None:
        """Refuse an image that can be neither loaded nor predicted within the cap, before it is read.

        Its header tells what loading takes and how large the preprocessed image will be. Where that depends on its
        content (a crop to the foreground) only the loading is looked at here, and the rest by :meth:`fitted`.

        Args:
            path: Its file; of several, one a channel, the first.
            num_files: Files like it.

        Raises:
            UsageError: It would take more; the message names the least cap that would do.
        """
        from medimg3d.bundle.loading_need import LoadingNeed
        from medimg3d.data.volume_file import read_volume_grid
        from medimg3d.inference.memory_need import DoesNotFitError, gigabytes

        try:
            volume = read_volume_grid(path)
            volume = volume if num_files == 1 else volume.with_channels(num_files)
            loading = LoadingNeed.of(self.model, volume)
        except Medimg3dError:
            return  # loading it will say what is wrong with it
        original = volume.array.shape[: len(loading.image_shape) - 1]
        need = 0
        if loading.is_exact:
            try:
                self._plan(loading.image_shape, original, batch=1)
            except DoesNotFitError as err:
                need = err.least
        need = max(need, _resident() + loading.peak)
        if need > self.cap:
            raise UsageError(
                f"Prediction of an image of {' x '.join(map(str, original))} voxels needs at least {gigabytes(need)} "
                f"of memory and {gigabytes(self.cap, down=True)} are allowed: allow more."
            )

    def fitted(self, image: MetaTensor) -> Inference:
        """The bundle with an inferer that fits one preprocessed image.

        Of the bundle's batch of windows and a batch of one, it takes the one with which fewer windows have to be
        cut; of equals the bundle's.

        Args:
            image: Shape (channels, I, J[, K]); it is in memory already.

        Raises:
            UsageError: Nothing fits; the message names the least cap that would do.
        """
        from medimg3d.inference.recorded_grid import RecordedGrid

        inferer: Any = self.model.inferer
        original = RecordedGrid.of(image).axis_map.original_shape
        loaded = image.numel() * image.element_size()
        plans: dict[int, StreamPlan] = {}
        for batch in sorted({1, inferer.stream.window.sw_batch_size}):
            try:
                plans[batch] = self._plan(tuple(image.shape), original, batch=batch, loaded=loaded)
            except UsageError:
                if not plans:  # the smallest batch does not fit
                    raise
        batch = min(plans, key=lambda one: (plans[one].windows, -one))
        plan = plans[batch]
        _log.info(
            "%d bytes planned of %d: axis %d, tile %s, %d planes a block, %d windows, batch %d",
            plan.need.total, self.cap, plan.axis, plan.tile, plan.block, plan.windows, batch,
        )  # fmt: skip
        planned = inferer.planned(axis=plan.axis, tile=plan.tile, block=plan.block, sw_batch_size=batch)
        return replace(self.model, inferer=planned)

    def _plan(
        self, shape: Sequence[int], original: Sequence[int], *, batch: int, loaded: int = 0
    ) -> StreamPlan:
        """The plan for an image of a shape, of which some bytes are in memory already."""
        from medimg3d.inference.memory_need import FLOAT, plan_stream

        inferer: Any = self.model.inferer
        channels, *spatial = shape
        window = replace(inferer.stream.window, sw_batch_size=batch)
        classes, activations = self._network_need((1, channels, *window.shape(spatial)))
        seam = classes * FLOAT * prod(sorted(spatial)[1:])
        others = (
            _resident()
            - loaded
            + self._label_bytes(original, classes)
            + seam
            + _temporary_bytes()
            + SLACK_BYTES
        )
        return plan_stream(
            window,
            spatial,
            self.cap,
            classes=classes,
            channels=channels,
            averaging=inferer.stream.averaging_of(self.model.network),
            network=others + batch * activations,
        )

    def _label_bytes(self, original: Sequence[int], classes: int) -> int:
        inferer: Any = self.model.inferer
        if inferer.thresholds is not None:
            return prod(original) * (classes + 1)  # a mask a region, and the labels
        return prod(original) * (1 if classes <= 256 else 6)  # uint16 and the int32 made of it

    def _network_need(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Classes, and bytes of activations beside input and output, of one window."""
        if shape not in self._measured:
            import torch

            from medimg3d.inference.first_head import first_head
            from medimg3d.inference.process_memory import peak_of

            inferer: Any = self.model.inferer
            network = inferer.stream.members(self.model.network)[0]  # of several, one runs at a time
            windows = torch.zeros(shape, device=self.model.device)
            with torch.no_grad():
                network(windows)  # what the first call makes for all later ones is in the process already
                output, peak = peak_of(lambda: first_head(network(windows)))
            self._measured[shape] = (
                output.shape[1],
                max(0, (peak or 0) - output.numel() * output.element_size()),
            )
        return self._measured[shape]


def _resident() -> int:
    from medimg3d.inference.process_memory import resident_bytes

    return resident_bytes() or 0


def _temporary_bytes() -> int:
    from medimg3d.inference.side_by_side import SideBySide

    return TEMPORARY_BYTES * max(2, SideBySide().workers)
