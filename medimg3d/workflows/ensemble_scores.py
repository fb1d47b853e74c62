"""Scores every held-out case under every candidate and cleaning rule, one file a case on disk."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medimg3d.atomic import remove_partial_files
from medimg3d.bundle.label_rules import LabelRule, apply_rules, tried_rules
from medimg3d.data.json_file import write_json
from medimg3d.data.label_map import LabelMap, check_same_grid, read_label_map
from medimg3d.errors import DataError, Medimg3dError
from medimg3d.metrics.confidence import soft_dice_doubt
from medimg3d.metrics.overlap import dice
from medimg3d.workflows.cross_validated import CrossValidated
from medimg3d.workflows.ensemble_choice import RAW, CaseScore, is_single
from medimg3d.workflows.held_out_softmax import read_softmax

Progress = Callable[[int, int], None]


class HeldOutScores:
    """The held-out cases of cross-validations and their scores, kept in a folder.

    Args:
        found: Configurations on the same cases.
        candidates: Names of configurations, several joined by ``+``.
        folder: Gets one JSON file a case; what is there is not computed again.
    """

    def __init__(self, found: Sequence[CrossValidated], candidates: Sequence[str], folder: Path) -> None:
        self.found = {one.name: one for one in found}
        self.candidates = tuple(candidates)
        self.folder = folder
        self.labels = sorted(found[0].class_names)
        self.meaning = found[0].meaning
        # what is left of a region is no object of its own where another lies in it
        self.cleaned = self.labels if self.meaning.regions is None else []
        self._together: dict[tuple[str, str, tuple[str, ...]], float] = {}

    def all(self, progress: Progress | None = None) -> list[CaseScore]:
        """Every case's scores, in order of fold and name."""
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_partial_files(self.folder)
        cases = sorted(
            next(iter(self.found.values())).cases.values(), key=lambda case: (case.fold, case.name)
        )
        scores = []
        for number, case in enumerate(cases):
            if progress is not None:
                progress(number, len(cases))
            scores.append(self._case(case.name))
        if progress is not None:
            progress(len(cases), len(cases))
        return scores

    def labels_of(self, candidate: str, case: str) -> LabelMap:
        """The label map that a candidate made of a held-out case."""
        parts = [self.found[name].cases[case] for name in candidate.split("+")]
        first = read_label_map(parts[0].prediction)
        if is_single(candidate):
            return first
        total: Any = sum(read_softmax(part.softmax) for part in parts if part.softmax is not None)
        labels = np.asarray(total.argmax(axis=0), dtype=np.uint8).reshape(first.labels.shape)
        return LabelMap(labels, first.affine, first.spacing_mm)

    def together(
        self, candidate: str, rules: Sequence[LabelRule], scores: Sequence[CaseScore]
    ) -> list[float]:
        """Mean Dice of each case with all the rules applied one after the other."""
        keys = tuple(rule.key for rule in rules)
        for score in scores:
            place = (candidate, score.case, keys)
            if place not in self._together:
                made, truth = self.labels_of(candidate, score.case), self._truth(score.case)
                cleaned = apply_rules(made.labels, rules, spacing_mm=made.spacing_mm)
                self._together[place] = float(np.mean(list(self._dice(cleaned, truth.labels).values())))
        return [self._together[candidate, score.case, keys] for score in scores]

    def _case(self, name: str) -> CaseScore:
        file = self.folder / f"{name}.json"
        if file.is_file():
            score = CaseScore.from_json(json.loads(file.read_text(encoding="utf-8")))
            if self._is_whole(score):
                return score
        case = next(iter(self.found.values())).cases[name]
        try:
            truth = self._truth(name)
            dice = {candidate: self._by_rule(candidate, name, truth) for candidate in self.candidates}
        except Medimg3dError as err:
            raise DataError(
                f"{name} cannot be scored: {err} Mend or leave out the case, and cross-validate again."
            ) from err
        doubt = {
            one.name: soft_dice_doubt(read_softmax(part.softmax))
            for one in self.found.values()
            if (part := one.cases[name]).softmax is not None
        }
        score = CaseScore(name, case.fold, case.patient, dice, doubt)
        write_json(score.as_json(), file)
        return score

    def _is_whole(self, score: CaseScore) -> bool:
        """Whether every candidate and rule is in it; an earlier version may have tried fewer."""
        keys = {RAW, *(rule.key for rule in tried_rules(self.cleaned))}
        return all(keys <= set(score.dice.get(candidate, {})) for candidate in self.candidates)

    def _truth(self, case: str) -> LabelMap:
        return read_label_map(next(iter(self.found.values())).cases[case].label)

    def _by_rule(self, candidate: str, case: str, truth: LabelMap) -> dict[str, dict[int, float]]:
        made = self.labels_of(candidate, case)
        check_same_grid(made, truth)
        raw = self._dice(made.labels, truth.labels)
        scores = {RAW: raw}
        for rule in tried_rules(self.cleaned):
            cleaned = apply_rules(made.labels, [rule], spacing_mm=made.spacing_mm)
            changed = not np.array_equal(cleaned, made.labels)
            scores[rule.key] = self._dice(cleaned, truth.labels) if changed else raw
        return scores

    def _dice(self, pred: NDArray[Any], truth: NDArray[Any]) -> dict[int, float]:
        """Dice of each label; 1 where neither map has it, so that a false find taken away counts as a gain."""
        if self.meaning.ignored is not None:
            known = truth != self.meaning.ignored
            pred, truth = np.where(known, pred, 0), np.where(known, truth, 0)
        if self.meaning.regions is not None:
            unions = self.meaning.unions([]).items()
            return {n: _overlap(np.isin(pred, own), np.isin(truth, true)) for n, (own, true) in unions}
        size = max(self.labels) + 1
        pred, truth = np.minimum(pred, size), np.minimum(truth, size)
        in_pred = np.bincount(pred.ravel(), minlength=size + 1)
        in_truth = np.bincount(truth.ravel(), minlength=size + 1)
        in_both = np.bincount(pred[pred == truth].ravel(), minlength=size + 1)
        return {
            label: float(2 * in_both[label] / total) if (total := in_pred[label] + in_truth[label]) else 1.0
            for label in self.labels
        }


def _overlap(pred: NDArray[Any], truth: NDArray[Any]) -> float:
    value = dice(pred, truth)
    return 1.0 if np.isnan(value) else value


def class_means(
    scores: Sequence[CaseScore], candidate: str, names: Mapping[int, str]
) -> dict[str, list[float]]:
    """Class → Dice of each case, of a candidate without rules."""
    return {name: [score.dice[candidate][RAW][label] for score in scores] for label, name in names.items()}
