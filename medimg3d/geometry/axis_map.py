"""How the voxels of one grid lie on another whose axes are parallel: an axis, a scale and an offset each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medimg3d.errors import GeometryError

TOLERANCE_VOXELS = 1e-4


@dataclass(frozen=True)
class AxisMap:
    """Where the voxels of an original grid lie on the model's grid.

    Voxel ``i`` along original axis ``a`` lies at ``scale[a] * i + offset[a]`` along model axis
    ``model_axis[a]``, in voxels, 0 the centre of the first.

    Args:
        model_axis: For every original axis the model's.
        scale: Model voxels per original voxel, negative where the axis is flipped.
        offset: Place of the original grid's first voxel, in model voxels.
        model_shape: Voxels of the model's grid.
        original_shape: Voxels of the original grid.

    Raises:
        ValueError: The numbers do not fit each other, or a scale is 0.
    """

    model_axis: tuple[int, ...]
    scale: tuple[float, ...]
    offset: tuple[float, ...]
    model_shape: tuple[int, ...]
    original_shape: tuple[int, ...]

    def __post_init__(self) -> None:
        axes = len(self.original_shape)
        if sorted(self.model_axis) != list(range(axes)):
            raise ValueError(f"model_axis must name each of {axes} axes once, got {self.model_axis}")
        if not len(self.scale) == len(self.offset) == len(self.model_shape) == axes:
            raise ValueError(f"scale, offset and model_shape must have {axes} numbers, one for each axis")
        if not all(self.scale):
            raise ValueError(f"scale must not be 0, got {self.scale}")

    @classmethod
    def between(
        cls,
        model_affine: ArrayLike,
        model_shape: Sequence[int],
        original_affine: ArrayLike,
        original_shape: Sequence[int],
        *,
        tolerance_voxels: float = TOLERANCE_VOXELS,
    ) -> AxisMap:
        """The map between two grids in space.

        The grids may be oblique, as long as their axes are parallel. A scale of 1 and a whole offset that are
        met within the tolerance are taken as exact.

        Args:
            model_affine: Voxels to mm, shape (4, 4) or (axes + 1, axes + 1); of a 2D grid in a larger matrix the
                first two axes count, as in MONAI.
            model_shape: Voxels of the model's grid, without channels.
            original_affine: As ``model_affine``, for the original grid.
            original_shape: Voxels of the original grid, without channels.
            tolerance_voxels: How far, in model voxels, a voxel of the original grid may lie from where the map
                says. Direction cosines that a scanner rounds to six digits need 0.001 to 0.01.

        Raises:
            GeometryError: The axes are not parallel within the tolerance over the whole original grid, or an
                affine cannot be inverted.
        """
        axes = len(original_shape)
        if len(model_shape) != axes:
            raise GeometryError(f"The model's grid has {len(model_shape)} axes and the image's {axes}.")
        forth = _voxel_matrix(_spatial(model_affine, axes), _spatial(original_affine, axes))
        linear = forth[:axes, :axes]
        model_axis = tuple(int(row) for row in np.abs(linear).argmax(axis=0))
        middle = np.maximum(np.asarray(original_shape) - 1, 0) / 2  # where the map is right if axes are askew
        rest = linear.copy()
        rest[model_axis, range(axes)] = 0
        error = float((np.abs(rest) @ middle).max())
        if sorted(model_axis) != list(range(axes)) or error > tolerance_voxels:
            raise GeometryError(
                f"The axes of the model's grid are turned or sheared against the image's (by up to {error:.2g} "
                f"voxels; expected at most {tolerance_voxels:g}), so the prediction cannot be brought back "
                "block by block: leave out transforms that rotate, or use the bundle's plain inference."
            )
        pairs = [
            _exact_if_close(
                float(linear[row, a]), float(forth[row, axes] + rest[row] @ middle), original_shape[a]
            )
            for a, row in enumerate(model_axis)
        ]
        return cls(
            model_axis=model_axis,
            scale=tuple(scale for scale, _ in pairs),
            offset=tuple(offset for _, offset in pairs),
            model_shape=tuple(int(size) for size in model_shape),
            original_shape=tuple(int(size) for size in original_shape),
        )

    def coordinates(self, axis: int) -> NDArray[np.float64]:
        """Places of the voxels along one original axis, in model voxels, shape (voxels,)."""
        return self.scale[axis] * np.arange(self.original_shape[axis], dtype=np.float64) + self.offset[axis]


def _spatial(affine: ArrayLike, axes: int) -> NDArray[np.float64]:
    """The rows and columns of the image's axes, with the origin."""
    matrix = np.asarray(affine, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.shape[0] <= axes:
        raise GeometryError(f"An affine has shape {matrix.shape}; expected ({axes + 1}, {axes + 1}) or more.")
    keep = [*range(axes), -1]
    spatial: NDArray[np.float64] = matrix[np.ix_(keep, keep)]
    return spatial


def _voxel_matrix(model: NDArray[np.float64], original: NDArray[np.float64]) -> NDArray[np.float64]:
    """Original voxels to model voxels."""
    try:
        matrix = np.asarray(np.linalg.solve(model, original), dtype=np.float64)
    except np.linalg.LinAlgError as err:
        raise GeometryError("The affine of the model's grid is singular; expected one per voxel.") from err
    if not np.isfinite(matrix).all():
        raise GeometryError("An affine holds numbers that are not finite; expected voxels to mm.")
    return matrix


def _exact_if_close(scale: float, offset: float, size: int) -> tuple[float, float]:
    """A step of one voxel from a whole offset, where that is meant."""
    whole = float(np.copysign(1.0, scale)), float(np.round(offset))
    last = max(size - 1, 0)
    apart = max(abs(offset - whole[1]), abs(scale * last + offset - whole[0] * last - whole[1]))
    return whole if apart <= TOLERANCE_VOXELS else (scale, offset)
