"""One case as a batch, without the copy that MONAI's collation makes of its voxels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from monai.data import MetaTensor, list_data_collate
from monai.data.utils import collate_meta_tensor


def batch_of_one(image: MetaTensor) -> MetaTensor:
    """An image as a batch that shares its memory, with meta data as ``monai.data.utils.collate_meta_tensor``.

    Args:
        image: Shape (channels, *spatial).

    Returns:
        Shape (1, channels, *spatial).
    """
    batch: MetaTensor = collate_meta_tensor([_without_voxels(image)])
    return _with_voxels(image, batch)


def batch_of_one_item(item: Mapping[str, Any]) -> dict[str, Any]:
    """A case as ``monai.data.list_data_collate`` would make a batch of it, its images' memory shared.

    Args:
        item: Key → image, shape (channels, *spatial), or anything that can be collated.
    """
    images = {key: value for key, value in item.items() if isinstance(value, MetaTensor)}
    stand_ins = {key: _without_voxels(image) for key, image in images.items()}
    batch: dict[str, Any] = list_data_collate([{**item, **stand_ins}])
    return batch | {key: _with_voxels(image, batch[key]) for key, image in images.items()}


def _without_voxels(image: MetaTensor) -> MetaTensor:
    values = torch.empty(image.shape, dtype=image.dtype, device="meta")
    return MetaTensor(values).copy_meta_from(image)


def _with_voxels(image: MetaTensor, batch: MetaTensor) -> MetaTensor:
    return MetaTensor(image.as_tensor()[None]).copy_meta_from(batch)
