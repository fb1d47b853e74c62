"""Pictures of an evaluation of label maps: box plots of the metrics, overlays of the worst cases."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medimg3d.data.evaluation_pairs import Pair
from medimg3d.data.label_map import read_label_map
from medimg3d.data.volume_file import read_volume
from medimg3d.errors import DataError, Medimg3dError
from medimg3d.metrics.case_scores import ClassScore
from medimg3d.report.evaluation_summary import value_of
from medimg3d.workflows.label_meaning import LabelMeaning


def draw_boxes(
    out: Path, summary: Mapping[str, Any], scores: Mapping[str, Mapping[str, ClassScore]]
) -> dict[str, Path]:
    """A box plot for each metric that has a number at all."""
    from medimg3d.report.figures import box_plot
    from medimg3d.report.page import METRIC_LABELS

    figures = {}
    for metric in summary["metrics"]:
        values = {
            name: [_or_nan(value_of(classes[name], metric)) for classes in scores.values()]
            for name in summary["classes"].values()
        }
        if any(math.isfinite(value) for column in values.values() for value in column):
            figures[metric] = box_plot(values, out / f"box_{metric}.png", axis_label=METRIC_LABELS[metric])
    return figures


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def draw_worst(
    out: Path, summary: Mapping[str, Any], pairs: Sequence[Pair], meaning: LabelMeaning
) -> tuple[dict[str, Path], dict[str, str]]:
    """Overlays of the worst cases, and why a case has none."""
    by_name = {pair.reference.name: pair for pair in pairs}
    drawn, undrawn = {}, {}
    for entry in summary["worst"]:
        case = entry["case"]
        try:
            title = f"{case}: mean Dice {entry['mean_dice']:.3f}"
            drawn[f"overlay:{case}"] = _draw_case(
                by_name[case], meaning, title, out / "overlays" / f"{case}.png"
            )
        except Exception as err:  # noqa: BLE001 - a picture that fails must not lose the figures
            undrawn[case] = str(err) if isinstance(err, Medimg3dError) else f"{type(err).__name__}: {err}"
    return drawn, undrawn


def _draw_case(pair: Pair, meaning: LabelMeaning, title: str, path: Path) -> Path:
    from medimg3d.report.case_overlay import case_overlay

    if pair.reference.image is None or not pair.reference.image.is_file():
        raise DataError("its image is not known; give the folder of the images")
    image, truth = read_volume(pair.reference.image).array, read_label_map(pair.reference.label)
    while image.ndim > 3:  # the first channel or time point
        image = image[..., 0]
    if image.ndim > truth.labels.ndim:  # a 2D image's one plane
        image = image[..., 0]
    pred = read_label_map(pair.prediction)
    return case_overlay(
        image,
        meaning.drawn(pred.labels, of_truth=False),
        truth.affine,
        truth=meaning.drawn(truth.labels, of_truth=True),
        class_names=meaning.names,
        title=title,
        path=path,
    )
