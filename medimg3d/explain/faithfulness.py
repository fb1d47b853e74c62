"""Whether a heat map lies where it should: its share inside a mask, and whether its hottest point is in it.

Each figure comes with its chance, what a map gets that knows nothing: on a film whose half is lung, half of
any heat is "inside the lungs".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class AgainstChance:
    """A figure of one case and what chance gives.

    Attributes:
        value: 0 to 1; None where the map has no heat or the mask is empty.
        chance: The same figure for a map that is warm everywhere alike; 0 to 1.
    """

    value: float | None
    chance: float


def share_inside(heat: NDArray[Any], mask: NDArray[Any]) -> AgainstChance:
    """Share of the heat that lies inside a mask, against the mask's share of the image.

    Args:
        heat: Heat map, shape (*spatial); what is negative (against the class) is left out.
        mask: Same shape; not 0 is inside.

    Raises:
        ValueError: The shapes differ.

    Source: "energy-based pointing game", Wang et al. 2020 (Score-CAM), doi:10.1109/CVPRW50498.2020.00020.
    """
    inside = _as_mask(heat, mask)
    positive = np.clip(np.asarray(heat, dtype=np.float64), 0, None)
    total = float(positive.sum())
    defined = total > 0 and bool(inside.any())
    return AgainstChance(float(positive[inside].sum()) / total if defined else None, float(inside.mean()))


def pointing_game(heat: NDArray[Any], mask: NDArray[Any], tolerance: float = 0.0) -> AgainstChance:
    """Whether the hottest point lies in a mask: 1 or 0, against the chance of a point thrown at random.

    Args:
        heat: Heat map, shape (*spatial). If several points are hottest, the one nearest to their middle.
        mask: Same shape; not 0 is inside.
        tolerance: Distance from the mask that still counts, in pixels; the chance grows with it.

    Raises:
        ValueError: The shapes differ, or the tolerance is negative.

    Source: Zhang et al. 2018, doi:10.1007/s11263-017-1059-x.
    """
    from scipy.ndimage import distance_transform_edt

    if tolerance < 0:
        raise ValueError(f"tolerance must be at least 0 pixels, got {tolerance}.")
    inside = _as_mask(heat, mask)
    if not inside.any():
        return AgainstChance(None, 0.0)
    hit = np.asarray(distance_transform_edt(~inside)) <= tolerance
    peak = hottest_point(heat)
    return AgainstChance(None if peak is None else float(hit[peak]), float(hit.mean()))


def hottest_point(heat: NDArray[Any]) -> tuple[int, ...] | None:
    """Index of the hottest point, the one nearest to their middle if several are; None without any heat."""
    peak = float(np.max(heat))
    if not peak > 0:
        return None
    points = np.argwhere(np.asarray(heat) == peak)
    nearest = int(np.argmin(np.square(points - points.mean(axis=0)).sum(axis=1)))
    return tuple(int(index) for index in points[nearest])


def _as_mask(heat: NDArray[Any], mask: NDArray[Any]) -> NDArray[np.bool_]:
    if np.shape(heat) != np.shape(mask):
        raise ValueError(f"Heat map has shape {np.shape(heat)}, mask {np.shape(mask)}; expected one shape.")
    return np.asarray(mask) != 0
