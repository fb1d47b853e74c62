"""Figures of a classifier: ROC, precision-recall, reliability, confusion matrices, history of a training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medimg3d.metrics.calibration import ReliabilityBin
from medimg3d.metrics.ranking import PrecisionRecallCurve, RocCurve
from medimg3d.report.canvas import new_figure, save_png
from medimg3d.report.colors import class_color
from medimg3d.report.figures import _column, _tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TRAINING_COLOR, VALIDATION_COLOR = class_color(0), class_color(1)
HISTORY_METRICS = ("loss", "accuracy", "f1", "precision", "recall", "auc")
_METRIC_TITLES = {"f1": "F1", "auc": "AUC"}
_LINE_STYLES = ("-", "--", "-.", ":")


def roc_plot(
    curves: Mapping[str, RocCurve],
    path: Path,
    *,
    points: Mapping[str, tuple[float, float]] | None = None,
    title: str = "",
) -> Path:
    """Draw ROC curves with the diagonal of chance.

    Args:
        curves: Name → curve; the legend tells name and AUC.
        path: PNG to write.
        points: Name → (1 − specificity, sensitivity) of decisions in use, drawn as marks.
        title: Title of the plot.

    Returns:
        ``path``.
    """
    axes = _square(title)
    for number, (name, curve) in enumerate(curves.items()):
        axes.plot(
            curve.false_positive_rate,
            curve.sensitivity,
            label=f"{name}: AUC {_figure(curve.auc)}",
            **_style(number),
        )
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle=(0, (1, 3)), label="chance: 0.500")
    _mark_points(axes, points)
    axes.set_xlabel("1 − specificity (false alarms among the negatives)")
    axes.set_ylabel("Sensitivity")
    axes.legend(frameon=False, fontsize=9, loc="lower right")
    return save_png(axes.figure, path)  # type: ignore[arg-type]


def precision_recall_plot(
    curves: Mapping[str, PrecisionRecallCurve],
    path: Path,
    *,
    points: Mapping[str, tuple[float, float]] | None = None,
    title: str = "",
) -> Path:
    """Draw precision-recall curves, each with the precision of calling every case positive.

    Args:
        curves: Name → curve; the legend tells name and average precision.
        path: PNG to write.
        points: Name → (recall, precision) of decisions in use, drawn as marks.
        title: Title of the plot.

    Returns:
        ``path``.
    """
    axes = _square(title)
    for number, (name, curve) in enumerate(curves.items()):
        axes.plot(
            np.concatenate([[0.0], curve.recall]),
            np.concatenate([curve.precision[:1], curve.precision]),
            label=f"{name}: AP {_figure(curve.average_precision)}",
            drawstyle="steps-pre",
            **_style(number),
        )
    _draw_prevalences(axes, [curve.prevalence for curve in curves.values()])
    _mark_points(axes, points)
    axes.set_xlabel("Recall (sensitivity)")
    axes.set_ylabel("Precision")
    axes.legend(frameon=False, fontsize=9, loc="lower left")
    return save_png(axes.figure, path)  # type: ignore[arg-type]


def reliability_plot(
    bins: Sequence[ReliabilityBin],
    path: Path,
    *,
    event: str = "the decision is right",
    note: str = "",
    intervals: Sequence[tuple[float, float] | None] | None = None,
) -> Path:
    """Draw stated against observed probability, and how many cases each bin holds.

    Args:
        bins: Bins from low to high; empty ones are not drawn.
        path: PNG to write.
        event: What the probability is of.
        note: Text in the corner, e.g. the calibration error.
        intervals: Ends of each bin's observed share, drawn as whiskers.

    Returns:
        ``path``.
    """
    figure = new_figure(width=5.2, height=6.0)
    axes, below = figure.subplots(2, 1, height_ratios=(4, 1), sharex=True)
    color = VALIDATION_COLOR
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle=(0, (1, 3)), label="perfectly calibrated")
    filled = [(number, bin_) for number, bin_ in enumerate(bins) if bin_.count]
    stated = [bin_.mean_confidence for _, bin_ in filled]
    observed = [bin_.observed_share for _, bin_ in filled]
    for number, bin_ in filled:
        ends = intervals[number] if intervals is not None else None
        if ends is not None:
            axes.plot([bin_.mean_confidence] * 2, ends, color=color, linewidth=1.2, alpha=0.6)
    axes.plot(stated, observed, marker="o", markersize=5, color=color, linewidth=1.5, label="observed")
    axes.set_ylabel(f"Observed share: {event}")
    axes.set_ylim(-0.02, 1.02)
    axes.legend(frameon=False, fontsize=9, loc="upper left")
    if note:
        axes.text(0.98, 0.03, note, transform=axes.transAxes, ha="right", fontsize=9, color="0.25")
    for _, bin_ in filled:
        width = bin_.high - bin_.low
        below.bar(bin_.low, bin_.count, width=width, align="edge", color=color, alpha=0.45, edgecolor="white")
    below.set_ylabel("Cases")
    below.set_xlabel("Stated probability")
    below.set_xlim(-0.02, 1.02)
    for panel in (axes, below):
        _tidy(panel)
    return save_png(figure, path)


def confusion_plot(matrices: Mapping[str, ArrayLike], classes: Sequence[str], path: Path) -> Path:
    """Draw confusion matrices side by side: counts, and the share of each true class.

    Args:
        matrices: Title → counts, shape (classes, classes), row = truth.
        classes: Class names in the order of their index.
        path: PNG to write.

    Returns:
        ``path``.
    """
    size = 1.6 + 0.95 * len(classes)
    figure = new_figure(width=max(size, 3.6) * max(len(matrices), 1), height=max(size, 3.6))
    panels = figure.subplots(1, max(len(matrices), 1), squeeze=False)[0]
    for axes, (title, counts) in zip(panels, matrices.items(), strict=False):
        _confusion_panel(axes, np.asarray(counts), classes, title)
    return save_png(figure, path)


def classification_history_plot(
    rows: Sequence[Mapping[str, Any]], path: Path, *, metrics: Sequence[str] = HISTORY_METRICS
) -> Path:
    """Draw the history of a training: one panel a metric, training and validation in each.

    Args:
        rows: One mapping an epoch, as read from CSV: ``epoch`` (else counted from 1) and ``train_<metric>``,
            ``val_<metric>``. Absent columns, blank cells and text are not drawn.
        path: PNG to write.
        metrics: Metrics in the order of the panels; one that no row has gets no panel.

    Returns:
        ``path``.
    """
    columns = {key for row in rows for key in row}
    shown = [name for name in metrics if {f"train_{name}", f"val_{name}"} & columns] or list(metrics[:1])
    across = min(3, len(shown))
    down = -(-len(shown) // across)
    figure = new_figure(width=3.7 * across, height=2.9 * down)
    panels = figure.subplots(down, across, squeeze=False).ravel()
    epochs = _column(rows, "epoch")
    if not np.isfinite(epochs).any():
        epochs = np.arange(1, len(rows) + 1, dtype=np.float64)
    for axes, name in zip(panels, shown, strict=False):
        _history_panel(axes, epochs, rows, name)
    for axes in panels[len(shown) :]:
        axes.set_axis_off()
    handles, labels = panels[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, frameon=False, fontsize=9, loc="outside upper right", ncols=2)
    return save_png(figure, path)


def _square(title: str) -> Axes:
    axes: Axes = new_figure(width=5.2, height=5.0).subplots()
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.set_aspect("equal")
    if title:
        axes.set_title(title, fontsize=11)
    _tidy(axes)
    return axes


def _style(number: int) -> dict[str, Any]:
    """Colour and line of a curve: lines differ, too, so that grey print tells them apart."""
    return {
        "color": class_color(number + 1),
        "linewidth": 1.8,
        "linestyle": _LINE_STYLES[number % len(_LINE_STYLES)],
    }


def _draw_prevalences(axes: Axes, shares: Sequence[float]) -> None:
    """The precision of calling every case positive, in the colour of each curve; one line in the legend."""
    label = "calling all positive: " + ", ".join(_figure(share) for share in dict.fromkeys(shares))
    for number, share in enumerate(shares):
        if math.isfinite(share):
            axes.axhline(share, color=class_color(number + 1), linewidth=1, linestyle=(0, (1, 3)), alpha=0.8)
    axes.plot([], [], color="0.5", linewidth=1, linestyle=(0, (1, 3)), label=label)


def _mark_points(axes: Axes, points: Mapping[str, tuple[float, float]] | None) -> None:
    for name, (x, y) in (points or {}).items():
        if math.isfinite(x) and math.isfinite(y):
            axes.plot(
                [x], [y], marker="D", markersize=7, color="black", markerfacecolor="white", linestyle="none",
                label=name, zorder=5,
            )  # fmt: skip


def _confusion_panel(axes: Axes, counts: NDArray[Any], classes: Sequence[str], title: str) -> None:
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(*counts.shape):
        share = f"{shares[row, column]:.1%}" if totals[row, 0] else "no case"
        color = "white" if shares[row, column] > 0.55 else "black"
        axes.text(column, row, f"{counts[row, column]:g}", ha="center", va="bottom", color=color, fontsize=13)
        axes.text(
            column, row, f"\n{share}", ha="center", va="center", color=color, fontsize=9, linespacing=1.6
        )
    ticks = range(len(classes))
    longest = max((len(name) for name in classes), default=0)
    slanted = len(classes) > 2 or longest > 12
    axes.set_xticks(ticks, classes, rotation=30 if slanted else 0, ha="right" if slanted else "center")
    axes.set_yticks(ticks, [f"{name}\nn = {n:g}" for name, n in zip(classes, totals[:, 0], strict=True)])
    axes.set_xlabel("Decided")
    axes.set_ylabel("Truth")
    axes.set_title(title, fontsize=11)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def _history_panel(
    axes: Axes, epochs: NDArray[np.float64], rows: Sequence[Mapping[str, Any]], metric: str
) -> None:
    from matplotlib.ticker import MaxNLocator

    drawn = (("train", "training", TRAINING_COLOR, "--"), ("val", "validation", VALIDATION_COLOR, "-"))
    for prefix, label, color, line in drawn:
        values = _column(rows, f"{prefix}_{metric}")
        there = np.isfinite(epochs) & np.isfinite(values)
        marker = "o" if 0 < there.sum() < 30 else None
        axes.plot(
            epochs[there],
            values[there],
            label=label,
            color=color,
            linestyle=line,
            marker=marker,
            markersize=3,
            linewidth=1.6,
        )
    axes.set_title(_METRIC_TITLES.get(metric, metric.replace("_", " ").capitalize()), fontsize=11)
    axes.set_xlabel("Epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _tidy(axes)


def _figure(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "undefined"
