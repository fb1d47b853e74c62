"""All folds of a comparison with nnU-Net as one: every case scored by the side that had not seen it.

Takes the work folders of against_nnunet.py, one a fold, whose steps are all done. Cases are paired as there; whole
patients are resampled over all folds. Times and steps are sums over the folds, memory is the largest of them. Prints
one JSON line a match and backend, and appends it to the results.

Usage: python benchmarks/pool_against_nnunet.py WORK... --nnunet-python PYTHON [--match time,steps]
       [--backends torch,openvino-f32] [--results benchmarks/results/against_nnunet.jsonl]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import nnunet_data as data
import nnunet_scores
from against_nnunet import RESULTS, SETTINGS, costs, head, our_prediction, scores_of, their_match
from prediction_speed import machine_facts, rounded
from run_all import append

from medimg3d.data.datalist_file import load_datalist
from medimg3d.data.training_record import read_json

SUMMED = ("training_s", "steps", "prediction_s", "prediction_process_s")
LARGEST = ("training_memory_gb", "prediction_memory_gb", "cache_gb")


def main() -> None:
    """A line for each match and backend."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("works", nargs="+", type=Path, metavar="WORK")
    parser.add_argument("--nnunet-python", type=Path, required=True)
    parser.add_argument("--match", default="time,steps")
    parser.add_argument("--backends", default="torch,openvino-f32")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    folds = [settings_of(work, given) for work in given.works]
    lines = [
        pooled_line(folds, match, backend)
        for match, backend in product(given.match.split(","), given.backends.split(","))
    ]
    for line in lines:
        print(json.dumps(line), flush=True)
    append(given.results, lines)


def settings_of(work: Path, given: argparse.Namespace) -> argparse.Namespace:
    """What a work folder was begun with, as against_nnunet.py's functions take it."""
    settings = read_json(work / "settings.json")
    if any(name not in settings for name in SETTINGS):
        raise SystemExit(f"{work} is no work folder of against_nnunet.py; expected one whose steps are done")
    return argparse.Namespace(work=work, nnunet_python=given.nnunet_python, **settings)


def pooled_line(folds: Sequence[argparse.Namespace], match: str, backend: str) -> dict[str, Any]:
    """One comparison over the held-out cases of all folds."""
    pairs, finds, seen = [], [0, 0], set()
    for fold in folds:
        names = f"nnunet_{their_match(match)}_processes", our_prediction(match, backend)
        sides = [scores_of(fold, name) for name in names]
        twice = seen & set(sides[1])
        if twice:
            raise SystemExit(f"{sorted(twice)[0]} was held out in two folds; expected folds without overlap")
        seen |= set(sides[1])
        patients = {case.name: case.patient for case in load_datalist(fold.work / data.HELD_OUT).training}
        pairs += nnunet_scores.pair_up(sides[0], sides[1], patients)
        finds = [count + nnunet_scores.false_finds(side) for count, side in zip(finds, sides, strict=True)]
    first = folds[0]
    line = {
        "benchmark": "against_nnunet", **head(first), "fold": f"{len(folds)} folds", "match": match,
        "backend": backend, **nnunet_scores.compare(pairs, seed=first.seed), "false_finds": finds,
        **pooled_costs([costs(fold, match, backend) for fold in folds]),
    }  # fmt: skip
    return {**rounded(line), **machine_facts(), "cores": first.cores, "begun": time.strftime("%Y-%m-%d")}


def largest(values: Sequence[float | None]) -> float | None:
    """The largest, or None where one was not measured (a fold that was trained before)."""
    known = [value for value in values if value is not None]
    return max(known) if len(known) == len(values) else None


def pooled_costs(folds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Sums of times and steps, largest memory, [nnU-Net, medimg3d]; what is the same in all folds stays."""
    first = folds[0]
    same = ("batch_size", "patch_size", "nnunet_versions")
    return {
        **{key: [sum(side) for side in zip(*(fold[key] for fold in folds), strict=True)] for key in SUMMED},
        **{
            key: [largest(side) for side in zip(*(fold[key] for fold in folds), strict=True)]
            for key in LARGEST
        },
        **{key: first[key] for key in same},
        "was_interrupted": [
            any(side) for side in zip(*(fold["was_interrupted"] for fold in folds), strict=True)
        ],
    }


if __name__ == "__main__":
    main()
