"""An inferer whose prediction is a label map on the image's original grid, made block by block."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from typing import Any

import torch
from monai.data import MetaTensor, decollate_batch
from monai.inferers import Inferer

from medimg3d.inference.batch_of_one import batch_of_one
from medimg3d.inference.network_mean import AveragedNetworks
from medimg3d.inference.recorded_grid import RecordedGrid
from medimg3d.inference.restore_blocks import restore_labels, restore_regions
from medimg3d.inference.streaming_inferer import StreamingInferer


class LabelMapInferer(Inferer):
    """Stands in a bundle's config for the sliding window and for the inversion and discretization after it.

    The windows are walked slab by slab; each finished block is interpolated to the original grid class by class
    with a running maximum. No buffer of all classes over the volume ever exists. The labels are those of
    ``SlidingWindowInferer``, ``Invertd(nearest_interp=False)`` and ``AsDiscreted(argmax=True)`` wherever the two
    best classes differ by more than rounding.

    Args:
        roi_size: As in :class:`medimg3d.inference.streaming_inferer.StreamingInferer`, like all that follow up to
            ``options``.
        sw_batch_size: See there.
        overlap: See there.
        mode: See there.
        softmax: Interpolate probabilities, as a bundle does that applies ``Activationsd(softmax=True)`` before
            ``Invertd`` or averages softmaxed flips; else the network's raw outputs.
        average_probabilities: With flips: average probabilities (as ``MirroringInferer``), not raw outputs.
        thresholds: Give region labels instead: one, or one a class; a voxel of several regions gets the last
            one. Scores are turned into probabilities of their own (sigmoid) first.
        outside_label: Label of voxels that preprocessing cut away.
        **options: Further arguments of ``StreamingInferer``: ``flips``, ``axis``, ``tile``, ``air_level``,
            ``slice_axis``, …

    Raises:
        ValueError: An argument is out of its range.
    """

    def __init__(
        self,
        roi_size: Sequence[int] | int,
        sw_batch_size: int = 1,
        overlap: Sequence[float] | float = 0.25,
        mode: str = "constant",
        *,
        softmax: bool = False,
        average_probabilities: bool = False,
        thresholds: Sequence[float] | float | None = None,
        outside_label: int = 0,
        **options: Any,
    ) -> None:
        super().__init__()
        self.stream = StreamingInferer(
            roi_size, sw_batch_size, overlap, mode, softmax=average_probabilities, **options
        )
        self.softmax = softmax and not average_probabilities
        self.thresholds = thresholds
        self.outside_label = outside_label
        self.axis = options.get("axis")

    def planned(
        self, *, axis: int, tile: Sequence[int] | None, block: int, sw_batch_size: int
    ) -> LabelMapInferer:
        """As :meth:`medimg3d.inference.streaming_inferer.StreamingInferer.planned`."""
        other = copy(self)
        other.stream = self.stream.planned(axis=axis, tile=tile, block=block, sw_batch_size=sw_batch_size)
        other.axis = axis
        return other

    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> MetaTensor:
        """The label map of one case.

        Args:
            inputs: A preprocessed image as MetaTensor, shape (1, channels, I, J[, K]), with MONAI's record of
                transforms.
            network: As in ``StreamingInferer.blocks``; probabilities of a ``NetworkMean`` get no second softmax.
            *args: Passed on to the network.
            **kwargs: Passed on to the network.

        Returns:
            Labels, shape (1, 1, *original), uint8 or int32, with the original affine.

        Raises:
            ValueError: There is another number of cases than one, or ``thresholds`` of softmax probabilities.
            GeometryError: As :meth:`medimg3d.inference.recorded_grid.RecordedGrid.of`.
        """
        if len(inputs) != 1 or not isinstance(inputs, MetaTensor):
            raise ValueError(
                f"Got {len(inputs)} images as {type(inputs).__name__}; expected one MetaTensor: batch_size 1 in the "
                "loader, and no ToTensord(track_meta=False) in the preprocessing."
            )
        gives_probabilities = AveragedNetworks.of(network).probabilities
        if gives_probabilities and self.thresholds is not None:
            raise ValueError("thresholds need raw outputs; give the NetworkMean softmax=False.")
        image = decollate_batch(inputs)[0]
        grid = RecordedGrid.of(image)
        blocks = self.stream.blocks(image.as_tensor(), network, *args, **kwargs)
        place: dict[str, Any] = {"axis": self.axis, "cropped": grid.cropped, "box": grid.box}
        if self.thresholds is None:
            softmax = self.softmax and not gives_probabilities
            labels = restore_labels(
                blocks, grid.axis_map, softmax=softmax, outside_label=self.outside_label, **place
            )
        else:
            masks = restore_regions(blocks, grid.axis_map, self.thresholds, sigmoid=True, **place)
            labels = masks[0].copy()
            for number, mask in enumerate(masks[1:], start=2):
                labels[mask > 0] = number
        tensor = torch.from_numpy(labels if labels.dtype == "uint8" else labels.astype("int32"))
        meta = {name: value for name, value in image.meta.items() if name != "affine"}
        result = MetaTensor(tensor[None], affine=torch.from_numpy(grid.affine), meta=meta)
        return batch_of_one(result)
