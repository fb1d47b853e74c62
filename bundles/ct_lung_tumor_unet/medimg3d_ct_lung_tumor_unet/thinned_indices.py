# Copied from medimg3d/transforms/thinned_indices.py; do not edit here.
# Source sha256: 575f8569adeca0ba97496290b35d60c70eb56ed8e999c57f90c5545f534d17e8
"""Positions that patches may be centred on, in a number that does not grow with the image.

Bundles carry a copy of this file: it imports nothing of medimg3d.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from monai.config import KeysCollection
from monai.transforms import MapTransform


class ThinnedIndicesd(MapTransform):
    """Keeps every n-th of the indices that ``FgBgToIndicesd`` made, with n as small as the largest number allows.

    Indices of all background voxels take four times the memory of the image. Every n-th is spread over the image as all
    of them are, and patches that are one voxel apart teach the same.

    Args:
        keys: Indices, shape (N,).
        at_most: Largest number that stays; shorter lists stay as they are.
        allow_missing_keys: As in MONAI.
    """

    def __init__(self, keys: KeysCollection, at_most: int = 65536, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.at_most = at_most

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The item with fewer indices."""
        item = dict(data)
        for key in self.key_iterator(item):
            item[key] = item[key][:: max(1, -(-len(item[key]) // self.at_most))]
        return item
