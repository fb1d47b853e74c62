"""The picture of experiments: mean Dice of each, and its difference to the first, as points with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medimg3d.report.canvas import new_figure, save_png
from medimg3d.report.colors import class_color

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_NAME = 44
"""Letters of a name in the picture; the middle of a longer one is left out."""

Row = tuple[str, Mapping[str, Any] | None, Mapping[str, Any] | None]
"""Name, figure (``mean``, ``low``, ``high``) and difference to the first."""


def experiments_plot(rows: Sequence[Row], path: Path, *, first: str) -> Path:
    """A line an experiment, the first on top; left its mean Dice, right its difference to the first.

    Args:
        rows: What each reached; None where there is nothing to draw.
        path: PNG to write.
        first: Name of the experiment that the others are compared with.

    Returns:
        ``path``.
    """
    with_differences = any(difference is not None for _, _, difference in rows)
    figure = new_figure(width=9.6 if with_differences else 6.4, height=1.1 + 0.36 * max(len(rows), 2))
    panels = figure.subplots(1, 2 if with_differences else 1, squeeze=False, sharey=True)[0]
    _draw(panels[0], [dice for _, dice, _ in rows], "Mean Dice", class_color(1))
    if with_differences:
        panels[1].axvline(0, color="0.35", linewidth=1, zorder=1)
        _draw(
            panels[1],
            [difference for _, _, difference in rows],
            f"Difference to {_short(first)}",
            class_color(5),
        )
    panels[0].set_yticks(range(len(rows)), [_short(name) for name, _, _ in rows])
    panels[0].set_ylim(len(rows) - 0.5, -0.5)
    return save_png(figure, path)


def _draw(axes: Axes, figures: Sequence[Mapping[str, Any] | None], label: str, color: str) -> None:
    for position, figure in enumerate(figures):
        if figure is None or figure["mean"] is None:
            continue
        if figure["low"] is not None:
            axes.plot([figure["low"], figure["high"]], [position, position], color=color, linewidth=2)
        axes.plot(figure["mean"], position, marker="o", markersize=6, color=color)
    axes.set_xlabel(label)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="both", color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.locator_params(axis="x", nbins=6)


def _short(name: str) -> str:
    half = (MAX_NAME - 1) // 2
    return name if len(name) <= MAX_NAME else f"{name[:half]}…{name[-half:]}"
