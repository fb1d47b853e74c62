"""The page of a classifier's evaluation, and its tables for the screen."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medimg3d.report.page import _embedded, _environment, _number, _write

_LABELS = {
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy (mean recall)",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "precision": "Precision",
    "f1": "F1",
    "precision_macro": "Precision, mean of classes",
    "precision_weighted": "Precision, weighted by class size",
    "f1_macro": "F1, mean of classes",
    "f1_weighted": "F1, weighted by class size",
    "auc": "AUC",
    "average_precision": "Average precision",
    "ece": "Calibration error (ECE)",
    "brier": "Brier score",
}
_AGAINST = {
    "sensitivity": "sensitivity",
    "here": "specificity_here",
    "there": "specificity_there",
    "gain": "specificity_gain",
    "auc_gain": "auc_gain",
}
_OF_POSITIVE = ("sensitivity", "precision", "f1", "average_precision")


def classification_page(summary: Mapping[str, Any], pictures: Mapping[str, Path], out: Path) -> Path:
    """Write the page of an evaluation.

    Args:
        summary: What :func:`medimg3d.workflows.evaluate_classification.evaluate_classification` writes as
            ``summary.json``.
        pictures: ``confusion``, ``roc``, ``pr``, ``reliability``, ``mistakes`` → PNG, as far as drawn.
        out: HTML file to write; replaced at once when it is whole.

    Returns:
        ``out``.
    """
    page = _environment().get_template("classification.html")
    return _write(
        out,
        page.render(
            summary=summary,
            rows=metric_rows(summary),
            unsure_rows=figure_rows(summary["unsure"]["without"], summary["positive"]),
            class_columns=_columns(summary["per_class"]),
            class_rows=_class_rows(summary["per_class"]),
            subgroups=[
                (name, _columns({e["value"]: e["figures"] for e in entries}), _subgroup_rows(entries))
                for name, entries in summary["subgroups"].items()
            ],
            against=against_rows(summary),
            pictures={name: _embedded(path) for name, path in pictures.items()},
        ),
    )


def metric_rows(summary: Mapping[str, Any]) -> list[dict[str, str]]:
    """The table of an evaluation for screen and page: one row a figure, numbers formatted."""
    return figure_rows(summary["metrics"], summary["positive"])


def figure_rows(figures: Mapping[str, Any], positive: str | None) -> list[dict[str, str]]:
    """One row a figure: its label, value, interval, number of films and note."""
    rows = []
    for name, entry in figures.items():
        label = _LABELS.get(name, name)
        if positive is not None and name in _OF_POSITIVE:
            label += f" ({positive})"
        rows.append(
            {
                "label": label,
                "value": "undefined" if entry["value"] is None else _number(entry["value"]),
                "interval": _interval(entry),
                "n": str(entry["n"]),
                "note": entry.get("note", "")
                or ("" if entry.get("method", "").startswith("BCa") else entry.get("method", "")),
            }
        )
    return rows


def against_rows(summary: Mapping[str, Any]) -> list[dict[str, str]]:
    """One row for each other classifier that the films were held against, numbers formatted with their sign."""
    rows = []
    for entry in summary["against"]:
        figures = entry["estimates"]
        row = {"name": entry["name"], "n": str(entry["n"]), "lacking": str(entry["lacking"])}
        for key, name in _AGAINST.items():
            row |= {
                key: _signed(figures[name]["value"], name),
                f"{key}_interval": _signed_interval(figures[name], name),
            }
        row |= {f"false_alarms_{where}": str(entry["false_alarms"][where]) for where in ("here", "there")}
        rows.append(row | {"negatives": str(entry["negatives"])})
    return rows


def _signed(value: float | None, name: str) -> str:
    if value is None:
        return "undefined"
    return f"{value:+.3f}".replace("-", "\N{MINUS SIGN}") if name.endswith("_gain") else _number(value)


def _signed_interval(entry: Mapping[str, Any], name: str) -> str:
    if entry["low"] is None:
        return ""
    return f"{_signed(entry['low'], name)} to {_signed(entry['high'], name)}"


def _columns(groups: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Labels of the figures that any group has, in order."""
    return [_LABELS.get(name, name) for name in _figure_names(groups)]


def _figure_names(groups: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for figures in groups.values() for name in figures))


def _class_rows(groups: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, list[tuple[str, str]]]]:
    names = _figure_names(groups)
    return [(group, [_cell(figures.get(name)) for name in names]) for group, figures in groups.items()]


def _subgroup_rows(entries: Any) -> list[tuple[str, str, str, list[tuple[str, str]]]]:
    names = _figure_names({entry["value"]: entry["figures"] for entry in entries})
    return [
        (
            entry["value"],
            str(entry["n"]),
            entry["compared_with"],
            [_cell(entry["figures"].get(name)) for name in names],
        )
        for entry in entries
    ]


def _cell(entry: Mapping[str, Any] | None) -> tuple[str, str]:
    """Value and interval."""
    if entry is None:
        return "", ""
    return ("undefined" if entry["value"] is None else _number(entry["value"])), _interval(entry)


def _interval(entry: Mapping[str, Any]) -> str:
    return "" if entry["low"] is None else f"{_number(entry['low'])} to {_number(entry['high'])}"
