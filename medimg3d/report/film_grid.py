"""Small pictures of several films side by side, each with a line below it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medimg3d.report.canvas import new_figure, save_png

ACROSS = 4
LARGEST_SIDE = 400


@dataclass(frozen=True, eq=False)
class Thumbnail:
    """A film and what stands below it.

    Attributes:
        pixels: Shape (rows, columns), bright = dense.
        caption: Text below; must not name a patient.
        spacing_mm: Distance between rows and between columns, in mm, or None: squares.
    """

    pixels: NDArray[Any]
    caption: str
    spacing_mm: tuple[float, float] | None = None


def film_grid(films: Sequence[Thumbnail], path: Path) -> Path:
    """Draw the films in rows of four, each from its 1st to its 99th percentile of grey.

    Args:
        films: At least one film.
        path: PNG to write.

    Returns:
        ``path``.

    Raises:
        ValueError: There is no film.
    """
    if not films:
        raise ValueError("films is empty; expected at least one.")
    across = min(ACROSS, len(films))
    down = -(-len(films) // across)
    figure = new_figure(width=2.5 * across, height=3.0 * down)
    panels = figure.subplots(down, across, squeeze=False).ravel()
    for axes in panels:
        axes.set_axis_off()
    for axes, film in zip(panels, films, strict=False):
        step = max(1, max(film.pixels.shape) // LARGEST_SIDE)
        pixels = np.asarray(film.pixels, dtype=np.float32)[::step, ::step]
        low, high = np.percentile(pixels, (1, 99))
        row_mm, column_mm = film.spacing_mm or (1.0, 1.0)
        axes.imshow(pixels, cmap="gray", vmin=low, vmax=max(high, low + 1e-6), aspect=row_mm / column_mm)
        axes.set_title(film.caption, fontsize=8, y=-0.03, pad=0, va="top")
    return save_png(figure, path)
