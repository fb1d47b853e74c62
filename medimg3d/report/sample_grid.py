"""Sample images of a data set side by side, each with the outlines of its label map."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medimg3d.data.pixels import Pixels
from medimg3d.report.canvas import new_figure, save_png
from medimg3d.report.colors import class_color
from medimg3d.report.overlays import PLANES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_SIDE = 320
MAX_NAME = 24


@dataclass(frozen=True, eq=False)
class Sample:
    """One picture of the grid.

    Attributes:
        name: Written above it; must not name a patient.
        picture: Shape (rows, columns), the first row on top.
        label: Label map of the same shape; None without.
        window: Values shown as black and as white.
        aspect: Height of a pixel over its width.
    """

    name: str
    picture: NDArray[Any]
    label: NDArray[Any] | None
    window: tuple[float, float]
    aspect: float = 1.0


def sample_of(name: str, image: Pixels, label: Pixels | None, window: tuple[float, float]) -> Sample:
    """A picture of an image: itself, or of a volume the slice with most labelled voxels, else the middle one.

    Volumes are cut across their longest voxel side (axial if the sides are alike) and shown the radiological
    way: the patient's right is on the left.
    """
    array = image.array[..., 0] if image.array.ndim == 4 else image.array
    marks = None if label is None else label.array
    marks = marks if marks is not None and marks.shape == array.shape else None
    spacing = image.spacing_mm
    if array.ndim == 2:
        aspect = spacing[1] / spacing[0] if spacing and len(spacing) > 1 else 1.0
        return _reduced(Sample(name, array.T, None if marks is None else marks.T, window, aspect))
    return _reduced(_section(name, array, marks, image, window))


def sample_grid(
    rows: Sequence[tuple[str, Sequence[Sample]]], path: Path, *, label_names: Mapping[int, str] | None = None
) -> Path:
    """Draw rows of samples, each row with its title at the left.

    Args:
        rows: Title and samples; rows may differ in length.
        path: PNG to write.
        label_names: Label value to structure, for the legend of the outlines.

    Returns:
        ``path``.
    """
    columns = max((len(samples) for _, samples in rows), default=1) or 1
    figure = new_figure(width=0.5 + 1.75 * columns, height=2.05 * max(len(rows), 1))
    grid = figure.subplots(max(len(rows), 1), columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for line, (title, samples) in zip(grid, rows, strict=True):
        # beside an invisible axis only text is left of the row
        line[0].text(
            -0.06, 0.5, title, transform=line[0].transAxes, rotation=90, ha="right", va="center", fontsize=10
        )
        for axes, sample in zip(line, samples, strict=False):
            _draw(axes, sample)
    _legend(figure, rows, label_names or {})
    return save_png(figure, path)


def _legend(
    figure: Figure, rows: Sequence[tuple[str, Sequence[Sample]]], label_names: Mapping[int, str]
) -> None:
    """Names the outlines that were drawn."""
    from matplotlib.lines import Line2D

    labels = [sample.label for _, samples in rows for sample in samples if sample.label is not None]
    values = sorted({int(value) for label in labels for value in np.unique(label) if value})
    handles = [
        Line2D([], [], color=class_color(value - 1), label=label_names.get(value) or f"label {value}")
        for value in values
    ]
    if handles:
        figure.legend(
            handles=handles, loc="outside lower center", ncols=min(len(handles), 6), fontsize=8, frameon=False
        )


def _section(
    name: str, array: NDArray[Any], marks: NDArray[Any] | None, image: Pixels, window: tuple[float, float]
) -> Sample:
    from nibabel.orientations import apply_orientation, io_orientation

    affine = np.eye(4) if image.affine is None else image.affine
    turn = io_orientation(affine)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)[np.argsort(turn[:, 0])]
    array = apply_orientation(array, turn)
    marks = None if marks is None else apply_orientation(marks, turn)
    through = int(np.argmax(spacing)) if spacing.max() > 1.5 * np.median(spacing) else 2
    plane = next(plane for plane in PLANES if plane.through == through)
    index = array.shape[through] // 2 if marks is None else _fullest(marks, through)
    turned = plane.across < plane.up

    def cut(volume: NDArray[Any]) -> NDArray[Any]:
        section = np.take(volume, index, axis=through)
        return (section.T if turned else section)[::-1, ::-1]

    aspect = float(spacing[plane.up] / spacing[plane.across])
    return Sample(name, cut(array), None if marks is None else cut(marks), window, aspect)


def _fullest(marks: NDArray[Any], through: int) -> int:
    counts = np.count_nonzero(marks, axis=tuple(axis for axis in range(3) if axis != through))
    best = np.flatnonzero(counts == counts.max())
    return int(best[len(best) // 2])


def _reduced(sample: Sample) -> Sample:
    """Means of blocks, so that a film of thousands of pixels takes the room of its thumbnail."""
    step = math.ceil(max(sample.picture.shape) / MAX_SIDE)
    if step == 1:
        return sample
    rows, columns = (size // step for size in sample.picture.shape)
    if not rows or not columns:
        return sample
    blocks = sample.picture[: rows * step, : columns * step].reshape(rows, step, columns, step)
    label = None if sample.label is None else sample.label[: rows * step : step, : columns * step : step]
    return Sample(sample.name, blocks.mean(axis=(1, 3)), label, sample.window, sample.aspect)


def _draw(axes: Axes, sample: Sample) -> None:
    low, high = sample.window
    axes.imshow(
        sample.picture, cmap="gray", vmin=low, vmax=high if high > low else low + 1, aspect=sample.aspect
    )
    name = sample.name if len(sample.name) <= MAX_NAME else f"{sample.name[: MAX_NAME - 1]}…"
    axes.set_title(name, fontsize=6.5, pad=2)
    if sample.label is None:
        return
    for value in np.unique(sample.label):
        if value:
            axes.contour(
                sample.label == value, levels=[0.5], colors=[class_color(int(value) - 1)], linewidths=0.9
            )
