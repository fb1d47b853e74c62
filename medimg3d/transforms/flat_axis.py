"""2D images that are stored as volumes of one slice, (I, J, 1).

Bundles carry a copy of this file: it imports nothing of medimg3d.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from monai.config import KeysCollection
from monai.transforms import MapTransform, SqueezeDim


class DropFlatAxisd(MapTransform):
    """Takes away the third axis of an image of one slice; an image of two axes stays as it is.

    Args:
        keys: Images, shape (C, I, J) or (C, I, J, 1), which become (C, I, J).
        allow_missing_keys: As in MONAI.
    """

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self._drop = SqueezeDim(dim=-1)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The item with its images in two axes.

        Raises:
            ValueError: An image has several slices.
        """
        item = dict(data)
        for key in self.key_iterator(item):
            if item[key].ndim == 4:
                item[key] = self._drop(item[key])
        return item
