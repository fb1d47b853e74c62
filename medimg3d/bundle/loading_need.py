"""What loading and preprocessing one image takes, and the image that comes of it, worked out from its header."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from medimg3d.bundle.inference import Inference
from medimg3d.bundle.load_case import fast_reader
from medimg3d.data.volume_file import Volume

if TYPE_CHECKING:
    from medimg3d.data.fast_nifti_reader import FastNiftiReader

FLOAT = 4
OTHER_READERS = 12
"""Bytes a voxel while MONAI's own reader makes a turned float32 image of it."""
INTENSITY_COPIES = 4
"""Copies of the resampled image while its intensities are worked out."""
FINDER_SCORES = 8
"""Numbers a coarse voxel that a region finder's windows add up to."""
READ_PLANES = 32
FIXED = 16 * 2**20

_MEASURED: WeakKeyDictionary[Any, int] = WeakKeyDictionary()
"""Region finder → bytes that its network holds for one window."""


@dataclass(frozen=True)
class LoadingNeed:
    """Bytes and shape of one image on its way to the network.

    Attributes:
        peak: Bytes that are held at most while it is loaded and preprocessed.
        image_shape: Shape of the preprocessed image, (channels, I, J[, K]); the largest that it can have if it is
            cropped by its content.
        is_exact: Whether it has just that shape.
    """

    peak: int
    image_shape: tuple[int, ...]
    is_exact: bool

    @classmethod
    def of(cls, model: Inference, volume: Volume) -> LoadingNeed:
        """The need of a volume that :func:`medimg3d.data.volume_file.read_volume_grid` gave."""
        shape, is_exact = _preprocessed_shape(model.preprocessing, volume)
        resampled = prod(shape) * FLOAT
        original = _original_bytes(model, volume)
        plane = prod(volume.array.shape) // volume.array.shape[2] if volume.array.ndim > 2 else 0
        slabs = READ_PLANES * plane * volume.array.itemsize
        finding = original + _finder_bytes(model, volume)
        most = max(original + resampled, INTENSITY_COPIES * resampled, finding)
        return cls(FIXED + slabs + most, shape, is_exact)


def _original_bytes(model: Inference, volume: Volume) -> int:
    from monai.transforms import Orientationd

    from medimg3d.transforms.in_place_orientation import InPlaceOrientationd

    reader: FastNiftiReader | None = fast_reader(model.preprocessing)
    if reader is None or model.image_axes != 3:
        return volume.array.size * OTHER_READERS
    steps: Any = model.preprocessing
    copies = any(
        isinstance(s, Orientationd) and not isinstance(s, InPlaceOrientationd) for s in steps.transforms
    )
    return volume.array.size * reader.loaded_type(volume.array.dtype).itemsize * (1 + copies)


def _finder_bytes(model: Inference, volume: Volume) -> int:
    """What the bundle's region finder holds beside the original image; 0 without one.

    Where it finds nothing, the whole image is prepared, which the caller counts.
    """
    from medimg3d.bundle.finder import region_step
    from medimg3d.inference.process_memory import peak_of

    place = region_step(model.preprocessing)
    if place is None:
        return 0
    steps: Any = model.preprocessing
    region, channels = steps.transforms[place].region, model.facts.num_channels
    if region not in _MEASURED:
        region.run_empty(channels)  # what the first call makes for all later ones is in the process then
        _MEASURED[region] = peak_of(lambda: region.run_empty(channels))[1] or 0
    coarse = region.coarse_voxels(volume.array.shape[:3], volume.spacing_mm)
    return _MEASURED[region] + coarse * FLOAT * (INTENSITY_COPIES * channels + FINDER_SCORES)


def _preprocessed_shape(preprocessing: Any, volume: Volume) -> tuple[tuple[int, ...], bool]:
    """Lead an image without memory through all steps but the first; steps that need its values are passed over."""
    from monai.transforms import Compose

    item: dict[str, Any] = {"image": _without_memory(volume)}
    is_exact = True
    steps = preprocessing.transforms[1:] if isinstance(preprocessing, Compose) else ()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for step in steps:
            try:
                item = step(item)
            except Exception:  # noqa: BLE001 - it wants values, and there are none
                is_exact = is_exact and type(step).__module__.startswith("monai.transforms.intensity")
    shape = tuple(int(size) for size in item["image"].shape)
    if not steps:
        return (1, *shape), False
    return shape, is_exact


def _without_memory(volume: Volume) -> Any:
    import torch
    from monai.data import MetaTensor

    shape = volume.array.shape
    meta = {
        "original_channel_dim": float("nan") if len(shape) <= 3 else -1,
        "spatial_shape": np.asarray(shape[:3]),
        "original_affine": volume.affine,
    }
    return MetaTensor(
        torch.empty(shape, device="meta"), affine=torch.from_numpy(volume.affine.copy()), meta=meta
    )
