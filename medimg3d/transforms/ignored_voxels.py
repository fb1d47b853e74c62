"""Voxels that nobody labelled: no patch is centred on them, and they count in no score.

Bundles carry a copy of this file: it imports nothing of medimg3d.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform


class LabelledIndicesd(MapTransform):
    """As MONAI's ``FgBgToIndicesd``, but voxels of the ignored value are neither foreground nor background.

    Adds ``<key>_fg_indices`` and ``<key>_bg_indices``: flat indices into (*spatial,).

    Args:
        keys: Label maps, shape (1, *spatial).
        ignore_label: Value of unlabelled voxels.
        allow_missing_keys: As in MONAI.
    """

    def __init__(self, keys: KeysCollection, ignore_label: int, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.ignore_label = ignore_label

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The item with its indices."""
        item = dict(data)
        for key in self.key_iterator(item):
            flat = torch.as_tensor(item[key]).reshape(-1)
            item[f"{key}_fg_indices"] = torch.nonzero((flat > 0) & (flat != self.ignore_label)).reshape(-1)
            item[f"{key}_bg_indices"] = torch.nonzero(flat == 0).reshape(-1)
        return item


class MaskIgnoredd(MapTransform):
    """Sets everything to 0 where the label has the ignored value, the label itself last.

    Args:
        keys: What is compared with the label: shape (C, *spatial).
        label_key: Label map, shape (1, *spatial).
        ignore_label: Value of unlabelled voxels.
        allow_missing_keys: As in MONAI.
    """

    def __init__(
        self,
        keys: KeysCollection,
        ignore_label: int,
        label_key: str = "label",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.ignore_label = ignore_label
        self.label_key = label_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The item with the ignored voxels blanked."""
        item = dict(data)
        known = item[self.label_key] != self.ignore_label
        for key in (*self.key_iterator(item), self.label_key):
            item[key] = torch.where(known.to(item[key].device), item[key], torch.zeros_like(item[key]))
        return item
