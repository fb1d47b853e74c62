"""HTML pages that are one file each: pictures inside, every text escaped."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medimg3d import __version__
from medimg3d.atomic import write_text

if TYPE_CHECKING:
    from jinja2 import Environment

METRIC_LABELS = {
    "dice": "Dice",
    "hd95_mm": "HD95 (mm)",
    "surface_dice": "Surface Dice",
    "volume_difference_ml": "Volume difference (mL)",
    "relative_volume_difference": "Relative volume difference",
}


def evaluation_page(summary: Mapping[str, Any], figures: Mapping[str, Path], out: Path) -> Path:
    """Write the page of an evaluation.

    Args:
        summary: What :func:`medimg3d.workflows.evaluate.evaluate` writes as ``summary.json``.
        figures: Name → PNG. A metric's name gives a box plot, ``overlay:<case>`` a picture of a case.
        out: HTML file to write; replaced at once when it is whole.

    Returns:
        ``out``.
    """
    plots = [
        (METRIC_LABELS.get(name, name), _embedded(path)) for name, path in figures.items() if ":" not in name
    ]
    overlays = [
        (name.removeprefix("overlay:"), _embedded(path))
        for name, path in figures.items()
        if name.startswith("overlay:")
    ]
    page = _environment().get_template("evaluation.html")
    return _write(
        out,
        page.render(
            summary=summary,
            rows=summary_rows(summary),
            plots=plots,
            overlays=overlays,
            class_names=list(summary["classes"].values()),
        ),
    )


def summary_rows(summary: Mapping[str, Any]) -> list[dict[str, str]]:
    """The table of an evaluation for screen and page: one row a metric and class, numbers formatted."""
    rows = []
    for metric, by_class in summary["metrics"].items():
        for class_name, entry in by_class.items():
            low, high = entry["low"], entry["high"]
            rows.append(
                {
                    "metric": METRIC_LABELS.get(metric, metric),
                    "class_name": class_name,
                    "mean": _number(entry["mean"]),
                    "interval": "" if low is None else f"{_number(low)} to {_number(high)}",
                    "n": str(entry["n"]),
                    "left_out": ", ".join(f"{count} {why}" for why, count in entry["left_out"].items()),
                }
            )
    return rows


def case_page(
    *, case: str, volumes_ml: Mapping[str, float], overlay: Path, bundle: Mapping[str, Any], out: Path
) -> Path:
    """Write the page of one predicted case.

    Args:
        case: Name of the case; must not name a patient.
        volumes_ml: Structure → volume in mL; empty where the voxel size is not known.
        overlay: PNG of :func:`medimg3d.report.overlays.overlay_figure`.
        bundle: ``name``, ``version`` and ``weights_sha256`` as far as known.
        out: HTML file to write; replaced at once when it is whole.

    Returns:
        ``out``.
    """
    facts = [
        (label, bundle[key])
        for key, label in (
            ("name", "Bundle"),
            ("version", "Version"),
            ("weights_sha256", "Weights (SHA-256)"),
        )
        if bundle.get(key)
    ]
    page = _environment().get_template("case.html")
    return _write(
        out,
        page.render(
            case=case,
            volumes=[(name, _number(volume)) for name, volume in volumes_ml.items()],
            overlay=_embedded(overlay),
            bundle=bundle,
            facts=facts,
            version=__version__,
        ),
    )


def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("medimg3d.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["number"] = _number
    return environment


def _embedded(picture: Path) -> str:
    """A PNG as a data address, so that the page needs no second file."""
    return "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode("ascii")


def _number(value: float | None) -> str:
    """Three decimals below 10, two below 100, else one; empty where there is no number."""
    if value is None or math.isnan(value):
        return ""
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    decimals = 3 if abs(value) < 10 else 2 if abs(value) < 100 else 1
    return f"{value:.{decimals}f}"


def _write(out: Path, html: str) -> Path:
    write_text(out, html)
    return out
