"""Two sides' scores of the same cases: paired differences with their interval, and the table of the docs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from medimg3d.errors import DataError
from medimg3d.metrics.case_scores import ClassScore
from medimg3d.stats.bootstrap import bootstrap_mean

MARGIN = -0.005
"""The lower end of the interval that counts as "not lower"."""

Scores = Mapping[str, Mapping[str, ClassScore]]
Line = dict[str, Any]

HEAD = (
    "set, fold, at equal",
    "Dice, nnU-Net",
    "Dice, medimg3d",
    "difference [95 %]",
    "training, min (steps)",
    "prediction, s",
    "peak memory, GB",
)


@dataclass(frozen=True)
class Pair:
    """The Dice of one case on both sides.

    Attributes:
        case: Its name.
        patient: Its patient, or None where that is not known.
        dice: Structure of the truth → Dice of nnU-Net and of medimg3d.
    """

    case: str
    patient: str | None
    dice: Mapping[str, tuple[float, float]]

    @property
    def means(self) -> tuple[float, float]:
        """Mean over the structures of the case, nnU-Net's and medimg3d's."""
        theirs, ours = zip(*self.dice.values(), strict=True)
        return fmean(theirs), fmean(ours)


def pair_up(theirs: Scores, ours: Scores, patients: Mapping[str, str | None]) -> list[Pair]:
    """Cases side by side, by name. Only structures that the truth has count; a case without any is left out.

    Args:
        theirs: nnU-Net's scores: case → structure → scores.
        ours: medimg3d's.
        patients: Case → patient.

    Raises:
        DataError: A side lacks a case that the other has.
    """
    alone = sorted(set(theirs) ^ set(ours))
    if alone:
        raise DataError(
            f"{len(alone)} cases were scored on one side only (first: {alone[0]}); expected both."
        )
    pairs = (
        Pair(
            case,
            patients.get(case),
            {
                name: (theirs[case][name].dice, score.dice)
                for name, score in ours[case].items()
                if score.found_in in ("both", "reference only")
            },
        )
        for case in sorted(ours)
    )
    return [pair for pair in pairs if pair.dice]


def false_finds(scores: Scores) -> int:
    """How often a structure was found in a case that does not have it: what the paired Dice leaves out."""
    return sum(
        score.found_in == "prediction only" for classes in scores.values() for score in classes.values()
    )


def compare(pairs: Sequence[Pair], *, seed: int = 0) -> Line:
    """Mean Dice of both sides, [nnU-Net, medimg3d], and the difference (medimg3d minus nnU-Net) with its interval.

    A case counts by the mean over its structures. Whole patients are resampled where every case names its patient.
    """
    means = [pair.means for pair in pairs]
    known = [pair.patient for pair in pairs if pair.patient]
    groups = known if len(known) == len(pairs) else None
    interval = bootstrap_mean([ours - theirs for theirs, ours in means], groups=groups, seed=seed)
    names = dict.fromkeys(name for pair in pairs for name in pair.dice)
    return {
        "cases": len(pairs),
        "patients": None if groups is None else len(set(groups)),
        "dice": [fmean(theirs for theirs, _ in means), fmean(ours for _, ours in means)],
        "dice_by_class": {
            name: [fmean(pair.dice[name][side] for pair in pairs if name in pair.dice) for side in (0, 1)]
            for name in names
        },
        "difference": interval.mean,
        "interval": [interval.low, interval.high],
        "not_lower": interval.low is not None and interval.low >= MARGIN,
    }


def latest(lines: Iterable[Line]) -> list[Line]:
    """The last line of each comparison, in the order in which they first came."""
    found: dict[tuple[Any, ...], Line] = {}
    for line in lines:
        found[tuple(line.get(key) for key in ("name", "fold", "match", "backend", "device", "quick"))] = line
    return list(found.values())


def table(lines: Iterable[Line]) -> str:
    """A Markdown table of comparisons; nnU-Net's figures come first in each cell."""
    rows = [row(line) for line in latest(lines)]
    if not rows:
        return "Nothing is measured yet."
    cells = [HEAD, ("---",) * len(HEAD), *rows]
    return "\n".join([*measured_on(latest(lines)), "", *(f"| {' | '.join(one)} |" for one in cells)])


def row(line: Line) -> tuple[str, ...]:
    """A comparison as a row."""
    low, high = line["interval"]
    ends = "no interval" if low is None else f"[{low:+.4f}, {high:+.4f}]"
    seconds, memory = line["prediction_s"], line["prediction_memory_gb"]
    trained = " / ".join(
        f"{one / 60:.1f} ({steps})" for one, steps in zip(line["training_s"], line["steps"], strict=True)
    )
    named = f"{line['name']}, {line['fold']}, {line['match']}; {line['cases']} cases; {line['backend']}"
    return (
        named,
        f"{line['dice'][0]:.4f}",
        f"{line['dice'][1]:.4f}",
        f"{line['difference']:+.4f} {ends}",
        trained,
        f"{seconds[0]:.1f} / {seconds[1]:.1f} ({seconds[0] / seconds[1]:.1f} ×)",
        f"{memory[0]:.2f} / {memory[1]:.2f} ({memory[1] / memory[0]:.0%})",
    )


def measured_on(lines: Iterable[Line]) -> Iterator[str]:
    """One sentence for each machine and set of versions."""
    seen = set()
    for line in lines:
        ours, theirs = (
            ", ".join(f"{name} {number}" for name, number in line[key].items())
            for key in ("versions", "nnunet_versions")
        )
        machine = f"cores: {line['cores']} ({line['processor']}), {line['device']}"
        text = f"Measured on {machine}; medimg3d with {ours}; nnU-Net with {theirs}."
        if text not in seen:
            seen.add(text)
            yield text
