"""The page of a data set: what it holds, what is broken, what would mislead."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medimg3d import __version__
from medimg3d.atomic import write_text

PAGE_SCALE = 0.54  # text of all figures gets one size
MAX_GROUPS = 60
MAX_LISTED = 100

_CAPTIONS = {
    "samples": "Chosen at random (seeded). Volumes: the slice with most labelled voxels, else the middle one; "
    "the patient's right is on the left. Outlines: the label map.",
    "features": "AUC 0.5: the number says nothing of the class; 1: it gives the class away.",
    "intensity": "Random values of every image, so that each image counts alike; from the 0.5th to the 99.5th "
    "percentile. Peaks at the two ends (black, saturated) are cut off.",
    "sizes": "",
    "spacings": "",
    "volumes": "Each point is a case.",
}


def explore_page(summary: Mapping[str, Any], figures: Mapping[str, Path], out: Path) -> Path:
    """Write the page of a data set.

    Args:
        summary: What :func:`medimg3d.workflows.explore.explore` writes as ``explore.json``.
        figures: Name to PNG, as :func:`medimg3d.report.explore_drawing.draw_all` gives them.
        out: HTML file to write; replaced at once when it is whole. The pictures are inside it.

    Returns:
        ``out``.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("medimg3d.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["number"] = _number
    environment.filters["percent"] = _percent
    environment.filters["times"] = _times
    groups = summary["duplicates"]["groups"]
    worst_first = sorted(groups, key=lambda one: (not one["contradicts_itself"], not one["crosses_sections"]))
    html = environment.get_template("explore.html").render(
        summary=summary,
        total=sum(summary["sections"].values()),
        figures={
            kind: [_figure(name, path) for name, path in figures.items() if name.split(":")[0] == kind]
            for kind in _CAPTIONS
        },
        counts=[
            (
                table,
                [_figure(name, path) for name, path in figures.items() if name == f"counts:{table['title']}"],
            )
            for table in count_tables(summary)
        ],
        groups=worst_first[:MAX_GROUPS],
        num_more_groups=max(0, len(groups) - MAX_GROUPS),
        unreadable=_first(summary["unreadable"]),
        not_in_a_case=_first(summary["not_in_a_case"]),
        left_out=_first(summary["left_out"]),
        max_listed=MAX_LISTED,
        version=__version__,
    )
    write_text(out, html)
    return out


def count_tables(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Tables of counts for page and screen: a row a class (or value), a column a part with count and share.

    Returns:
        ``title``, ``columns`` and ``rows`` of each table; without classes one table of the parts alone.
    """
    tables = {"class": summary["classes"]} | dict(summary["values"])
    made = [_count_table(name, counts) for name, counts in tables.items() if counts]
    if not summary["classes"]:
        rows = [[name, f"{count:,}"] for name, count in summary["sections"].items()]
        made.insert(0, {"title": "part", "columns": ["part", "cases"], "rows": rows})
    return made


def _count_table(title: str, counts: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    names = list(dict.fromkeys(name for part in counts.values() for name in part))
    totals = {part: sum(own.values()) for part, own in counts.items()}
    rows = [
        [
            name,
            *(
                f"{own[name]:,} ({_percent(own[name] / max(totals[part], 1))})"
                for part, own in counts.items()
            ),
        ]
        for name in names
    ]
    rows.append(["all", *(f"{total:,}" for total in totals.values())])
    return {"title": title, "columns": [title, *counts], "rows": rows}


def _figure(name: str, path: Path) -> dict[str, str | int]:
    kind, _, rest = name.partition(":")
    content = path.read_bytes()
    return {
        "name": rest or kind,
        "source": "data:image/png;base64," + base64.b64encode(content).decode("ascii"),
        "caption": _CAPTIONS.get(kind, ""),
        "width": round(PAGE_SCALE * int.from_bytes(content[16:20], "big")),  # PNG: width in its first chunk
    }


def _first(reasons: Mapping[str, str]) -> dict[str, str]:
    return dict(list(reasons.items())[:MAX_LISTED])


def _number(value: float | None) -> str:
    """Three figures, thousands apart from 1,000 on; empty where there is no number."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _times(numbers: Sequence[float]) -> str:
    return " × ".join(f"{number:.4g}" for number in numbers)
