"""Clipping at percentiles that only values other than 0 decide: much of many an MRI is empty.

Bundles carry a copy of this file: it imports nothing of medimg3d.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import get_track_meta
from monai.transforms import MapTransform, Transform
from monai.utils import convert_to_dst_type, convert_to_tensor


class ClipNonzeroPercentiles(Transform):
    """Clips each channel at percentiles of its values other than 0; zeros stay 0, and nothing else becomes 0.

    The bounds are values of the channel (those of the nearest rank), so never 0 themselves:
    ``NormalizeIntensity(nonzero=True)`` then counts the same voxels. As MONAI's ``ClipIntensityPercentiles``, it cannot
    be undone.

    Args:
        lower: Lower percentile, 0 to 100.
        upper: Upper percentile, ``lower`` to 100.

    Raises:
        ValueError: Percentiles out of range or order.
    """

    def __init__(self, lower: float, upper: float) -> None:
        if not 0 <= lower <= upper <= 100:
            raise ValueError(f"lower and upper must be ascending in [0, 100], got {lower} and {upper}.")
        self.lower = lower
        self.upper = upper

    def __call__(self, img: Any) -> Any:
        """Clip one image.

        Args:
            img: Shape (C, *spatial).

        Returns:
            The clipped image, float32, with its metadata; a channel of zeros alone stays as it is.
        """
        image = convert_to_tensor(img, track_meta=get_track_meta())
        values = convert_to_tensor(image, dtype=torch.float32, track_meta=False)
        clipped = torch.stack([self._clip(channel) for channel in values])
        return convert_to_dst_type(clipped, dst=image, dtype=torch.float32)[0]

    def _clip(self, channel: torch.Tensor) -> torch.Tensor:
        counted = channel != 0
        if not counted.any():
            return channel
        values = channel[counted].cpu().numpy()  # a copy, which may be sorted
        low, high = np.percentile(values, (self.lower, self.upper), method="nearest", overwrite_input=True)
        return torch.where(counted, channel.clamp(float(low), float(high)), channel)


class ClipNonzeroPercentilesd(MapTransform):
    """:class:`ClipNonzeroPercentiles` for dictionaries.

    Args:
        keys: Images, shape (C, *spatial).
        lower: Lower percentile, 0 to 100.
        upper: Upper percentile, ``lower`` to 100.
        allow_missing_keys: As in MONAI.
    """

    def __init__(
        self, keys: KeysCollection, lower: float, upper: float, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.clipper = ClipNonzeroPercentiles(lower, upper)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The item with its images clipped."""
        item = dict(data)
        for key in self.key_iterator(item):
            item[key] = self.clipper(item[key])
        return item
