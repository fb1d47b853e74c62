"""Plots for reports: box plots of a metric by class, and the history of a training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medimg3d.report.canvas import new_figure, save_png
from medimg3d.report.colors import class_color

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEAST_SPAN = 0.1
"""Of Dice: the least that the vertical axis of a history shows."""


def box_plot(values: Mapping[str, Sequence[float]], path: Path, *, axis_label: str, title: str = "") -> Path:
    """One box a class with every case as a point; quartiles, median, whiskers to 1.5 quartile ranges.

    Args:
        values: Class → one number a case; those that are NaN or inf are left out, and counted in the label.
        path: PNG to write.
        axis_label: What the numbers are, with unit, e.g. ``"HD95 (mm)"``.
        title: Title of the plot.

    Returns:
        ``path``.
    """
    figure = new_figure(width=2.0 + 1.3 * max(len(values), 1), height=4.0)
    axes = figure.subplots()
    ticks = []
    for position, (name, numbers) in enumerate(values.items(), start=1):
        data = np.asarray(numbers, dtype=np.float64)
        finite = data[np.isfinite(data)]
        _box_with_points(axes, finite, position)
        left_out = len(data) - len(finite)
        ticks.append(f"{name}\nn = {len(finite)}" + (f", {left_out} left out" if left_out else ""))
    axes.set_xticks(range(1, len(ticks) + 1), ticks)
    axes.set_xlim(0.4, max(len(ticks), 1) + 0.6)
    axes.set_ylabel(axis_label)
    if title:
        axes.set_title(title, fontsize=11)
    _tidy(axes)
    return save_png(figure, path)


def history_plot(rows: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """The history of a training in two panels: loss (with the learning rate) and validation Dice.

    Args:
        rows: One mapping an epoch, as read from CSV: ``epoch``, ``train_loss``, ``learning_rate``,
            ``val_mean_dice``, ``val_dice_<class>``. Absent columns, blank cells and text are not drawn.
        path: PNG to write.

    Returns:
        ``path``.
    """
    figure = new_figure(width=10, height=3.8)
    left, right = figure.subplots(1, 2)
    epochs = _column(rows, "epoch")
    _draw_line(left, epochs, _column(rows, "train_loss"), "training loss", class_color(1))
    left.set_ylabel("Loss")
    _draw_learning_rate(left, epochs, _column(rows, "learning_rate"))
    columns = [
        name for name in dict.fromkeys(key for row in rows for key in row) if name.startswith("val_dice_")
    ]
    for position, column in enumerate(columns):
        name = column.removeprefix("val_dice_").replace("_", " ")
        _draw_line(right, epochs, _column(rows, column), name, class_color(position))
    if len(columns) != 1:  # of one class it is the same
        _draw_line(right, epochs, _column(rows, "val_mean_dice"), "mean", "black")
    right.set_ylabel("Validation Dice")
    _at_least(right, LEAST_SPAN)
    for axes in (left, right):
        axes.set_xlabel("Epoch")
        _tidy(axes)
    if right.lines:
        right.legend(frameon=False, fontsize=9, loc="lower right")
    return save_png(figure, path)


def _at_least(axes: Axes, span: float) -> None:
    """Widen the range of the vertical axis: differences that mean nothing should not fill the panel."""
    low, high = axes.get_ylim()
    if high - low < span:
        axes.set_ylim((low + high - span) / 2, (low + high + span) / 2)


def _tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)


def _box_with_points(axes: Axes, data: NDArray[np.float64], position: int) -> None:
    if not len(data):
        return
    color = class_color(position - 1)
    axes.boxplot(
        data,
        positions=[position],
        widths=0.5,
        showfliers=False,
        patch_artist=True,
        boxprops={"facecolor": color, "alpha": 0.25, "edgecolor": color},
        medianprops={"color": "black", "linewidth": 1.6},
        whiskerprops={"color": color},
        capprops={"color": color},
    )
    spread = np.random.default_rng(0).uniform(-0.16, 0.16, len(data))
    axes.scatter(position + spread, data, s=10, color=color, alpha=0.7, linewidths=0, zorder=3)


def _column(rows: Sequence[Mapping[str, Any]], name: str) -> NDArray[np.float64]:
    return np.array([_number(row.get(name)) for row in rows], dtype=np.float64)


def _number(cell: Any) -> float:
    try:
        return float(cell)
    except (TypeError, ValueError):
        return math.nan


def _draw_line(
    axes: Axes, epochs: NDArray[np.float64], values: NDArray[np.float64], label: str, color: str
) -> None:
    """A line through the epochs that have a value; validation may run every few epochs only."""
    there = np.isfinite(epochs) & np.isfinite(values)
    if there.any():
        marker = "o" if there.sum() < 30 else None
        axes.plot(
            epochs[there], values[there], label=label, color=color, marker=marker, markersize=3, linewidth=1.5
        )


def _draw_learning_rate(axes: Axes, epochs: NDArray[np.float64], rates: NDArray[np.float64]) -> None:
    if not np.isfinite(rates).any():
        return
    other = axes.twinx()
    there = np.isfinite(epochs) & np.isfinite(rates)
    other.plot(epochs[there], rates[there], color="0.6", linestyle="--", linewidth=1.2, label="learning rate")
    other.set_ylabel("Learning rate", color="0.4")
    other.tick_params(axis="y", colors="0.4")
    other.spines[["top"]].set_visible(False)
    other.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
    lines = [*axes.lines, *other.lines]
    axes.legend(
        lines, [str(line.get_label()) for line in lines], frameon=False, fontsize=9, loc="upper right"
    )
