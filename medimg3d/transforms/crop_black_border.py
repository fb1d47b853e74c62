"""Crops the black border that collimation or scanning leaves around a film."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import Crop, Cropd
from monai.utils import convert_to_tensor


class CropBlackBorder(Crop):
    """Crop rows and columns at the edges that are black but for a few pixels, such as a burnt-in letter.

    The crop is recorded like MONAI's own, so that ``Invertd`` brings a heat map back onto the whole film.

    Args:
        darkness: What counts as black, as a share of the film's range of values above its lowest, 0 to 1.
        share: A row or column is border if at least this share of its pixels is black, above 0 to 1.

    Raises:
        ValueError: A share is out of range.
    """

    def __init__(self, darkness: float = 0.05, share: float = 0.97) -> None:
        super().__init__()
        if not 0 <= darkness < 1:
            raise ValueError(f"darkness must be in [0, 1), got {darkness}.")
        if not 0 < share <= 1:
            raise ValueError(f"share must be in (0, 1], got {share}.")
        self.darkness = darkness
        self.share = share

    def compute_box(self, img: torch.Tensor) -> tuple[list[int], list[int]]:
        """Where the film begins and ends.

        Args:
            img: Shape (C, rows, columns).

        Returns:
            First row and column, and those behind the last; the whole film if everything is black.
        """
        values: Any = convert_to_tensor(img, track_meta=False)
        grey = values.float().mean(dim=0)
        low, high = grey.min(), grey.max()
        is_black = grey <= low + self.darkness * (high - low)
        rows = _extent(is_black, self.share)
        columns = None if rows is None else _extent(is_black[rows[0] : rows[1]].T, self.share)
        if rows is None or columns is None:
            return [0, 0], list(grey.shape)
        return [rows[0], columns[0]], [rows[1], columns[1]]

    def __call__(self, img: torch.Tensor, lazy: bool | None = None) -> torch.Tensor:  # type: ignore[override]
        """Crop one film, shape (C, rows, columns)."""
        start, end = self.compute_box(img)
        slices = self.compute_slices(roi_start=start, roi_end=end)
        cropped: torch.Tensor = super().__call__(img=img, slices=slices, lazy=lazy)
        return cropped


class CropBlackBorderd(Cropd):
    """Dictionary version of :class:`CropBlackBorder`; every key is cropped to the box of the first.

    Args:
        keys: Images of one film (and its label maps).
        darkness: As for :class:`CropBlackBorder`.
        share: As for :class:`CropBlackBorder`.
        allow_missing_keys: Pass over keys that a case lacks.
    """

    def __init__(
        self,
        keys: KeysCollection,
        darkness: float = 0.05,
        share: float = 0.97,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(
            keys, cropper=CropBlackBorder(darkness, share), allow_missing_keys=allow_missing_keys
        )

    def __call__(self, data: Mapping[Hashable, Any], lazy: bool | None = None) -> dict[Hashable, Any]:
        """Crop the films of one case."""
        item = dict(data)
        cropper: Any = self.cropper
        start, end = cropper.compute_box(item[self.first_key(item)])
        slices = cropper.compute_slices(roi_start=start, roi_end=end)
        for key in self.key_iterator(item):
            item[key] = Crop.__call__(cropper, img=item[key], slices=slices, lazy=bool(lazy))
        return item


def _extent(is_black: torch.Tensor, share: float) -> tuple[int, int] | None:
    """First row that is no border, and the one behind the last; None if all are."""
    is_film = is_black.float().mean(dim=1) < share
    if not bool(is_film.any()):
        return None
    inside = torch.nonzero(is_film).flatten()
    return int(inside[0]), int(inside[-1]) + 1
