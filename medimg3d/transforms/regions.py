"""Overlapping regions (whole tumour, its core) made of label maps, and label maps made of them.

Bundles carry a copy of this file: it imports nothing of medimg3d.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform


class LabelsToRegionsd(MapTransform):
    """A label map, shape (1, *spatial), becomes one channel a region, shape (R, *spatial).

    Args:
        keys: Label maps.
        regions: Label values of each region.
        allow_missing_keys: As in MONAI.
    """

    def __init__(
        self, keys: KeysCollection, regions: Sequence[Sequence[int]], allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.regions = [list(values) for values in regions]

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The item with regions in place of label maps."""
        item = dict(data)
        for key in self.key_iterator(item):
            parts = [torch.isin(item[key], torch.tensor(values)) for values in self.regions]
            item[key] = torch.cat(parts, dim=0).float()
        return item


class RegionsToLabelsd(MapTransform):
    """Probabilities of regions become a label map: 1 for the first region, and the last one wins where they overlap.

    Args:
        keys: Probabilities, shape (R, *spatial).
        threshold: A voxel belongs to a region whose probability is at least this.
        allow_missing_keys: As in MONAI.
    """

    def __init__(
        self, keys: KeysCollection, threshold: float = 0.5, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.threshold = threshold

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The item with label maps, shape (1, *spatial), in place of probabilities."""
        item = dict(data)
        for key in self.key_iterator(item):
            labels = torch.zeros_like(item[key][:1])
            for number in range(item[key].shape[0]):
                labels[item[key][number : number + 1] >= self.threshold] = number + 1
            item[key] = labels
        return item
