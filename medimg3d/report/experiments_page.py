"""The page and the table of experiments: what each reached on held-out cases, and its difference to the first."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from medimg3d.report.experiment_figures import experiments_plot
from medimg3d.report.page import _embedded, _environment, _write

MEAN = "mean"
CHOICE_NOTE = (
    "The best of many experiments flatters: it is partly the luckiest on these cases. Keep a test set for the one that "
    "you choose, or let medimg3d ensemble choose, which judges its choice by nested cross-validation."
)


def experiments_page(summary: Mapping[str, Any], out: Path) -> Path:
    """Write the page of experiments.

    Args:
        summary: What :func:`medimg3d.workflows.experiments.run_experiments` writes as ``experiments.json``.
        out: HTML file to write; replaced at once when it is whole.

    Returns:
        ``out``.
    """
    done = _done(summary)
    picture = None
    if done:
        rows = [(name, one["dice"][MEAN], (one["difference"] or {}).get(MEAN)) for name, one in done.items()]
        with TemporaryDirectory() as folder:
            picture = _embedded(
                experiments_plot(rows, Path(folder) / "experiments.png", first=summary["first"])
            )
    page = _environment().get_template("experiments.html")
    return _write(
        out,
        page.render(
            summary=summary,
            picture=picture,
            note=CHOICE_NOTE,
            rows=[_row(name, one, summary) for name, one in done.items()],
            differences=[
                [name, *(_interval(one["difference"].get(what), signed=True) for what in _columns(summary))]
                for name, one in done.items()
                if one["difference"] is not None
            ],
            compared=[(name, one["in_words"]) for name, one in summary["experiments"].items()],
            with_seeds=len(summary["seeds"]) > 1,
        ),
    )


def experiments_markdown(summary: Mapping[str, Any]) -> str:
    """The table of the page as Markdown, and what must be known to read it."""
    with_seeds = len(summary["seeds"]) > 1
    head = ["experiment", "cases", "mean Dice", *summary["structures"], f"difference to {summary['first']}"]
    head += ["seeds: lowest to highest (SD)"] if with_seeds else []
    head += ["training"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name, one in _done(summary).items():
        cells = _row(name, one, summary)
        difference = _interval((one["difference"] or {}).get(MEAN), signed=True)
        spread = [cells["spread"]] if with_seeds else []
        words = [name, cells["cases"], *cells["dice"], difference, *spread, cells["time"]]
        lines.append(f"| {' | '.join(words)} |")
    notes = [f"> {warning}" for warning in summary["warnings"]]
    notes += [f"> {name} failed: {reason}" for name, reason in summary["failed"].items()]
    told = (
        f"Dice of held-out cases, mean (95 % bootstrap interval, resampled by {summary['resampled_by']}); 1 where "
        f"neither map has a structure. Differences are paired by case. {CHOICE_NOTE}"
    )
    return "\n".join([*lines, "", *(f"{note}\n" for note in notes), told]) + "\n"


def _done(summary: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {name: one for name, one in summary["experiments"].items() if one["dice"] is not None}


def _columns(summary: Mapping[str, Any]) -> list[str]:
    return [MEAN, *summary["structures"]]


def _row(name: str, one: Mapping[str, Any], summary: Mapping[str, Any]) -> dict[str, Any]:
    spread = one["seed_spread"]
    return {
        "name": name,
        "cases": str(one["num_cases"]),
        "dice": [_interval(one["dice"].get(what)) for what in _columns(summary)],
        "spread": ""
        if spread is None
        else f"{spread['lowest']:.4f} to {spread['highest']:.4f} ({spread['sd']:.4f})",
        "time": _time(one["training_s"]),
    }


def _interval(entry: Mapping[str, Any] | None, *, signed: bool = False) -> str:
    if entry is None or entry["mean"] is None:
        return ""
    sign = "+" if signed else ""
    mean = f"{entry['mean']:{sign}.4f}"
    if entry["low"] is None:
        return mean
    return f"{mean} ({entry['low']:{sign}.4f} to {entry['high']:{sign}.4f})"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "not known"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
