"""What a recipe loses on patients of a hospital (scanner, country) that it was not trained on.

For each value of a column of the datalist's tables: train on the cases of all other values, predict those of this
one, score. The same cases were scored by a cross-validation of the same bundle, whose trainings had seen other
patients of every hospital; the difference is paired by case, whole patients are resampled. It holds both what is
foreign and that fewer patients were trained on; `trained_on` has their numbers.

Prints one JSON line a value, appends it to --results. A training or prediction that is done is passed over.

Usage: python benchmarks/site_transfer.py BUNDLE --datalist FILE --column source --cross-validation DIR --out DIR
       [--epochs N] [--workers N] [--results FILE]
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from prediction_speed import machine_facts, rounded
from run_all import append

from medimg3d.data.datalist import Case, Datalist
from medimg3d.data.datalist_file import load_datalist, save_datalist
from medimg3d.stats.bootstrap import bootstrap_mean

RESULTS = Path(__file__).resolve().parent / "results" / "site_transfer.jsonl"
UNSEEN = Path("unseen")


def main() -> None:
    """A line for each hospital."""
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("bundle", type=Path)
    arguments.add_argument("--datalist", type=Path, required=True)
    arguments.add_argument("--column", required=True, help="of the cases' values")
    arguments.add_argument("--cross-validation", type=Path, required=True, help="of the same bundle")
    arguments.add_argument("--out", type=Path, required=True)
    arguments.add_argument("--epochs", type=int, help="of each training; the bundle's if left away")
    arguments.add_argument("--workers", type=int, help="processes that load and augment")
    arguments.add_argument("--results", type=Path, default=RESULTS)
    given = arguments.parse_args()
    datalist = load_datalist(given.datalist)
    for site in sites(datalist, given.column):
        line = transfer(given, datalist, site)
        print(json.dumps(line), flush=True)
        append(given.results, [line])


def sites(datalist: Datalist, column: str) -> list[str]:
    """The values of the column, sorted.

    Raises:
        SystemExit: A case has none, or all have the same.
    """
    without = [case.name for case in datalist.training if case.values.get(column) is None]
    if without:
        raise SystemExit(f"{len(without)} cases have no {column} (first: {without[0]}); expected one in each")
    found = sorted({str(case.values[column]) for case in datalist.training})
    if len(found) < 2:
        raise SystemExit(f"all cases have {column} {found[0]}; expected at least two values")
    return found


def apart(datalist: Datalist, column: str, site: str) -> tuple[Datalist, Datalist]:
    """The cases of all other sites to train on, and those of this one to test on."""
    own = [str(case.values[column]) == site for case in datalist.training]
    parts = [
        tuple(case for case, is_own in zip(datalist.training, own, strict=True) if is_own is wanted)
        for wanted in (False, True)
    ]
    trained, tested = (replace(datalist, training=part, validation=(), test=()) for part in parts)
    return trained, tested


def transfer(given: argparse.Namespace, datalist: Datalist, site: str) -> dict[str, Any]:
    """Train, predict, score and compare one site."""
    from medimg3d.workflows.evaluate import evaluate
    from medimg3d.workflows.predict import predict
    from medimg3d.workflows.train import train

    run = given.out / f"without_{site}"
    trained, tested = apart(datalist, given.column, site)
    lists = [save_datalist(part, run.with_name(f"{name}_{site}.json"))
             for name, part in (("trained", trained), ("tested", tested))]  # fmt: skip
    if not (run / "docs" / "README.md").is_file():
        train(given.bundle, out=run, datalist=lists[0], fold=-1, epochs=given.epochs, resume=True,
              num_workers=given.workers)  # fmt: skip
    images = [image_of(case) for case in tested.training]
    predict(run, images, run / UNSEEN, overlays=False, reports=False, resume=True)
    result = evaluate(run / UNSEEN, lists[1], run / "scores")
    if result.rejected:
        case, reason = next(iter(result.rejected.items()))
        raise SystemExit(f"{len(result.rejected)} cases could not be scored; the first, {case}: {reason}")
    seen = cross_validated(given.cross_validation)
    foreign = {case: fmean(score.dice for score in scores.values()) for case, scores in result.scores.items()}
    patients = {case.name: case.patient or case.name for case in tested.training}
    return {
        "benchmark": "site_transfer", "name": datalist.name, "column": given.column, "tested_on": site,
        "trained_on": len(trained.training), **compare(seen, foreign, patients),
        **rounded(machine_facts()), "begun": time.strftime("%Y-%m-%d"),
    }  # fmt: skip


def image_of(case: Case) -> Path:
    """The image of a case with one channel.

    Raises:
        SystemExit: It has several.
    """
    if not isinstance(case.image, Path):
        raise SystemExit(f"{case.name} has several channels; expected one image a case")
    return case.image


def cross_validated(folder: Path) -> dict[str, float]:
    """Mean Dice of each case over its structures, from ``cross_validation/cases.csv``."""
    dice: dict[str, list[float]] = {}
    with (folder / "cross_validation" / "cases.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["found_in"] != "neither":
                dice.setdefault(row["case"], []).append(float(row["dice"]))
    return {case: fmean(values) for case, values in dice.items()}


def compare(
    seen: Mapping[str, float], foreign: Mapping[str, float], patients: Mapping[str, str]
) -> dict[str, Any]:
    """Means of both and the drop (foreign minus seen) with its interval, over the cases of the foreign side.

    Raises:
        SystemExit: The cross-validation did not score one of them.
    """
    missing = sorted(set(foreign) - set(seen))
    if missing:
        raise SystemExit(f"{len(missing)} cases are not in the cross-validation (first: {missing[0]})")
    cases = sorted(foreign)
    groups = [patients[case] for case in cases]
    pairs = {"seen": [seen[case] for case in cases], "foreign": [foreign[case] for case in cases]}
    pairs["drop"] = [b - a for a, b in zip(pairs["seen"], pairs["foreign"], strict=True)]
    found: dict[str, Any] = {"cases": len(cases), "patients": len(set(groups))}
    for name, values in pairs.items():
        interval = bootstrap_mean(values, groups=groups)
        found[name] = interval.mean
        found[f"{name}_interval"] = [interval.low, interval.high]
    return dict(rounded(found))


if __name__ == "__main__":
    main()
