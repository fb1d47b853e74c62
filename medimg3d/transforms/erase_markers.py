"""Erases letters and arrows that are burnt into a film: small, saturated, with sharp edges."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Transform
from monai.utils import convert_to_dst_type, convert_to_numpy
from scipy import ndimage

_RING_PX = 3


class EraseMarkers(Transform):
    """Replace burnt-in markers by the median of what surrounds them.

    A marker is a connected spot of nearly white pixels that is small against the film and much brighter than
    the ring around it. Bones and tubes are larger, or fade into their surroundings, and stay. Markers tell a
    classifier where and by whom a film was taken instead of what it shows.

    Args:
        whiteness: What counts as white, as a share of the film's range of values, above 0 to below 1.
        contrast: How much darker the ring must be, as a share of that range.
        max_area: Largest marker, as a share of the film's area.

    Raises:
        ValueError: A share is out of range.
    """

    def __init__(self, whiteness: float = 0.9, contrast: float = 0.4, max_area: float = 0.01) -> None:
        for name, value in (("whiteness", whiteness), ("contrast", contrast), ("max_area", max_area)):
            if not 0 < value < 1:
                raise ValueError(f"{name} must be between 0 and 1, got {value}.")
        self.whiteness = whiteness
        self.contrast = contrast
        self.max_area = max_area

    def __call__(self, img: Any) -> Any:
        """Erase the markers of one film.

        Args:
            img: Shape (C, rows, columns).

        Returns:
            The film, same shape and type.
        """
        films: Any = convert_to_numpy(img)
        erased = np.stack([self._erase(film) for film in films])
        return convert_to_dst_type(erased, dst=img, dtype=torch.as_tensor(img).dtype)[0]

    def _erase(self, film: np.ndarray) -> np.ndarray:
        low, high = float(film.min()), float(film.max())
        if high <= low:
            return film
        spots, _ = ndimage.label(film >= low + self.whiteness * (high - low))
        result = film.copy()
        for number, box in enumerate(ndimage.find_objects(spots), start=1):
            around = tuple(
                slice(max(0, s.start - _RING_PX), min(size, s.stop + _RING_PX))
                for s, size in zip(box, film.shape, strict=True)
            )
            spot = spots[around] == number
            if spot.sum() > self.max_area * film.size:
                continue
            grown = ndimage.binary_dilation(spot, iterations=_RING_PX)
            inner = ndimage.binary_dilation(spot)  # the blurred edge of the letter goes with it
            ring = grown & ~inner
            if not ring.any():
                continue
            level = float(np.median(film[around][ring]))
            if float(np.median(film[around][spot])) - level >= self.contrast * (high - low):
                result[around][inner] = level
        return result


class EraseMarkersd(MapTransform):
    """Dictionary version of :class:`EraseMarkers`.

    Args:
        keys: Films.
        whiteness: As for :class:`EraseMarkers`.
        contrast: As for :class:`EraseMarkers`.
        max_area: As for :class:`EraseMarkers`.
        allow_missing_keys: Pass over keys that a case lacks.
    """

    def __init__(
        self,
        keys: KeysCollection,
        whiteness: float = 0.9,
        contrast: float = 0.4,
        max_area: float = 0.01,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.eraser = EraseMarkers(whiteness, contrast, max_area)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Erase the markers of each film of one case."""
        item = dict(data)
        for key in self.key_iterator(item):
            item[key] = self.eraser(item[key])
        return item
