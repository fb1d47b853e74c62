"""The page and the card of an ensemble: what was chosen, why, and what it reaches on cases that did not choose."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medimg3d.report.page import METRIC_LABELS, _environment, _number, _write


def ensemble_page(summary: Mapping[str, Any], out: Path) -> Path:
    """Write the page of an ensemble.

    Args:
        summary: What :func:`medimg3d.workflows.ensemble.ensemble` writes as ``summary.json``.
        out: HTML file to write; replaced at once when it is whole.

    Returns:
        ``out``.
    """
    names = list(summary["classes"].values())
    candidates = [
        (
            name,
            _with_interval(figures["mean_dice"]),
            [_with_interval(figures["classes"][label]) for label in names],
        )
        for name, figures in summary["candidates"].items()
    ]
    page = _environment().get_template("ensemble.html")
    return _write(
        out,
        page.render(
            summary=summary,
            class_names=names,
            candidates=candidates,
            gains=[_gain_row(gain) for gain in summary["choice"]["gains"]],
            nested_mean=_with_interval(summary["nested"]["mean_dice"]),
            nested_gain=_with_interval(summary["nested"]["gain"], signed=True),
            nested_rows=nested_rows(summary),
            choices=[
                (fold, one["candidate"], "; ".join(one["in_words"]) or "none")
                for fold, one in summary["nested"]["choices"].items()
            ],
        ),
    )


def nested_rows(summary: Mapping[str, Any]) -> list[list[str]]:
    """Metric, class, mean with interval and n of the nested cross-validation; cells formatted."""
    return [
        [METRIC_LABELS.get(metric, metric), name, _with_interval(entry), str(entry["n"])]
        for metric, by_class in summary["nested"]["metrics"].items()
        for name, entry in by_class.items()
    ]


def ensemble_card(summary: Mapping[str, Any], metadata: Mapping[str, Any]) -> str:
    """The bundle's ``docs/README.md``."""
    nested, choice = summary["nested"], summary["choice"]
    rules = "".join(f"\n  - {words}" for words in choice["in_words"]) or " none helped surely"
    rows = "\n".join("| " + " | ".join(row) + " |" for row in nested_rows(summary))
    warnings = "".join(f"\n> {text}\n" for text in summary["warnings"])
    return (
        f"# {metadata.get('name', 'Ensemble')}\n\n"
        f"Made by `medimg3d ensemble` from the folds of a cross-validation: {len(summary['folds'])} folds, "
        f"{summary['num_cases']} held-out cases. Each member is a file in `models/`; `configs/inference.json` averages "
        "their probabilities, with stock MONAI.\n\n"
        f"- Configuration: {choice['candidate']}\n"
        f"- Cleaning of the label map:{rules}\n"
        f"{warnings}\n"
        "## Figures\n\n"
        "By nested cross-validation: what answers a case was chosen on the other folds, and each network that answers "
        "it had not seen it. They are those of one member a fold; the mean of all members cannot be measured on these "
        "cases, since the other members were trained on them.\n\n"
        "| metric | class | mean (95 % interval) | n |\n|---|---|---|---|\n"
        f"{rows}\n\n"
        f"Mean Dice {_with_interval(nested['mean_dice'])}; gain over {nested['gain']['over']} as it is "
        f"{_with_interval(nested['gain'], signed=True)}.\n\n"
        "The whole choice is in `docs/ensemble/ensemble.html`, the cases in `docs/ensemble/nested_cases.csv`. "
        "`configs/train.json` is the recipe of one member, and `configs/evaluate.json` scores the first one on its "
        "held-out fold. State the licence of your data in `docs/data_license.txt` before you share the weights.\n\n"
        "Software for research; not for diagnosis.\n"
    )


def _gain_row(gain: Mapping[str, Any]) -> list[str]:
    sure = gain["low"] is not None and gain["low"] > 0
    return [gain["in_words"], gain["over"], _with_interval(gain, signed=True), "yes" if sure else "no"]


def _with_interval(entry: Mapping[str, Any], *, signed: bool = False) -> str:
    def text(value: float | None) -> str:
        if value is None:
            return ""
        return f"{value:+.4f}" if signed else _number(value)

    if entry["mean"] is None:
        return ""
    if entry["low"] is None:
        return text(entry["mean"])
    return f"{text(entry['mean'])} ({text(entry['low'])} to {text(entry['high'])})"
