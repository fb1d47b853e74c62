"""The pictures of a classifier's evaluation; one that fails is named and costs no figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medimg3d.metrics.calibration import reliability_bins
from medimg3d.metrics.ranking import precision_recall_curve, roc_curve
from medimg3d.report.classification_figures import (
    confusion_plot,
    precision_recall_plot,
    reliability_plot,
    roc_plot,
)
from medimg3d.report.classification_summary import NUM_BINS, ScoredFilms
from medimg3d.report.film_grid import Thumbnail, film_grid
from medimg3d.report.film_table import FilmRow
from medimg3d.stats.proportion import wilson_interval

MAX_CURVES = 6
_CAPTION_LENGTH = 30


def draw_pictures(
    out: Path,
    summary: Mapping[str, Any],
    films: ScoredFilms,
    columns: Mapping[str, Sequence[str]],
    mistakes: Sequence[FilmRow],
    paths: Mapping[str, Path],
) -> tuple[dict[str, Path], dict[str, str]]:
    """Draw everything that can be drawn.

    Args:
        out: Folder to write to.
        summary: The figures so far.
        films: The films.
        columns: Column → value of each film, for the curves of the subgroups.
        mistakes: Mistakes to show, the most confident first.
        paths: File → film.

    Returns:
        Name → picture (``roc``, ``pr``, ``reliability``, ``confusion``, ``mistakes``), and what could not be
        drawn with its reason.
    """
    pictures = {
        "confusion": _confusion(out, summary, films),
        "reliability": _reliability(out, summary, films),
    }
    not_drawn: dict[str, str] = {}
    curves = _curve_films(films, columns)
    if curves:
        pictures["roc"], pictures["pr"] = _curves(out, summary, films, curves)
    else:
        not_drawn["ROC and precision-recall curves"] = "all films are of one class"
    thumbnails, unread = _thumbnails(mistakes, films.classes, paths)
    not_drawn |= unread
    if thumbnails:
        pictures["mistakes"] = film_grid(thumbnails, out / "mistakes.png")
    return pictures, not_drawn


def _confusion(out: Path, summary: Mapping[str, Any], films: ScoredFilms) -> Path:
    matrices = {f"All {len(films)} films": summary["confusion"]}
    if summary["unsure"]["n"]:
        sure = len(films) - summary["unsure"]["n"]
        matrices[f"Without the unsure: {sure} films"] = summary["unsure"]["confusion_without"]
    return confusion_plot(matrices, films.classes, out / "confusion.png")


def _reliability(out: Path, summary: Mapping[str, Any], films: ScoredFilms) -> Path:
    stated, event = films.stated
    bins = reliability_bins(stated, event, num_bins=NUM_BINS)
    ends = [wilson_interval(round(b.observed_share * b.count), b.count) if b.count else None for b in bins]
    what = "the likeliest class is right" if films.positive is None else films.classes[films.positive]
    error = summary["metrics"]["ece"]["value"]
    note = "" if error is None else f"ECE {error:.3f}, Brier {summary['metrics']['brier']['value']:.3f}"
    return reliability_plot(bins, out / "reliability.png", event=what, note=note, intervals=ends)


def _curve_films(
    films: ScoredFilms, columns: Mapping[str, Sequence[str]]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Name → scores and positives of each curve that both classes have films for."""
    if films.positive is None:
        found = {
            name: (films.probabilities[:, index], films.truth == index)
            for index, name in enumerate(films.classes)
        }
        return {name: pair for name, pair in list(found.items())[:MAX_CURVES] if 0 < pair[1].mean() < 1}
    scores, positive = films.probabilities[:, films.positive], films.truth == films.positive
    if not 0 < positive.mean() < 1:
        return {}
    found = {"all films": (scores, positive)}
    for values in columns.values():
        column = np.array(values, dtype=object)
        for value in sorted({text for text in values if text}):
            own = column == value
            if own[positive].any() and not own[~positive].any() and own.sum() < positive.sum():
                chosen = own | ~positive
                found[f"{value} against all {films.classes[1 - films.positive]}"] = (
                    scores[chosen],
                    positive[chosen],
                )
    return dict(list(found.items())[:MAX_CURVES])


def _curves(
    out: Path,
    summary: Mapping[str, Any],
    films: ScoredFilms,
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]],
) -> tuple[Path, Path]:
    roc = {name: roc_curve(scores, own) for name, (scores, own) in curves.items()}
    recalls = {name: precision_recall_curve(scores, own) for name, (scores, own) in curves.items()}
    roc_points, recall_points = {}, {}
    figures = {key: entry["value"] for key, entry in summary["metrics"].items()}
    if films.positive is not None and figures["sensitivity"] is not None:
        label = "decisions in use"
        if figures["specificity"] is not None:
            roc_points[label] = (1 - figures["specificity"], figures["sensitivity"])
        if figures["precision"] is not None:
            recall_points[label] = (figures["sensitivity"], figures["precision"])
    return (
        roc_plot(roc, out / "roc.png", points=roc_points),
        precision_recall_plot(recalls, out / "pr.png", points=recall_points),
    )


def _thumbnails(
    mistakes: Sequence[FilmRow], classes: Sequence[str], paths: Mapping[str, Path]
) -> tuple[list[Thumbnail], dict[str, str]]:
    found, unread = [], {}
    for row in mistakes:
        try:
            from medimg3d.data.film_reader import read_film

            film = read_film(paths[row.file])
        except Exception as err:  # noqa: BLE001 - a picture that fails must not lose the figures
            unread[row.file] = str(err) or type(err).__name__
            continue
        name = row.file.rsplit("/", 1)[-1]
        if len(name) > _CAPTION_LENGTH:
            name = name[: _CAPTION_LENGTH - 1] + "…"
        probability = row.probabilities[classes.index(row.decision)]
        caption = f"{name}\n{row.truth}, decided {row.decision}\nprobability {probability:.3f}"
        found.append(Thumbnail(film.pixels, caption, film.spacing_mm))
    return found, unread
