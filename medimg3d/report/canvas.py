"""Figures without pyplot, whose global list of figures threads would share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from medimg3d.atomic import atomic_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 150


def new_figure(*, width: float, height: float) -> Figure:
    """An empty figure of its own, drawn by Agg (no display needed); width and height in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_png(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG, making its folder; the same figure gives the same bytes."""
    with atomic_file(path) as part:
        figure.savefig(part, dpi=DPI, format="png", metadata={"Software": None})
    return path
