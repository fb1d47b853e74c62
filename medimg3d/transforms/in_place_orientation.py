"""MONAI's Orientation without a second copy of the image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor, get_track_meta
from monai.data.utils import to_affine_nd
from monai.transforms import Orientation, Orientationd

SLAB_VOXELS = 1 << 20


class InPlaceOrientation(Orientation):
    """Drop-in for ``monai.transforms.Orientation`` that turns the image in its own memory.

    Voxels, affine and record of the result are MONAI's. Axes are flipped slab by slab where the voxels lie, and
    exchanged by a view, so that the result shares its memory with the image that went in, which is no longer what
    it was: for a pipeline that has just loaded it. Lazy calls, images without affine and images on another device
    than the CPU are MONAI's own.

    Args:
        axcodes: As in MONAI, as all other arguments.
        as_closest_canonical: As in MONAI.
        labels: As in MONAI.
        lazy: As in MONAI.

    Source: Project-MONAI/MONAI 1.6.1, ``monai/transforms/spatial/functional.py``, ``orientation``.
    """

    def __call__(self, data_array: torch.Tensor, lazy: bool | None = None) -> torch.Tensor:
        """Turn an image, shape (channels, *spatial); it is not to be used afterwards."""
        is_lazy = self.lazy if lazy is None else lazy
        if is_lazy or not isinstance(data_array, MetaTensor) or not get_track_meta():
            return super().__call__(data_array, lazy=lazy)
        if data_array.pending_operations or data_array.device.type != "cpu":
            return super().__call__(data_array, lazy=lazy)
        done: Any = super().__call__(_without_voxels(data_array), lazy=False)
        new_axes, flipped = _turn(data_array, done)
        values = data_array.as_tensor()
        flip_in_place(values, flipped)
        return MetaTensor(values.permute(0, *new_axes)).copy_meta_from(done)


class InPlaceOrientationd(Orientationd):
    """Dictionary version of :class:`InPlaceOrientation`; drop-in for ``monai.transforms.Orientationd``.

    Args:
        keys: Images and label maps of one case.
        axcodes: As for :class:`InPlaceOrientation`, as the others.
        as_closest_canonical: See there.
        labels: See there.
        allow_missing_keys: Pass over keys that a case lacks.
        lazy: See there.
    """

    def __init__(
        self,
        keys: KeysCollection,
        axcodes: str | None = None,
        as_closest_canonical: bool = False,
        labels: Sequence[tuple[str, str]] | None = None,
        allow_missing_keys: bool = False,
        lazy: bool = False,
    ) -> None:
        super().__init__(keys, axcodes, as_closest_canonical, labels, allow_missing_keys, lazy)
        self.ornt_transform = InPlaceOrientation(axcodes, as_closest_canonical, labels, lazy)


def flip_in_place(values: torch.Tensor, dims: Sequence[int]) -> None:
    """Reverse the order of voxels along some dimensions, where they lie; a few slabs are held beside them.

    Args:
        values: Any shape; changed.
        dims: Dimensions, 0 for the first.
    """
    if not dims:
        return
    along = tuple(dims)
    first, size = dims[0], values.shape[dims[0]]
    half = size // 2
    step = max(1, SLAB_VOXELS * size // max(1, values.numel()))
    for start in range(0, half, step):
        count = min(step, half - start)
        low = values.narrow(first, start, count)
        high = values.narrow(first, size - start - count, count)
        turned = torch.flip(low, along)
        low.copy_(torch.flip(high, along))
        high.copy_(turned)
    if size % 2:
        middle = values.narrow(first, half, 1)
        middle.copy_(torch.flip(middle, along))


def _without_voxels(image: MetaTensor) -> MetaTensor:
    """An image of the same shape and meta data on torch's device without memory."""
    values = torch.empty(image.shape, dtype=image.dtype, device="meta")
    return MetaTensor(values).copy_meta_from(image)


def _turn(before: MetaTensor, after: MetaTensor) -> tuple[list[int], list[int]]:
    """The old dimension of every new axis, and the old dimensions that are flipped; 0 is the channels'."""
    axes = before.ndim - 1
    old, new = (to_affine_nd(axes, image.affine).numpy().astype(np.float64) for image in (before, after))
    turn = np.rint(np.linalg.solve(old, new)[:axes, :axes])
    rows = np.abs(turn).argmax(axis=0)
    flipped = [int(row) + 1 for column, row in enumerate(rows) if turn[row, column] < 0]
    return [int(row) + 1 for row in rows], sorted(flipped)
