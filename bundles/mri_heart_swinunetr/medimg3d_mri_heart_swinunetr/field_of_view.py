# Copied from medimg3d/transforms/field_of_view.py; do not edit here.
# Source sha256: 006740cec4ebfacd7dc0245f96f7bd10129bbe7ad8d329b995178032fc22f714
"""Brings images of unknown voxel size, of which a few have far more or fewer voxels than the others, to one scale.

Where no voxel size is known, the number of voxels across an image is all that tells how large a structure looks in
it: scans of one kind show about the same field of view.

Bundles carry a copy of this file: it imports nothing of medimg3d.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import InvertibleTransform, MapTransform, SpatialResample
from monai.transforms.utils import scale_affine


class CommonFieldOfViewd(MapTransform, InvertibleTransform):
    """Resamples an image whose longest edge is far from the usual one to that edge; others are left as they are.

    The affine follows, so that the image stays where it is; ``Invertd`` brings a prediction back onto its voxels.

    Args:
        keys: Images, shape (C, I, J[, K]), all on one grid.
        edge: Usual number of voxels along the longest of ``axes``.
        axes: Axes that are looked at and resampled, 0 for I; those in the plane of a stack of slices.
        mode: ``bilinear`` or ``nearest``, one for all keys or one each.
        tolerance: Images of fewer than so many times the usual edge, and more than its inverse, are left alone.
        allow_missing_keys: As in MONAI.

    Raises:
        ValueError: ``edge`` or an axis below 0, no axis, or a tolerance that is not above 1.
    """

    def __init__(
        self,
        keys: KeysCollection,
        edge: float,
        axes: Sequence[int],
        mode: str | Sequence[str] = "bilinear",
        tolerance: float = 1.5,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if edge <= 0 or not axes or min(axes) < 0 or tolerance <= 1:
            raise ValueError(
                f"edge is {edge}, axes {list(axes)}, tolerance {tolerance}; expected an edge above 0, axes counted "
                "from 0, and a tolerance above 1"
            )
        self.edge = float(edge)
        self.axes = tuple(int(axis) for axis in axes)
        self.mode = (mode,) * len(self.keys) if isinstance(mode, str) else tuple(mode)
        self.tolerance = float(tolerance)
        self.resample = SpatialResample(padding_mode="border")

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The item with its images at the usual scale."""
        item = dict(data)
        for key, mode in self.key_iterator(item, self.mode):
            image = item[key]
            shape = [int(size) for size in image.shape[1:]]
            wished = self.shape_of(shape)
            affine = image.affine @ torch.as_tensor(
                scale_affine(shape, wished, centered=True), dtype=image.affine.dtype
            )
            item[key] = self.resample(image, dst_affine=affine, spatial_size=wished, mode=mode)
        return item

    def shape_of(self, shape: Sequence[int]) -> list[int]:
        """Voxels along each axis of the image that comes out for one of ``shape``."""
        times = max(shape[axis] for axis in self.axes) / self.edge
        if 1 / self.tolerance < times < self.tolerance:
            return list(shape)
        return [max(1, round(size / times)) if axis in self.axes else size for axis, size in enumerate(shape)]

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The item on the voxels that it had."""
        item = dict(data)
        for key in self.key_iterator(item):
            item[key] = self.resample.inverse(item[key])
        return item
