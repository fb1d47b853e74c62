"""Boxes of voxels around a place in the patient: cut them out, and put labels back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medimg3d.errors import GeometryError


@dataclass(frozen=True)
class Box:
    """A box of voxels.

    Attributes:
        start_ijk: First voxel along I, J, K.
        shape: Number of voxels along I, J, K.

    Raises:
        ValueError: A negative start, or no voxel along an axis.
    """

    start_ijk: tuple[int, int, int]
    shape: tuple[int, int, int]

    def __post_init__(self) -> None:
        if min(self.start_ijk) < 0 or min(self.shape) < 1:
            raise ValueError(f"Found start {self.start_ijk}, shape {self.shape}; expected ≥ 0 and ≥ 1.")

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """Index of the box in an array of the whole grid."""
        i, j, k = (slice(start, start + size) for start, size in zip(self.start_ijk, self.shape, strict=True))
        return i, j, k

    def affine(self, whole: NDArray[np.float64]) -> NDArray[np.float64]:
        """Affine of the box: that of the whole grid, moved to the box's first voxel.

        Args:
            whole: RAS affine of the whole grid in mm, shape (4, 4).
        """
        own = np.array(whole, dtype=np.float64)
        own[:3, 3] = whole[:3, :3] @ np.array(self.start_ijk) + whole[:3, 3]
        return own


def box_around(
    center_ras: Sequence[float],
    size_mm: Sequence[float],
    *,
    shape: Sequence[int],
    affine: NDArray[np.float64],
) -> Box:
    """The box of a size whose middle is nearest to a place, along the axes of the grid.

    Args:
        center_ras: Middle of the box in mm, RAS.
        size_mm: Size along the axes I, J, K of the grid, in mm; rounded to whole voxels.
        shape: Shape (I, J, K) of the whole grid.
        affine: RAS affine of the whole grid in mm, shape (4, 4).

    Raises:
        GeometryError: The box reaches out of the grid.
    """
    spacing_mm = np.linalg.norm(affine[:3, :3], axis=0)
    size = np.rint(np.asarray(size_mm) / spacing_mm).astype(int)
    center_ijk = np.linalg.solve(affine, [*center_ras, 1.0])[:3]
    start = np.floor(center_ijk - (size - 1) / 2 + 0.5).astype(int)
    if (start < 0).any() or (start + size > np.asarray(shape)).any():
        raise GeometryError(
            f"A box of {tuple(size_mm)} mm around {tuple(center_ras)} reaches out of the image; "
            "expected it inside. Choose a smaller box or another place."
        )
    return Box((int(start[0]), int(start[1]), int(start[2])), (int(size[0]), int(size[1]), int(size[2])))


def paste(labels: NDArray[Any], box: Box, into: NDArray[Any]) -> None:
    """Put the labels of a box back into an array of the whole grid, in place; background leaves it as it is.

    Args:
        labels: Label map of the box, shape ``box.shape``.
        box: Where it was cut out.
        into: Label map of the whole grid, shape (I, J, K).
    """
    target = into[box.slices]
    target[labels > 0] = labels[labels > 0]
