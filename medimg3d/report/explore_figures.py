"""Plots of a data set: counts, intensities, sizes, and the numbers by which a network could cheat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medimg3d.report.canvas import new_figure, save_png
from medimg3d.report.colors import class_color

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.float64] | NDArray[np.float32]

BINS = 64
MAX_COLUMNS = 3


def count_bars(counts: Mapping[str, Mapping[str, int]], path: Path, *, title: str = "") -> Path:
    """A panel for each part of the data, a bar for each class with its count and its share of the part.

    The panels have scales of their own: a part of 16 cases would vanish beside one of 5,000.

    Args:
        counts: Part to class to number of cases.
        path: PNG to write.
        title: Title of the plot.

    Returns:
        ``path``.
    """
    names = list(dict.fromkeys(name for part in counts.values() for name in part))
    figure = new_figure(width=1.0 + 2.9 * max(len(counts), 1), height=0.9 + 0.42 * max(len(names), 2))
    panels = figure.subplots(1, max(len(counts), 1), squeeze=False, sharey=True)[0]
    for axes, (part, own) in zip(panels, counts.items(), strict=False):
        numbers = [own.get(name, 0) for name in names]
        bars = axes.barh(names, numbers, color=[class_color(n) for n in range(len(names))], height=0.68)
        total = sum(numbers)
        shares = [f"{n:,} ({100 * n / total:.0f} %)" if total else "0" for n in numbers]
        axes.bar_label(bars, shares, padding=3, fontsize=8)
        axes.set_title(f"{part} (n = {total:,})", fontsize=10)
        axes.set_xlim(0, 1.55 * max([*numbers, 1]))
        axes.spines[["top", "right", "bottom"]].set_visible(False)
        axes.set_xticks([])
    panels[0].invert_yaxis()  # shared: the first class on top in every panel
    if title:
        figure.suptitle(title, fontsize=11)
    return save_png(figure, path)


def histograms(panels: Mapping[str, Mapping[str, Floats]], path: Path, *, axis_label: str = "Value") -> Path:
    """A panel for each comparison, an outlined histogram of equal area for each group.

    Args:
        panels: Title of the panel to group to values; drawn from the 0.5th to the 99.5th percentile of all, a
            peak in the first or last bin cut off.
        path: PNG to write.
        axis_label: What the values are.

    Returns:
        ``path``.
    """
    figure, grid = _panels(len(panels), height=2.9)
    for axes, (title, groups) in zip(grid, panels.items(), strict=False):
        _outlined(axes, groups)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel(axis_label)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, fontsize=8)
    return save_png(figure, path)


def size_scatter(sizes: Mapping[str, Sequence[tuple[int, int]]], path: Path) -> Path:
    """Width against height of 2D images, a colour for each part; dots of one size lie on each other.

    Args:
        sizes: Part to (width, height) of its images, in pixels.
        path: PNG to write.

    Returns:
        ``path``.
    """
    figure = new_figure(width=5.2, height=4.2)
    axes = figure.subplots()
    for position, (part, pairs) in enumerate(sizes.items()):
        table = np.array(pairs)
        axes.scatter(
            table[:, 0],
            table[:, 1],
            s=22,
            alpha=0.55,
            linewidths=0,
            color=class_color(position),
            label=f"{part} (n = {len(table):,})",
        )
    axes.set_xlabel("Width (pixels)")
    axes.set_ylabel("Height (pixels)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return save_png(figure, path)


def _panels(count: int, *, height: float) -> tuple[Figure, NDArray[np.object_]]:
    columns = min(max(count, 1), MAX_COLUMNS)
    lines = -(-max(count, 1) // columns)
    figure = new_figure(width=4.1 * columns, height=height * lines)
    grid = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes in grid[count:]:
        axes.set_axis_off()
    return figure, grid


def _outlined(axes: Axes, groups: Mapping[str, Floats]) -> None:
    filled = {name: values for name, values in groups.items() if len(values)}
    if filled:
        edges = _edges(np.concatenate(list(filled.values())))
        highest = 0.0
        for name, values in filled.items():
            heights = np.histogram(values, edges)[0] / len(values)
            color = class_color(list(groups).index(name))
            axes.stairs(heights, edges, color=color, linewidth=1.4, label=name)
            axes.stairs(heights, edges, color=color, alpha=0.12, fill=True)
            highest = max(highest, float(heights[1:-1].max(initial=0.0)))
        axes.set_ylim(0, 1.3 * highest or None)  # black and saturated pixels would flatten the rest
    axes.set_yticks([])
    axes.set_ylabel("Share")
    axes.spines[["top", "right"]].set_visible(False)


def _edges(values: Floats) -> NDArray[np.float64]:
    """Borders of the bins; between whole numbers where all values are whole, so that no bin holds one more."""
    low, high = (float(end) for end in np.percentile(values, [0.5, 99.5]))
    if high <= low:
        return np.linspace(low - 0.5, low + 0.5, BINS + 1)
    if np.array_equal(values, np.rint(values)):
        width = max(1.0, np.ceil((high - low + 1) / BINS))
        return np.arange(np.floor(low) - 0.5, np.ceil(high) + width, width)
    return np.linspace(low, high, BINS + 1)
