"""Whether a volume is one that a model can be asked about."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medimg3d.data.flat_image import is_flat
from medimg3d.data.volume_file import Volume
from medimg3d.errors import DataError

_PIECE_VOXELS = 1 << 18


def check_volume(volume: Volume, *, num_channels: int, axes: int = 3) -> None:
    """Refuse a volume on which a prediction would be nonsense.

    Args:
        volume: The volume, with three axes, and a fourth one if the model takes several channels; or a 2D image.
        num_channels: Channels that the model takes.
        axes: Axes that the model takes, 2 or 3.

    Raises:
        DataError: As :func:`check_shape` and :func:`check_values`.
    """
    check_shape(volume.array.shape, num_channels=num_channels, axes=axes)
    check_values(volume.array)


def check_shape(shape: tuple[int, ...], *, num_channels: int, axes: int = 3) -> None:
    """Refuse a shape that is no 3D volume of the model's channels; or no 2D image, for a model of those.

    Args:
        shape: Voxels along I, J, K, and channels if there are several.
        num_channels: Channels that the model takes.
        axes: Axes that the model takes, 2 or 3.

    Raises:
        DataError: A 2D image for a model of volumes or the reverse, a series of volumes, or another number of
            channels. Messages start with a verb and hold no path.
    """
    if axes == 2:
        _check_flat(shape, num_channels)
        return
    if is_flat(shape):
        raise DataError(f"is a 2D image (shape {_times(shape)}); this bundle takes 3D volumes")
    channels = shape[3] if len(shape) == 4 else 1
    if len(shape) > 4 or (channels > 1 and num_channels == 1):
        raise DataError(
            f"has {len(shape)} axes (shape {_times(shape)}); this bundle takes one 3D volume. "
            "Split a series into its volumes first"
        )
    if channels != num_channels:
        raise DataError(f"has {channels} channels (shape {_times(shape)}); this bundle takes {num_channels}")


def _check_flat(shape: tuple[int, ...], num_channels: int) -> None:
    if not (len(shape) == 2 or (len(shape) == 3 and shape[2] == 1)):
        raise DataError(f"has the shape {_times(shape)}; this bundle takes 2D images, (I, J) or (I, J, 1)")
    if num_channels != 1:
        raise DataError(f"is a 2D image of one channel; this bundle takes {num_channels}")


def check_values(array: NDArray[Any]) -> None:
    """Refuse voxels that say nothing; looked at in pieces, without a copy.

    Args:
        array: Voxels, at least one, real numbers of any type.

    Raises:
        DataError: Values that are not finite, or one value everywhere.
    """
    broken = 0
    lowest: Any = None
    highest: Any = None
    pieces: Any = np.nditer(
        array, ["external_loop", "buffered"], ["readonly"], order="K", buffersize=_PIECE_VOXELS
    )
    for piece in pieces:
        low, high = piece.min(), piece.max()
        if not (np.isfinite(low) and np.isfinite(high)):  # NaN spreads to both
            broken += piece.size - np.count_nonzero(np.isfinite(piece))
        lowest = low if lowest is None else min(lowest, low)
        highest = high if highest is None else max(highest, high)
    if broken:
        raise DataError(f"has {broken} voxels that are NaN or infinite; expected numbers. Mend the image")
    if lowest == highest:
        raise DataError("has the same value in every voxel; expected an image")


def _times(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))
