"""Fits a bundle's prediction into the memory that the user allows, or says beforehand that it does not fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medimg3d.bundle.inference import Inference
from medimg3d.errors import UsageError

if TYPE_CHECKING:
    from monai.data import MetaTensor

    from medimg3d.inference.memory_need import StreamPlan

TEMPORARY_BYTES = 128 * 2**20
"""Tiles on their way to the original grid, and what else is held for a moment."""


LOADING_COPIES = 2.5
"""Of the image in float32, while it is loaded and resampled."""
FLOAT = 4


class MemoryPlanner:
    """Chooses axis, tiles and window batch so that the whole process stays within a cap.

    The process as it is, the network's activations (measured on one batch of empty windows) and the label map
    count; what the windows and sums need is worked out by
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

    def check_loading(self, path: Path) -> None:
        """Refuse an image whose loading alone would take more than is allowed, before it is read.

        Raises:
            UsageError: It would; the message names the least cap that would do.
        """
        import nibabel

        from medimg3d.inference.memory_need import gigabytes
        from medimg3d.inference.process_memory import resident_bytes

        try:
            shape = nibabel.load(path).shape  # type: ignore[attr-defined]
        except Exception:  # noqa: BLE001 - reading it will say what is wrong with it
            return
        need = (resident_bytes() or 0) + LOADING_COPIES * FLOAT * prod(shape)
        if need > self.cap:
            raise UsageError(
                f"Loading {' x '.join(map(str, shape))} voxels needs about {gigabytes(need)} of memory and "
                f"{gigabytes(self.cap, down=True)} are allowed: allow more."
            )

    def fitted(self, image: MetaTensor) -> Inference:
        """The bundle with an inferer that fits one preprocessed image.

        Args:
            image: Shape (channels, I, J[, K]); it is in memory already.

        Raises:
            UsageError: Nothing fits; the message names the least cap that would do.
        """
        batches = sorted({1, self.model.inferer.stream.window.sw_batch_size}, reverse=True)  # type: ignore[attr-defined]
        for batch in batches:
            try:
                plan = self._plan(image, batch)
            except UsageError:
                if batch == batches[-1]:
                    raise
            else:
                inferer: Any = self.model.inferer
                planned = inferer.planned(
                    axis=plan.axis, tile=plan.tile, block=plan.block, sw_batch_size=batch
                )
                return replace(self.model, inferer=planned)
        raise AssertionError("there is at least one batch size")

    def _plan(self, image: MetaTensor, batch: int) -> StreamPlan:
        from medimg3d.inference.memory_need import plan_stream
        from medimg3d.inference.process_memory import resident_bytes
        from medimg3d.inference.recorded_grid import RecordedGrid

        inferer: Any = self.model.inferer
        spatial = tuple(image.shape[1:])
        window = replace(inferer.stream.window, sw_batch_size=batch)
        classes, activations = self._network_need((batch, image.shape[0], *window.shape(spatial)))
        original = RecordedGrid.of(image).axis_map.original_shape
        plane = prod(sorted(spatial)[1:])
        image_bytes = image.numel() * image.element_size()
        others = (
            (resident_bytes() or 0) - image_bytes + 2 * prod(original) + classes * 4 * plane + TEMPORARY_BYTES
        )
        return plan_stream(
            window,
            spatial,
            self.cap,
            classes=classes,
            channels=image.shape[0],
            averaging=inferer.stream.averaging,
            input_bytes=image.element_size(),
            network=others + activations,
        )

    def _network_need(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Classes, and bytes of activations beside input and output, of one batch of windows."""
        if shape not in self._measured:
            import torch

            from medimg3d.inference.first_head import first_head
            from medimg3d.inference.process_memory import peak_of

            network: Callable[..., Any] = self.model.network
            windows = torch.zeros(shape, device=self.model.device)
            with torch.no_grad():
                output, peak = peak_of(lambda: first_head(network(windows)))
            self._measured[shape] = (
                output.shape[1],
                max(0, (peak or 0) - output.numel() * output.element_size()),
            )
        return self._measured[shape]
