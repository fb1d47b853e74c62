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
MAX_STEPS = 4096  # more different values than this are no steps
MAX_COLUMNS = 3


def count_bars(
    counts: Mapping[str, Mapping[str, int]], path: Path, *, title: str = "", classes: Sequence[str] = ()
) -> Path:
    """A panel for each part of the data, a bar for each class with its count and its share of the part.

    The panels have scales of their own: a part of 16 cases would vanish beside one of 5,000.

    Args:
        counts: Part to class to number of cases.
        path: PNG to write.
        title: Title of the plot.
        classes: Names with colours of their own on the page, in any case of letters; bars of other names are
            grey. If none are given, every bar has the colour of its place.

    Returns:
        ``path``.
    """
    names = list(dict.fromkeys(name for part in counts.values() for name in part))
    figure = new_figure(width=1.0 + 2.9 * max(len(counts), 1), height=0.9 + 0.42 * max(len(names), 2))
    panels = figure.subplots(1, max(len(counts), 1), squeeze=False, sharey=True)[0]
    for axes, (part, own) in zip(panels, counts.items(), strict=False):
        numbers = [own.get(name, 0) for name in names]
        bars = axes.barh(names, numbers, color=_bar_colors(names, classes), height=0.68)
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


def _bar_colors(names: Sequence[str], classes: Sequence[str]) -> list[str]:
    known = [name.lower() for name in classes or names]
    return [class_color(known.index(name.lower())) if name.lower() in known else "0.65" for name in names]


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
    axes.locator_params(axis="x", nbins=6)
    axes.set_ylabel("Share")
    axes.spines[["top", "right"]].set_visible(False)


def _edges(values: Floats) -> NDArray[np.float64]:
    """Borders of the bins; between the steps where values come in steps, so that no bin holds one step more."""
    low, high = (float(end) for end in np.percentile(values, [0.5, 99.5]))
    if high <= low:
        return np.linspace(low - 0.5, low + 0.5, BINS + 1)
    step, start = _step(values), float(values.min())
    if step:
        width = step * max(1.0, np.ceil(((high - low) / step + 1 - 1e-6) / BINS))
        first = start + step * np.floor((low - start) / step + 1e-6)
        return np.arange(first - step / 2, high + width, width)
    return np.linspace(low, high, BINS + 1)


def _step(values: Floats) -> float:
    """Step in which the values come, such as 1 for whole numbers or 1/448 for shares of 448 lines; 0 if in none."""
    distinct = np.unique(np.asarray(values, dtype=np.float64))
    if np.array_equal(distinct, np.rint(distinct)):
        return 1.0
    if len(distinct) > MAX_STEPS:
        return 0.0
    gaps = np.diff(distinct)
    step = float(gaps[gaps > 1e-6 * (distinct[-1] - distinct[0])].min())
    steps = (distinct - distinct[0]) / step
    return step if np.allclose(steps, np.rint(steps), rtol=0, atol=0.02) else 0.0
