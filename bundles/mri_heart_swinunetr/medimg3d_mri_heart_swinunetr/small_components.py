# Copied from medimg3d/transforms/small_components.py; do not edit here.
# Source sha256: 32ba84e1bf8fb2ea31007dc08a3dad097f4b163178471b68fe1c2e585764c1bd
"""Removes islands from a label map: small ones of one label, or all but the largest of the labels taken as one.

MONAI's ``RemoveSmallObjectsd`` takes all voxels of a label for one object in a map of several labels, and one size
for all labels. Its ``KeepLargestConnectedComponentd`` of several labels as one takes a byte a voxel and label.

Bundles carry a copy of this file: it imports nothing of medimg3d.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from numpy.typing import NDArray
from scipy import ndimage


class RemoveSmallComponentsd(MapTransform):
    """Sets the connected components of a label that are smaller than a volume to 0.

    Args:
        keys: Label maps, shape (1, I, J[, K]).
        label: The label; others stay as they are.
        min_volume: Least volume that stays, in the cube of the affine's unit (mm³; voxels where the image states
            no voxel size and its affine is the identity). Voxels touching at a corner are connected.
        allow_missing_keys: As in MONAI.

    Raises:
        ValueError: The label or the volume is below 1, or not above 0.
    """

    def __init__(
        self, keys: KeysCollection, label: int, min_volume: float, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if label < 1 or not min_volume > 0:
            raise ValueError(f"label must be at least 1 and min_volume above 0, got {label} and {min_volume}")
        self.label = label
        self.min_volume = min_volume

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The same with the islands removed, type and geometry kept."""
        result = dict(data)
        for key in self.key_iterator(result):
            image = result[key]
            result[key] = _emptied(image, self._small(_labels(image), _voxel_volume(image)))
        return result

    def _small(self, labels: NDArray[Any], voxel_volume: float) -> NDArray[np.bool_]:
        components = _components(labels == self.label)
        volumes = np.bincount(components.ravel()) * voxel_volume
        is_small = volumes < self.min_volume * (1 - 1e-9)
        is_small[0] = False
        return np.asarray(is_small[components], dtype=np.bool_)


class KeepLargestTogetherd(MapTransform):
    """Sets all to 0 but the largest connected component of what is not 0, whatever its labels.

    Args:
        keys: Label maps, shape (1, I, J[, K]). Voxels touching at a corner are connected.
        allow_missing_keys: As in MONAI.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The same with the islands removed, type and geometry kept."""
        result = dict(data)
        for key in self.key_iterator(result):
            components = _components(_labels(result[key]) != 0)
            sizes = np.bincount(components.ravel())
            sizes[0] = 0
            islands = (components != sizes.argmax()) & (components != 0)
            result[key] = _emptied(result[key], islands)
        return result


def _labels(image: Any) -> NDArray[Any]:
    tensor = image.as_tensor() if isinstance(image, MetaTensor) else torch.as_tensor(image)
    return np.asarray(tensor[0].cpu().numpy())


def _components(mask: NDArray[np.bool_]) -> NDArray[np.int32]:
    structure = ndimage.generate_binary_structure(mask.ndim, mask.ndim)
    components, _ = ndimage.label(mask, structure=structure)
    return np.asarray(components)


def _emptied(image: Any, where: NDArray[np.bool_]) -> Any:
    """A copy of the label map with 0 at some voxels, with its geometry."""
    tensor = image.as_tensor() if isinstance(image, MetaTensor) else torch.as_tensor(image)
    cleaned = tensor.clone()
    cleaned[0][torch.from_numpy(where).to(tensor.device)] = 0
    return MetaTensor(cleaned, meta=image.meta) if isinstance(image, MetaTensor) else cleaned


def _voxel_volume(image: Any) -> float:
    if not isinstance(image, MetaTensor):
        return 1.0
    volume = float(np.prod(np.asarray(image.pixdim, dtype=np.float64)[: image.ndim - 1]))
    return volume or 1.0
