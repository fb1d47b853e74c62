"""Chooses configuration and cleaning rules by paired gains over cases, each only where it surely helps."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np

from medimg3d.bundle.label_rules import ALL_LABELS, LabelRule, in_order, tried_rules
from medimg3d.stats.bootstrap import Interval, bootstrap_mean

RAW = ""
NUM_RESAMPLES = 9999
FEWEST = 6
"""Patients (cases) below which nothing is sure: five gains in a row still happen by chance once in 16."""


@dataclass(frozen=True)
class CaseScore:
    """Dice of one case, for every candidate and rule.

    Attributes:
        case: Name of the case.
        fold: The fold that held it out.
        patient: Identifies the patient, or None.
        dice: Candidate → rule's key (``""`` without a rule) → label → Dice; 1 where neither map has the label.
        uncertainty: Configuration → how unsure it was of the case.
    """

    case: str
    fold: int
    patient: str | None
    dice: Mapping[str, Mapping[str, Mapping[int, float]]]
    uncertainty: Mapping[str, float] = field(default_factory=dict)

    def mean(self, candidate: str, rule: str = RAW) -> float:
        """Mean over labels."""
        return float(np.mean(list(self.dice[candidate][rule].values())))

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "case": self.case,
            "fold": self.fold,
            "patient": self.patient,
            "dice": {
                candidate: {
                    rule: {str(label): value for label, value in by_label.items()}
                    for rule, by_label in rules.items()
                }
                for candidate, rules in self.dice.items()
            },
            "uncertainty": dict(self.uncertainty),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> CaseScore:
        """The score of :meth:`as_json`."""
        dice = {
            candidate: {
                rule: {int(label): float(value) for label, value in by_label.items()}
                for rule, by_label in rules.items()
            }
            for candidate, rules in content["dice"].items()
        }
        return cls(content["case"], content["fold"], content["patient"], dice, content["uncertainty"])


@dataclass(frozen=True)
class Gain:
    """What something adds to the mean Dice, paired over cases.

    Attributes:
        what: Candidate or rule.
        over: What it is compared with.
        interval: Mean gain and its interval.
    """

    what: str
    over: str
    interval: Interval

    @property
    def is_sure(self) -> bool:
        """Whether the interval's lower end is above 0."""
        return self.interval.low is not None and self.interval.low > 0

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"what": self.what, "over": self.over, **interval_json(self.interval)}


@dataclass(frozen=True)
class Choice:
    """What some cases chose.

    Attributes:
        candidate: A configuration, or several joined by ``+``.
        rules: Cleaning rules, in order.
        gains: What was weighed: every candidate against the best single configuration, every rule that changed
            the mean for the better.
    """

    candidate: str
    rules: tuple[LabelRule, ...]
    gains: tuple[Gain, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "candidate": self.candidate,
            "rules": [rule.as_json() for rule in self.rules],
            "gains": [gain.as_json() for gain in self.gains],
        }


Together = Callable[[str, Sequence[LabelRule], Sequence[CaseScore]], list[float]]
"""From a candidate, rules and cases to each case's mean Dice under all the rules."""


