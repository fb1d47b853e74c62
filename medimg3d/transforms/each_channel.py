"""A random transform that draws and works anew for each channel: CT, PET and MRI in one image have no common scale.

MONAI's ``RandAdjustContrast`` takes one gamma, range, mean and deviation over all channels.

Bundles carry a copy of this file: it imports nothing of medimg3d.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable


class RandEachChanneld(Randomizable, MapTransform):
    """Applies a random transform to each channel alone.

    Args:
        keys: Images, shape (C, *spatial).
        transform: A random transform of arrays; gets and gives shape (1, *spatial), and draws for each channel.
        allow_missing_keys: As in MONAI.
    """

    def __init__(self, keys: KeysCollection, transform: Any, allow_missing_keys: bool = False) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        self.transform = transform

    def set_random_state(
        self, seed: int | None = None, state: np.random.RandomState | None = None
    ) -> RandEachChanneld:
        """Seed the transform, as MONAI's own transforms of dictionaries do."""
        super().set_random_state(seed, state)
        self.transform.set_random_state(seed, state)
        return self

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The item with its channels transformed."""
        item = dict(data)
        for key in self.key_iterator(item):
            image = item[key]
            item[key] = torch.cat([self.transform(image[one : one + 1]) for one in range(image.shape[0])])
        return item
