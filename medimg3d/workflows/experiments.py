"""Experiments over recipes, settings and seeds: each a cross-validation, all compared case by case at the end."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from medimg3d.atomic import write_text
from medimg3d.bundle.folder import read_json
from medimg3d.data.json_file import write_json
from medimg3d.errors import Medimg3dError, UsageError
from medimg3d.report.experiments_page import experiments_markdown, experiments_page
from medimg3d.workflows.cross_validate import POOLED, BegunFolds, begin_folds
from medimg3d.workflows.data_check import FACTS, DataCheck
from medimg3d.workflows.experiment_grid import Experiment, ExperimentGrid, read_experiments
from medimg3d.workflows.experiment_scores import (
    MEAN,
    ExperimentScores,
    differences,
    figures,
    read_scores,
    resampled_by,
    seed_spread,
)
from medimg3d.workflows.ray_jobs import RayCluster, ray_jobs

FEW_CASES = 50
LOGS = "jobs"

Say = Callable[[str], None]


@dataclass(frozen=True)
class ExperimentsResult:
    """What experiments reached, and what of them failed.

    Attributes:
        summary: The content of ``experiments.json``.
        page: ``experiments.html``.
        table: ``experiments.md``.
        failed: Name of a fold, ``<experiment>[/seed_<s>]/fold_<k>``, or of a cross-validation → reason.
        rejected: Cases of the datalist that were left out, with the reason.
    """

    summary: dict[str, Any]
    page: Path
    table: str
    failed: dict[str, str] = field(default_factory=dict)
    rejected: dict[str, str] = field(default_factory=dict)

    @property
    def any_done(self) -> bool:
        """Whether an experiment was finished."""
        return any(one["dice"] is not None for one in self.summary["experiments"].values())


@dataclass(frozen=True)
class _Run:
    """A cross-validation of an experiment with one seed."""

    name: str
    experiment: str
    folds: BegunFolds


def run_experiments(
    file: Path,
    out: Path,
    *,
    softmax: bool = False,
    check: DataCheck | None = DataCheck(),
    cluster: RayCluster | None = None,
    num_workers: int | None = None,
    progress: bool = True,
    say: Say = lambda _: None,
) -> ExperimentsResult:
    """Cross-validate every experiment of a file and compare them; a second run goes on where the first one stopped.

    A fold that fails is named with its reason and the others go on; its experiment has no figures then. The report
    is written at the end, and here, without a cluster, after each experiment as well.

    Args:
        file: YAML, see ``configs/experiments.yaml``.
        out: Gets ``<experiment>[/seed_<s>]/``, each as :func:`medimg3d.workflows.cross_validate.cross_validate` fills
            it, and ``experiments.{json,md,csv,html}``.
        softmax: Keep the class probabilities of the held-out cases, for ``medimg3d ensemble``.
        check: How images and label maps are checked before the first training; None to go unchecked.
        cluster: Run every fold of every experiment as a job of a Ray cluster, all in one queue. Bundles, images and
            ``out`` must lie where all machines see them under the same path. Here, one after the other, if None.
        num_workers: Processes that load and augment; the recipe's number if None.
        progress: Show a progress bar of each training.
        say: Called with a line as a step begins.

    Returns:
        Figures, failures and where the page is.

    Raises:
        UsageError: A mistake in the file, or a folder of an experiment was begun with other settings.
        RefusedDataError: The check refuses cases.
    """
    grid = read_experiments(file)
    if check is not None and check.facts_file is None:
        check = replace(check, facts_file=out / FACTS)
    options = {"num_workers": num_workers, "progress": progress}
    runs = _begin(grid, out, softmax, check, options)
    trainings = len(runs) * len(grid.folds)
    say(f"{len(grid.experiments)} experiments, {trainings} trainings: {_counts(grid)}")
    if cluster is None:
        failed: dict[str, str] = {}
        for one in grid.experiments:
            own = [run for run in runs if run.experiment == one.name]
            for run in own:
                failed |= _run_here(run, grid.folds, say)
            failed |= _pool(own, failed, say)
            result = _report(grid, runs, out, failed)
        return result
    jobs = [job for run in runs for job in run.folds.jobs(f"{run.name}/")]
    outcomes = []
    if jobs:
        with ray_jobs(cluster) as ray:
            outcomes = ray.run(jobs, out / LOGS, say=say)
    failed = {outcome.name: outcome.reason for outcome in outcomes if not outcome.is_done}
    failed |= _pool(runs, failed, say)
    return _report(grid, runs, out, failed)


def _begin(
    grid: ExperimentGrid, out: Path, softmax: bool, check: DataCheck | None, options: Mapping[str, Any]
) -> list[_Run]:
    """Begin every cross-validation, so that what cannot run is said before the first hour is spent."""
    runs = []
    for one in grid.experiments:
        for seed in grid.seeds or (None,):
            name = one.name if seed is None else f"{one.name}/seed_{seed}"
            try:
                folds = begin_folds(
                    one.bundle,
                    out=out / name,
                    folds=grid.folds,
                    list_file=grid.list_file,
                    softmax=softmax,
                    check=check,
                    seed=seed,
                    **one.options(),
                    **options,
                )
            except UsageError as err:
                raise UsageError(f"Experiment {one.name}: {err}") from err
            runs.append(_Run(name, one.name, folds))
            if check is not None:
                check = replace(check, show=None)  # the same data: what was found is shown once
    return runs


def _counts(grid: ExperimentGrid) -> str:
    seeds = f"{len(grid.seeds)} seeds, " if grid.seeds else ""
    return f"{seeds}{len(grid.folds)} folds each"


def _run_here(run: _Run, folds: Sequence[int], say: Say) -> dict[str, str]:
    """Run the folds one after the other; why those that failed did."""
    failed = {}
    for fold in folds:
        try:
            run.folds.run(fold, lambda line: say(f"{run.name}: {line}"))
        except Exception as err:  # noqa: BLE001 - one broken experiment must not stop the others
            failed[f"{run.name}/fold_{fold}"] = _reason(err)
            say(f"{run.name}: Fold {fold} failed: {failed[f'{run.name}/fold_{fold}']}")
    return failed


def _pool(runs: Sequence[_Run], failed: Mapping[str, str], say: Say) -> dict[str, str]:
    """Pool the folds of each cross-validation that is whole; why those that could not be pooled were not."""
    unpooled = {}
    for run in runs:
        if not _failed(run, failed):
            say(f"{run.name}: scoring all folds together")
            try:
                run.folds.finish({})
            except Exception as err:  # noqa: BLE001 - as above
                unpooled[run.name] = _reason(err)
    return unpooled


def _failed(run: _Run, failed: Mapping[str, str]) -> bool:
    return any(name == run.name or name.startswith(f"{run.name}/fold_") for name in failed)


def _is_pooled(folds: BegunFolds) -> bool:
    """Whether the pooled scores are those of these folds; of a later experiment they may be there from before."""
    pooled = folds.out / POOLED
    held_out = [folds.out / f"fold_{fold}" / "held_out" for fold in folds.folds]
    files = [folder / "datalist.json" for folder in (*held_out, pooled)]
    if not (pooled / "summary.json").is_file() or not all(file.is_file() for file in files):
        return False
    *parts, whole = (read_json(file)["training"] for file in files)
    return sorted(case["id"] for part in parts for case in part) == sorted(case["id"] for case in whole)


def _reason(err: Exception) -> str:
    text = " ".join(str(err).split())
    return text if isinstance(err, Medimg3dError) else f"{type(err).__name__}: {text}"


def _report(
    grid: ExperimentGrid, runs: Sequence[_Run], out: Path, failed: Mapping[str, str]
) -> ExperimentsResult:
    """Write the figures of the experiments that are whole."""
    scores: dict[str, ExperimentScores] = {}
    for one in grid.experiments:
        own = [run for run in runs if run.experiment == one.name]
        if all(not _failed(run, failed) and _is_pooled(run.folds) for run in own):
            scores[one.name] = read_scores([run.folds.out for run in own], grid.folds)
    rejected = {case: reason for run in runs for case, reason in run.folds.rejected.items()}
    summary = _summary(grid, scores, failed)
    write_json(summary, out / "experiments.json")
    write_text(out / "experiments.csv", _as_csv(summary))
    table = experiments_markdown(summary)
    write_text(out / "experiments.md", table)
    page = experiments_page(summary, out / "experiments.html")
    return ExperimentsResult(summary, page, table, dict(failed), rejected)


def _summary(
    grid: ExperimentGrid, scores: Mapping[str, ExperimentScores], failed: Mapping[str, str]
) -> dict[str, Any]:
    first = scores.get(grid.experiments[0].name)
    entries = {one.name: _entry(one, grid, scores.get(one.name), first) for one in grid.experiments}
    units = {resampled_by(one) for one in scores.values()}
    return {
        "format": 1,
        "first": grid.experiments[0].name,
        "folds": list(grid.folds),
        "seeds": list(grid.seeds),
        "structures": list(dict.fromkeys(name for one in scores.values() for name in one.structures)),
        "resampled_by": "patient" if units == {"patient"} else "case",
        "experiments": entries,
        "failed": dict(failed),
        "warnings": _warnings(grid, scores),
    }


def _entry(
    one: Experiment, grid: ExperimentGrid, scores: ExperimentScores | None, first: ExperimentScores | None
) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "bundle": one.bundle.name,
        "settings": {
            "epochs": one.epochs,
            "set": dict(one.values),
            "overlay": one.overlay,
            "start_from": None if one.start_from is None else one.start_from.name,
        },
        "in_words": one.in_words(),
        "num_cases": None if scores is None else len(scores.dice),
        "dice": None if scores is None else figures(scores),
        "by_seed": {},
        "seed_spread": None,
        "training_s": None if scores is None else scores.training_s,
        "difference": None,
    }
    if scores is not None:
        if grid.seeds:
            entry["by_seed"] = dict(zip(map(str, grid.seeds), scores.by_seed, strict=True))
        entry["seed_spread"] = seed_spread(scores)
        if first is not None and first is not scores:
            entry["difference"] = differences(scores, first)
    return entry


def _warnings(grid: ExperimentGrid, scores: Mapping[str, ExperimentScores]) -> list[str]:
    warnings = []
    waiting = [one.name for one in grid.experiments if one.name not in scores]
    if waiting:
        warnings.append(f"Not finished: {', '.join(waiting)}. The same command goes on.")
    if grid.experiments[0].name in waiting and scores:
        warnings.append(f"{grid.experiments[0].name} is not there to compare the others with.")
    rejected = {name: one.rejected for name, one in scores.items() if one.rejected}
    for name, cases in rejected.items():
        warnings.append(
            f"{len(cases)} cases of {name} could not be scored; differences are over the cases in common."
        )
    others = [
        name for name, one in scores.items() if one.structures != next(iter(scores.values())).structures
    ]
    if others:
        warnings.append(
            f"{', '.join(others)}: other structures, so that mean Dice says something else and is not compared."
        )
    fewest = min((len(one.dice) for one in scores.values()), default=FEW_CASES)
    if fewest < FEW_CASES:
        warnings.append(f"{fewest} cases: below about {FEW_CASES} the intervals are too narrow.")
    return warnings


def _as_csv(summary: Mapping[str, Any]) -> str:
    """A row for each experiment and structure, the mean of the structures first."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        [
            *("experiment", "structure", "cases", "dice", "low", "high"),
            *("difference", "difference_low", "difference_high", "seed_sd", "training_s", "what"),
        ]
    )
    for name, one in summary["experiments"].items():
        for structure, figure in (one["dice"] or {}).items():
            other = (one["difference"] or {}).get(structure, {})
            spread = one["seed_spread"] if structure == MEAN else None
            writer.writerow(
                [
                    *(name, structure, figure["n"], *(_cell(figure[key]) for key in ("mean", "low", "high"))),
                    *(_cell(other.get(key)) for key in ("mean", "low", "high")),
                    _cell(spread and spread["sd"]),
                    _cell(one["training_s"] if structure == MEAN else None),
                    one["in_words"],
                ]
            )
    return text.getvalue()


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
