"""Contrast-limited adaptive histogram equalization (CLAHE) of films, by scikit-image."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Transform
from monai.utils import convert_to_dst_type, convert_to_numpy

from medimg3d.errors import MissingExtraError


class EqualizeContrast(Transform):
    """Raise the contrast of each region of a film, up to a limit; the result lies between 0 and 1.

    Args:
        tiles: Regions along each axis.
        clip_limit: The limit, above 0 to 1; higher gives more contrast, and more noise.

    Raises:
        ValueError: A value is out of range.
        MissingExtraError: scikit-image is not installed.

    Source: Zuiderveld 1994, Contrast limited adaptive histogram equalization, Graphics Gems IV.
    """

    def __init__(self, tiles: int = 8, clip_limit: float = 0.01) -> None:
        if tiles < 1:
            raise ValueError(f"tiles must be at least 1, got {tiles}.")
        if not 0 < clip_limit <= 1:
            raise ValueError(f"clip_limit must be in (0, 1], got {clip_limit}.")
        try:
            import skimage.exposure  # noqa: F401
        except ImportError as err:
            raise MissingExtraError("scikit-image", "xray") from err
        self.tiles = tiles
        self.clip_limit = clip_limit

    def __call__(self, img: Any) -> Any:
        """Equalize one film.

        Args:
            img: Shape (C, rows, columns), any range of values.

        Returns:
            The film, 0 to 1, same shape and type.
        """
        films: Any = convert_to_numpy(img)
        equalized = np.stack([self._equalize(film) for film in films])
        return convert_to_dst_type(equalized, dst=img, dtype=torch.float32)[0]

    def _equalize(self, film: np.ndarray) -> np.ndarray:
        from skimage.exposure import equalize_adapthist

        low, high = float(film.min()), float(film.max())
        if high <= low:
            return np.zeros_like(film, dtype=np.float32)
        unit = (film.astype(np.float64) - low) / (high - low)
        kernel = [max(2, size // self.tiles) for size in film.shape]
        equalized: np.ndarray = equalize_adapthist(unit, kernel_size=kernel, clip_limit=self.clip_limit)
        return equalized.astype(np.float32)


class EqualizeContrastd(MapTransform):
    """Dictionary version of :class:`EqualizeContrast`.

    Args:
        keys: Films.
        tiles: As for :class:`EqualizeContrast`.
        clip_limit: As for :class:`EqualizeContrast`.
        allow_missing_keys: Pass over keys that a case lacks.
    """

    def __init__(
        self,
        keys: KeysCollection,
        tiles: int = 8,
        clip_limit: float = 0.01,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.equalizer = EqualizeContrast(tiles, clip_limit)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Equalize each film of one case."""
        item = dict(data)
        for key in self.key_iterator(item):
            item[key] = self.equalizer(item[key])
        return item
