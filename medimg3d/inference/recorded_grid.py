"""What a preprocessed image tells of the grid that it came from: read from MONAI's record of transforms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from monai.data import MetaTensor
from numpy.typing import NDArray

from medimg3d.errors import GeometryError
from medimg3d.geometry.axis_map import AxisMap

CLINICAL_TOLERANCE_VOXELS = 0.01
"""Shear and rounding that affines of scanners have; a hundredth of a voxel moves no border."""

_RESAMPLING = ("SpatialResample", "SeparableResample", "Spacing")
_TURNING = ("Orientation", "InPlaceOrientation", "Flip")

Pairs = tuple[tuple[int, int], ...]


@dataclass(frozen=True, eq=False)
class RecordedGrid:
    """Where the voxels of the original image lie on the grid that the network sees.

    Attributes:
        axis_map: The original grid on the model's.
        affine: RAS affine of the original image in mm, shape (4, 4).
        cropped: As in :func:`medimg3d.inference.restore_blocks.restore_labels`.
        box: See there.
    """

    axis_map: AxisMap
    affine: NDArray[np.float64]
    cropped: Pairs | None
    box: Pairs | None

    @classmethod
    def of(cls, image: MetaTensor) -> RecordedGrid:
        """Read the record of one image, shape (channels, I, J[, K]).

        Raises:
            GeometryError: The image does not say what it came from, or its preprocessing holds something that
                cannot be undone block by block: a rotation, a second resampling, ``Resized`` and the like.
        """
        axes = image.ndim - 1
        try:
            original = np.asarray(image.meta["original_affine"], dtype=np.float64)
            shape = tuple(int(size) for size in np.asarray(image.meta["spatial_shape"]).ravel()[:axes])
        except KeyError as err:
            raise GeometryError(
                f"The image has no {err.args[0]}: expected MONAI's LoadImage as the first step of preprocessing."
            ) from err
        model_shape = tuple(image.shape[1:])
        axis_map = AxisMap.between(
            np.asarray(image.affine, dtype=np.float64),
            model_shape,
            original,
            shape,
            tolerance_voxels=CLINICAL_TOLERANCE_VOXELS,
        )
        steps = _Steps.of(image.applied_operations, axes)
        return cls(axis_map, original, steps.cropped, _box(axis_map, steps))


@dataclass(frozen=True)
class _Steps:
    """The steps before and after the one that resampled."""

    resampled_from: tuple[int, ...] | None
    cut_before: bool
    cropped: Pairs | None

    @classmethod
    def of(cls, operations: Sequence[Mapping[Any, Any]], axes: int) -> _Steps:
        resampled_from: tuple[int, ...] | None = None
        cut_before = False
        total = [[0, 0] for _ in range(axes)]
        for operation in operations:
            name = str(operation["class"])
            if name in _RESAMPLING:
                if resampled_from is not None:
                    raise _cannot_undo("a second resampling")
                resampled_from = tuple(int(size) for size in operation["orig_size"])
                cut_before, total = _is_cut(total), [[0, 0] for _ in range(axes)]
            elif name in _TURNING:
                if resampled_from is not None and _is_cut(total):
                    raise _cannot_undo(f"{name} after a crop or pad")
            else:
                _add(total, name, operation["extra_info"], axes)
        if resampled_from is None or not _is_cut(total):
            return cls(resampled_from, cut_before, None)
        return cls(resampled_from, cut_before, tuple((low, high) for low, high in total))


def _add(total: list[list[int]], name: str, info: Mapping[str, Any], axes: int) -> None:
    """Count what a step cropped (above 0) or padded (below 0) at either end of every axis."""
    changes = list(_changes(info, axes))
    if not changes:
        raise _cannot_undo(name)
    for change in changes:
        for axis, pair in enumerate(change):
            for end, voxels in enumerate(pair):
                if voxels * total[axis][end] < 0:
                    raise _cannot_undo("a crop and a pad at the same end of an axis")
                total[axis][end] += voxels


def _changes(info: Mapping[str, Any], axes: int) -> Iterator[Pairs]:
    if "cropped" in info:
        numbers = [int(number) for number in info["cropped"]]
        yield tuple((numbers[2 * axis], numbers[2 * axis + 1]) for axis in range(axes))
    if "padded" in info:
        yield tuple((-int(low), -int(high)) for low, high in list(info["padded"])[1:])
    if "pad_info" in info:
        yield from _changes(info["pad_info"]["extra_info"], axes)


def _is_cut(total: Sequence[Sequence[int]]) -> bool:
    return any(voxels for pair in total for voxels in pair)


def _cannot_undo(what: str) -> GeometryError:
    return GeometryError(
        f"The preprocessing holds {what}, which cannot be undone block by block; expected Orientation, one Spacing, "
        "crops and pads. Use the bundle's plain inference.json."
    )


def _box(axis_map: AxisMap, steps: _Steps) -> Pairs | None:
    """The part of the original grid that a crop before resampling left: resampling keeps its first voxel's centre."""
    if not steps.cut_before or steps.resampled_from is None:
        return None
    cropped = steps.cropped or ((0, 0),) * len(axis_map.scale)
    box = []
    for axis, along in enumerate(axis_map.model_axis):
        scale, size = axis_map.scale[axis], axis_map.original_shape[axis]
        first = round((-cropped[along][0] - axis_map.offset[axis]) / scale)
        length = steps.resampled_from[along]
        start, stop = (first, first + length) if scale > 0 else (first - length + 1, first + 1)
        box.append((max(start, 0), min(stop, size)))
    return tuple(box)
