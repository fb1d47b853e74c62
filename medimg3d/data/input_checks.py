"""Whether a volume is one that a model can be asked about."""

from __future__ import annotations

import numpy as np

from medimg3d.data.volume_file import Volume
from medimg3d.errors import DataError


def check_volume(volume: Volume, *, num_channels: int) -> None:
    """Refuse a volume on which a prediction would be nonsense.

    Args:
        volume: The volume, with three axes, and a fourth one if the model takes several channels.
        num_channels: Channels that the model takes.

    Raises:
        DataError: A 2D image, a series of volumes, another number of channels, values that are not finite, or
            one value everywhere. Messages start with a verb and hold no path.
    """
    shape = volume.array.shape
    if len(shape) < 3 or min(shape[:3]) == 1:
        raise DataError(f"is a 2D image (shape {_times(shape)}); this bundle takes 3D volumes")
    channels = shape[3] if len(shape) == 4 else 1
    if len(shape) > 4 or (channels > 1 and num_channels == 1):
        raise DataError(
            f"has {len(shape)} axes (shape {_times(shape)}); this bundle takes one 3D volume. "
            "Split a series into its volumes first"
        )
    if channels != num_channels:
        raise DataError(f"has {channels} channels (shape {_times(shape)}); this bundle takes {num_channels}")
    _check_values(volume)


def _check_values(volume: Volume) -> None:
    array = volume.array
    broken = array.size - np.count_nonzero(np.isfinite(array)) if array.dtype.kind == "f" else 0
    if broken:
        raise DataError(f"has {broken} voxels that are NaN or infinite; expected numbers. Mend the image")
    if array.min() == array.max():
        raise DataError("has the same value in every voxel; expected an image")


def _times(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))
