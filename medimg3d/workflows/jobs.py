"""Jobs that need no other: what SLURM and Ray spread over machines."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from medimg3d.errors import UsageError

COMMAND_MODULE = "medimg3d.cli.main"


@dataclass(frozen=True)
class Job:
    """A command line of medimg3d, or a call of one of its functions, that can be begun again after a kill.

    Attributes:
        name: What a person calls it, unlike every other; its log is called by it.
        words: Arguments of ``medimg3d``; empty for a call.
        call: ``"module:function"``; empty for a command line.
        arguments: Keyword arguments of the function, plain values.

    Raises:
        ValueError: Both or neither of words and call are given.
    """

    name: str
    words: tuple[str, ...] = ()
    call: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if bool(self.words) == bool(self.call):
            raise ValueError(f"{self.name}: give either words or a call.")

    def as_line(self) -> str:
        """One line of JSON."""
        content = {"words": self.words} if self.words else {"call": self.call, "arguments": self.arguments}
        return json.dumps(content) + "\n"


@dataclass(frozen=True)
class TrainingTask:
    """One training of an array over folds and seeds.

    Attributes:
        fold: Held-out fold; -1 for none.
        seed: Seed of the training; None for the recipe's.
        folder: Becomes the trained bundle.
    """

    fold: int
    seed: int | None
    folder: Path


def training_tasks(out: Path, folds: Sequence[int], seeds: Sequence[int]) -> list[TrainingTask]:
    """A task for each fold and seed, the folds of the first seed first.

    Args:
        out: Gets ``fold_<k>_seed_<s>/``.
        folds: Held-out folds; -1 trains on all cases.
        seeds: Seeds of each fold.

    Raises:
        UsageError: No fold or seed.
    """
    if not folds or not seeds:
        raise UsageError("No fold or no seed was asked for; expected at least one of each.")
    return [
        TrainingTask(fold, seed, (out / f"fold_{fold_word(fold)}_seed_{seed}").resolve())
        for seed, fold in product(seeds, folds)
    ]


def fold_word(fold: int) -> str:
    """A fold as ``--fold`` takes it."""
    return "none" if fold < 0 else str(fold)


def training_job(bundle: Path, list_file: Path, task: TrainingTask, options: Sequence[str]) -> Job:
    """The command line of a training whose data were checked; it goes on where an earlier try was stopped.

    Args:
        bundle: The bundle whose recipe is followed.
        list_file: The datalist.
        task: What to train.
        options: Further arguments of ``medimg3d train``.
    """
    seed = [] if task.seed is None else ["--seed", str(task.seed)]
    words = [
        *("train", str(bundle.resolve()), "--datalist", str(list_file.resolve())),
        *("--fold", fold_word(task.fold), *seed, "--out", str(task.folder), "--resume", "--no-check"),
        *options,
    ]
    return Job(task.folder.name, words=tuple(words))
