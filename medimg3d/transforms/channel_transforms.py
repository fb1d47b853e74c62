"""Transforms of one's own for each channel: Hounsfield units, uptake values and MRI in one image.

Bundles carry a copy of this file: it imports nothing of medimg3d.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform


class ChannelTransformsd(MapTransform):
    """Applies to each channel its own transform.

    Args:
        keys: Images, shape (C, *spatial).
        transforms: One a channel; each gets and gives shape (1, *spatial).
        allow_missing_keys: As in MONAI.
    """

    def __init__(
        self,
        keys: KeysCollection,
        transforms: Sequence[Callable[[Any], Any]],
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.transforms = list(transforms)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The item with its channels transformed, float32.

        Raises:
            ValueError: An image has another number of channels than there are transforms.
        """
        item = dict(data)
        for key in self.key_iterator(item):
            image = item[key]
            if image.shape[0] != len(self.transforms):
                raise ValueError(f"{key} has {image.shape[0]} channels; expected {len(self.transforms)}.")
            result = image.to(torch.float32)
            for channel, transform in enumerate(self.transforms):
                result[channel : channel + 1] = transform(image[channel : channel + 1])
            item[key] = result
        return item