def choose(
    scores: Sequence[CaseScore], labels: Sequence[int], together: Together, *, level: float = 0.95
) -> Choice:
    """Choose on these cases.

    The best single configuration is the one with the highest mean Dice. A combination takes its place only if its
    gain is surely above 0, for it costs more time; a rule is taken only if its own gain is. Several rules must help
    together as well, else the best one stays alone; what adds nothing to the others goes.

    Args:
        scores: The cases that choose.
        labels: Labels without the background.
        together: Scores several rules at once.
        level: Confidence of the intervals.

    Raises:
        ValueError: There is no case.
    """
    if not scores:
        raise ValueError("scores must hold at least one case, got none")
    candidate, gains = _candidate(scores, level)
    rules: list[tuple[float, LabelRule]] = []
    every = tried_rules(labels)
    groups = [(ALL_LABELS, ("together",)), *product(labels, (("min_volume", "largest"), ("fill",)))]
    for label, kinds in groups:
        tried = [rule for rule in every if rule.label == label and rule.kind in kinds]
        if tried:
            weighed = [(rule, _rule_gain(scores, candidate, rule, level)) for rule in tried]
            gains += [gain for _, gain in weighed if gain.interval.mean > 0]
            sure = [(gain.interval.mean, rule) for rule, gain in weighed if gain.is_sure]
            if sure:
                rules.append(max(sure, key=lambda pair: pair[0]))
    chosen = in_order([rule for _, rule in rules])
    if len(chosen) > 1:
        after = together(candidate, chosen, scores)
        gain = _gain("all rules together", candidate, after, _means(scores, candidate), scores, level)
        gains.append(gain)
        if not gain.is_sure:
            chosen = (max(rules, key=lambda pair: pair[0])[1],)
        else:
            chosen = _needed(candidate, chosen, together, scores)
    return Choice(candidate, chosen, tuple(gains))


def _needed(
    candidate: str, rules: tuple[LabelRule, ...], together: Together, scores: Sequence[CaseScore]
) -> tuple[LabelRule, ...]:
    """The rules without those that add nothing to the ones before them, from the last one on."""
    mean = float(np.mean(together(candidate, rules, scores)))
    for rule in reversed(rules):
        others = tuple(other for other in rules if other is not rule)
        if others and float(np.mean(together(candidate, others, scores))) >= mean - 1e-12:
            rules = others
    return rules


def paired_gain(
    what: str, over: str, after: Sequence[float], before: Sequence[float], scores: Sequence[CaseScore]
) -> Gain:
    """The gain of ``after`` over ``before``, one number a case, with its 95 % interval."""
    return _gain(what, over, after, before, scores, 0.95)


def patients_of(scores: Sequence[CaseScore]) -> list[str] | None:
    """The patient of each case, if all are known."""
    patients = [score.patient for score in scores if score.patient]
    return patients if len(patients) == len(scores) else None


def interval_json(interval: Interval) -> dict[str, Any]:
    """Mean, ends and number of cases."""
    mean = None if math.isnan(interval.mean) else interval.mean
    return {"mean": mean, "low": interval.low, "high": interval.high, "n": interval.n}


def is_single(candidate: str) -> bool:
    """Whether a candidate is one configuration."""
    return "+" not in candidate


def _candidate(scores: Sequence[CaseScore], level: float) -> tuple[str, list[Gain]]:
    means = {name: float(np.mean(_means(scores, name))) for name in scores[0].dice}
    best = max((name for name in means if is_single(name)), key=lambda name: means[name])
    gains = [
        _gain(name, best, _means(scores, name), _means(scores, best), scores, level)
        for name in means
        if name != best
    ]
    sure = [gain for gain in gains if gain.is_sure and not is_single(gain.what)]
    return (max(sure, key=lambda gain: gain.interval.mean).what if sure else best), gains


def _rule_gain(scores: Sequence[CaseScore], candidate: str, rule: LabelRule, level: float) -> Gain:
    after, before = _means(scores, candidate, rule.key), _means(scores, candidate)
    mean = float(np.mean(np.subtract(after, before)))
    if mean <= 0:  # no interval is needed
        return Gain(rule.key, candidate, Interval(mean, None, None, len(scores), level))
    return _gain(rule.key, candidate, after, before, scores, level)


def _means(scores: Sequence[CaseScore], candidate: str, rule: str = RAW) -> list[float]:
    return [score.mean(candidate, rule) for score in scores]


def _gain(
    what: str,
    over: str,
    after: Sequence[float],
    before: Sequence[float],
    scores: Sequence[CaseScore],
    level: float,
) -> Gain:
    groups = patients_of(scores)
    difference = np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)
    if len(set(groups) if groups else scores) < FEWEST:
        return Gain(what, over, Interval(float(difference.mean()), None, None, len(scores), level))
    interval = bootstrap_mean(difference, groups=groups, level=level, num_resamples=NUM_RESAMPLES)
    return Gain(what, over, interval)
