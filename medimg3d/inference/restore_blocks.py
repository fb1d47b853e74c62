"""Finished blocks of a prediction brought back to the grid of the original image, one after the other.

Scores are interpolated linearly, as MONAI's ``Invertd(nearest_interp=False)`` does after ``Activationsd``, and only
then made labels; but no buffer of all classes over a whole volume ever exists. The work goes in tiles that stay in
the processor's cache. In most tiles most classes cannot win, which is known without interpolating them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray

from medimg3d.atomic import atomic_file
from medimg3d.geometry.axis_map import AxisMap
from medimg3d.geometry.linear_sampling import interpolate_tile
from medimg3d.inference.original_grid import Cropped, OriginalGrid, Tile
from medimg3d.inference.side_by_side import SideBySide
from medimg3d.inference.streaming import Block

TOGETHER = 32
"""Classes that are interpolated at one time."""
LEADERS = 8
"""Classes of a tile whose sums are tried as a bound."""


def restore_labels(
    blocks: Iterable[Block],
    axis_map: AxisMap,
    *,
    softmax: bool = False,
    outside_label: int = 0,
    axis: int | None = None,
    cropped: Cropped | None = None,
    box: Sequence[tuple[int, int]] | None = None,
) -> NDArray[np.integer]:
    """The class with the highest interpolated score at every voxel of the original grid; of equals the first.

    Held are the labels, the block with its last planes (see :mod:`medimg3d.inference.block_seams`) and a tile.

    Classes that cannot win in a tile are not interpolated. Interpolated scores lie between those of the voxels
    around, and sums of them likewise: where ``m`` classes sum to ``s`` or more at every voxel of a tile, the highest
    has ``s / m`` or more, and a class that stays below that everywhere loses. This changes no label.

    Args:
        blocks: Of a prediction on the model's grid, at least two classes, in the order of ``stream_windows``.
        axis_map: The original grid on the model's.
        softmax: Turn scores into probabilities first (the network's raw outputs are not: True).
        outside_label: Label of voxels that the model's grid does not reach.
        axis: Streaming axis of the model's grid; needed only if the plane is cut in tiles.
        cropped: Voxels that were cropped away after resampling, before and after every axis of the model's grid;
            negative if padded. Labels then hold as in MONAI's inversion: up to the border of the grid before
            cropping, else less than one voxel beyond the crop. If None, up to half a voxel beyond the model's grid.
        box: Part of the original grid (start and stop of every axis) that was left before resampling.

    Returns:
        Labels, shape ``axis_map.original_shape``; uint8, or uint16 for more than 256 classes.

    Raises:
        ValueError: The blocks do not fit the model's grid or each other, or have fewer than two classes.
    """
    grid = OriginalGrid.of(axis_map, cropped, box)
    softmax = softmax and not grid.is_exact  # the highest score is the highest probability
    labels: NDArray[np.integer] | None = None

    def write(cut: Callable[[], Tile]) -> None:
        tile = cut()
        assert labels is not None
        labels[tile.place] = _winner(tile)

    with SideBySide() as pool:
        for ready in grid.ready_tiles(blocks, axis, softmax=softmax, sigmoid=False):
            if labels is None and ready:
                scores = ready[0]().scores
                labels = _empty_labels(scores.shape[0], axis_map.original_shape, outside_label)
                is_on_cpu = scores.device.type == "cpu"
            pieces = [partial(write, cut) for cut in ready]
            if pieces and is_on_cpu:
                pool.run(pieces)
            else:
                for piece in pieces:
                    piece()
    return np.full(axis_map.original_shape, outside_label, np.uint8) if labels is None else labels


def restore_regions(
    blocks: Iterable[Block],
    axis_map: AxisMap,
    thresholds: Sequence[float] | float = 0.5,
    *,
    softmax: bool = False,
    sigmoid: bool = False,
    axis: int | None = None,
    cropped: Cropped | None = None,
    box: Sequence[tuple[int, int]] | None = None,
) -> NDArray[np.uint8]:
    """Where the interpolated score of each class is at least its threshold; regions may overlap.

    Args:
        blocks: As in :func:`restore_labels`, any number of classes.
        axis_map: The original grid on the model's.
        thresholds: One, or one a class, of the scores after ``softmax`` or ``sigmoid``.
        softmax: Turn scores into probabilities that sum to 1 first.
        sigmoid: Turn each score into a probability of its own first.
        axis: As in :func:`restore_labels`.
        cropped: As in :func:`restore_labels`; scores fade to 0 within one voxel beyond the crop.
        box: As in :func:`restore_labels`.

    Returns:
        Masks of 0 and 1, shape (classes, *axis_map.original_shape), 0 where the model's grid does not reach.

    Raises:
        ValueError: The blocks do not fit, there is another number of thresholds than one or one a class, or both
            ``softmax`` and ``sigmoid``.
    """
    grid = OriginalGrid.of(axis_map, cropped, box)
    regions: NDArray[np.uint8] | None = None
    limits: list[float] = []
    for tile in grid.tiles(blocks, axis, softmax=softmax, sigmoid=sigmoid):
        classes = tile.scores.shape[0]
        if regions is None:
            limits = _one_each(thresholds, classes)
            regions = np.zeros((classes, *axis_map.original_shape), np.uint8)
        highest = tile.scores.flatten(1).amax(1).tolist()
        for one, limit in enumerate(limits):
            if highest[one] >= limit or limit <= 0:
                regions[one][tile.place] = (tile.values([one])[0] >= limit).cpu().numpy()
    return _reached(regions)


def restore_probabilities(
    blocks: Iterable[Block],
    axis_map: AxisMap,
    path: Path | str,
    *,
    dtype: DTypeLike = np.float16,
    softmax: bool = False,
    sigmoid: bool = False,
    axis: int | None = None,
    cropped: Cropped | None = None,
    box: Sequence[tuple[int, int]] | None = None,
) -> None:
    """Write the interpolated scores of all classes to a file, block by block.

    Args:
        blocks: As in :func:`restore_labels`, any number of classes.
        axis_map: The original grid on the model's.
        path: NumPy file (.npy) to make, whole or not at all; its array has shape (classes,
            *axis_map.original_shape), 0 where the model's grid does not reach. Read it with
            ``np.load(path, mmap_mode="r")``.
        dtype: float16 (error at most 0.00025 for probabilities) or float32.
        softmax: As in :func:`restore_regions`.
        sigmoid: As in :func:`restore_regions`.
        axis: As in :func:`restore_labels`.
        cropped: As in :func:`restore_regions`.
        box: As in :func:`restore_labels`.

    Raises:
        ValueError: As in :func:`restore_regions`, or ``dtype`` is another.
    """
    if np.dtype(dtype) not in (np.float16, np.float32):
        raise ValueError(f"dtype must be float16 or float32, got {np.dtype(dtype)}")
    grid = OriginalGrid.of(axis_map, cropped, box)
    with atomic_file(path) as temporary:
        array: np.memmap | None = None
        for tile in grid.tiles(blocks, axis, softmax=softmax, sigmoid=sigmoid):
            if array is None:  # sparse until it is written to: zeros
                shape = (tile.scores.shape[0], *axis_map.original_shape)
                array = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.dtype(dtype), shape=shape)
            for scores, values in zip(array, tile.values().cpu().numpy(), strict=True):
                scores[tile.place] = values
        _reached(array).flush()
        del array


def _empty_labels(classes: int, shape: Sequence[int], outside_label: int) -> NDArray[np.integer]:
    if not 2 <= classes <= 2**16:
        raise ValueError(
            f"The prediction has {classes} classes; expected 2 to 65536, or use restore_regions."
        )
    return np.full(shape, outside_label, np.uint8 if max(classes - 1, outside_label) < 2**8 else np.uint16)


def _one_each(thresholds: Sequence[float] | float, classes: int) -> list[float]:
    limits = np.asarray(thresholds, dtype=float).ravel().tolist()
    if len(limits) not in (1, classes):
        raise ValueError(f"There are {len(limits)} thresholds; expected 1, or {classes}, one for each class.")
    return limits if len(limits) == classes else limits * classes


def _reached(array: NDArray[Any] | None) -> Any:
    if array is None:
        raise ValueError(
            "The model's grid reaches no voxel of the original grid: the two do not belong together."
        )
    return array


def _winner(tile: Tile) -> NDArray[np.integer] | int:
    """The class with the highest interpolated score of every voxel of a tile, or the one class that it has."""
    rivals = _rivals(tile.scores.flatten(1))
    if len(rivals) == 1:
        return rivals[0]
    best: torch.Tensor | None = None
    for at in range(0, len(rivals), TOGETHER):
        some = rivals[at : at + TOGETHER]
        values = interpolate_tile(tile.scores[some], tile.samples)
        highest = values.amax(0)
        numbers = torch.tensor(some, device=values.device)[_first_equal(values, highest).int()]
        if best is None:
            best, winner = highest, numbers
        else:
            winner = torch.where(highest > best, numbers, winner)
            best = torch.maximum(best, highest)
    labels: NDArray[np.integer] = winner.cpu().numpy()
    return labels


def _first_equal(values: torch.Tensor, highest: torch.Tensor) -> torch.Tensor:
    """The first of at most 255 channels that has the highest value; several times as fast as argmax on a CPU."""
    count = values.shape[0]
    if values.device.type == "cpu":
        is_highest = torch.from_numpy(np.equal(values.numpy(), highest.numpy()))
    else:
        is_highest = values == highest
    rank = torch.arange(count, 0, -1, dtype=torch.uint8, device=values.device)
    top = (is_highest.view(torch.uint8) * rank.view(-1, *(1,) * highest.ndim)).amax(0)
    return (count - top).clamp_(max=count - 1)  # none is equal where a score is not a number


def _rivals(scores: torch.Tensor) -> list[int]:
    """Classes that may have the highest interpolated score somewhere in a tile, ascending.

    Args:
        scores: Shape (classes, voxels).
    """
    highest = scores.amax(1)
    leaders = scores.sum(1).topk(min(LEADERS, scores.shape[0])).indices
    sums = scores[leaders].cumsum(0).amin(1)
    bound = (sums / torch.arange(1, len(leaders) + 1, device=sums.device)).amax()
    rounding = 1e-6 * torch.maximum(highest.abs().amax(), bound.abs())
    hopeless = highest < bound - rounding  # a score that is not a number is never hopeless
    return [int(one) for one in torch.nonzero(~hopeless).flatten()]
