"""Dice of every held-out case of an experiment, averaged over seeds, and what differs from another experiment."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from medimg3d.bundle.folder import read_json
from medimg3d.data.evaluation_pairs import find_references
from medimg3d.stats.bootstrap import bootstrap_mean
from medimg3d.workflows.cross_validate import POOLED, TIMES
from medimg3d.workflows.ensemble_choice import CaseScore, interval_json, paired_gain, patients_of

MEAN = "mean"
"""What the mean over the structures of a case is called beside the structures."""


@dataclass(frozen=True)
class ExperimentScores:
    """The held-out cases of an experiment.

    Attributes:
        structures: Names, in the bundle's order.
        dice: Case → structure → Dice, averaged over seeds; 1 where neither map has it.
        by_seed: Mean Dice of each seed, over the same cases.
        patients: Case → patient, or None where that is not known.
        rejected: Cases that a seed could not score.
        training_s: Time of all trainings in s; None if one of them was stopped in between or is not known.
    """

    structures: tuple[str, ...]
    dice: Mapping[str, Mapping[str, float]]
    by_seed: tuple[float, ...]
    patients: Mapping[str, str | None]
    rejected: tuple[str, ...]
    training_s: float | None

    def values(self, structure: str, cases: Sequence[str]) -> list[float]:
        """Dice of each of these cases; the mean over structures for ``"mean"``."""
        if structure == MEAN:
            return [fmean(self.dice[case].values()) for case in cases]
        return [self.dice[case][structure] for case in cases]


def read_scores(runs: Sequence[Path], folds: Sequence[int]) -> ExperimentScores:
    """Read the pooled cases of an experiment.

    Args:
        runs: Finished cross-validations of one recipe, a seed each.
        folds: Their folds.
    """
    tables = [_read_dice(run / POOLED / "cases.csv") for run in runs]
    summaries = [read_json(run / POOLED / "summary.json") for run in runs]
    common = [case for case in tables[0] if all(case in table for table in tables)]
    structures = tuple(summaries[0]["classes"].values())
    dice = {
        case: {name: fmean(table[case][name] for table in tables) for name in structures} for case in common
    }
    references = find_references(runs[0] / POOLED / "datalist.json").cases
    rejected = {case for summary in summaries for case in summary["rejected"]}
    return ExperimentScores(
        structures=structures,
        dice=dice,
        by_seed=tuple(fmean(fmean(table[case].values()) for case in common) for table in tables),
        patients={case: references[case].patient for case in common},
        rejected=tuple(sorted(rejected)),
        training_s=_seconds([run / f"fold_{fold}" / TIMES for run in runs for fold in folds]),
    )


def figures(scores: ExperimentScores) -> dict[str, Any]:
    """Mean and each structure → mean Dice with its interval; whole patients are resampled where all are known."""
    cases = list(scores.dice)
    groups = patients_of(_as_cases(scores, cases))
    return {
        name: interval_json(bootstrap_mean(scores.values(name, cases), groups=groups))
        for name in (MEAN, *scores.structures)
    }


def differences(scores: ExperimentScores, first: ExperimentScores) -> dict[str, Any] | None:
    """Mean and each structure → difference to another experiment, paired by case; None if the structures differ."""
    if scores.structures != first.structures:
        return None
    cases = [case for case in scores.dice if case in first.dice]
    paired = _as_cases(scores, cases)
    found = {}
    for name in (MEAN, *scores.structures):
        after, before = scores.values(name, cases), first.values(name, cases)
        found[name] = interval_json(paired_gain(name, "", after, before, paired).interval)
    return found


def seed_spread(scores: ExperimentScores) -> dict[str, Any] | None:
    """Lowest and highest mean Dice of a seed, and their standard deviation; None for one seed."""
    values = scores.by_seed
    if len(values) < 2:
        return None
    return {"lowest": min(values), "highest": max(values), "sd": stdev(values)}


def resampled_by(scores: ExperimentScores) -> str:
    """What counts as independent: ``"patient"`` or ``"case"``."""
    return "patient" if patients_of(_as_cases(scores, list(scores.dice))) else "case"


def _as_cases(scores: ExperimentScores, cases: Sequence[str]) -> list[CaseScore]:
    return [CaseScore(case, 0, scores.patients[case], {}) for case in cases]


def _read_dice(path: Path) -> dict[str, dict[str, float]]:
    """Case → structure → Dice; 1 where neither map has the structure, so that a false find costs something."""
    table: dict[str, dict[str, float]] = {}
    with open(path, newline="", encoding="utf-8") as handle:
        for row in csv.DictReader(handle):
            value = 1.0 if row["found_in"] == "neither" else float(row["dice"])
            table.setdefault(row["case"], {})[row["class"]] = value
    return table


def _seconds(files: Sequence[Path]) -> float | None:
    times = [read_json(file) if file.is_file() else None for file in files]
    known = [time["training_s"] for time in times if time is not None and not time["resumed"]]
    return sum(known) if len(known) == len(files) else None
