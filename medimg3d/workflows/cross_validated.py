"""What cross-validations left on disk: the cases, what predicted them, and what could be combined."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from medimg3d.bundle.ensemble_config import further_steps
from medimg3d.bundle.folder import TRAINING_CASES, WEIGHTS, BundleFolder, read_json
from medimg3d.data.content_hash import content_sha256
from medimg3d.data.evaluation_pairs import find_predictions, find_references, match_prediction
from medimg3d.data.label_regions import LabelRegions
from medimg3d.errors import UsageError
from medimg3d.workflows.label_meaning import LabelMeaning, find_meaning


@dataclass(frozen=True)
class HeldOutCase:
    """A case, and what the weights that had not seen it made of it.

    Attributes:
        name: Name of the case.
        fold: The fold that held it out.
        label: Reference label map.
        image: Image, or None if not known.
        patient: Identifies the patient, or None.
        prediction: Label map.
        softmax: Class probabilities, or None if they were not kept.
    """

    name: str
    fold: int
    label: Path
    image: Path | None
    patient: str | None
    prediction: Path
    softmax: Path | None


@dataclass(frozen=True, eq=False)
class CrossValidated:
    """One configuration, cross-validated.

    Attributes:
        name: Name of the configuration.
        root: Folder of the cross-validation.
        folds: Its folds, each a trained bundle.
        cases: Case → what was held out.
    """

    name: str
    root: Path
    folds: tuple[int, ...]
    cases: dict[str, HeldOutCase]

    def bundle(self, fold: int) -> BundleFolder:
        """The bundle that a fold trained."""
        return BundleFolder(self.root / f"fold_{fold}")

    @property
    def first(self) -> BundleFolder:
        """The first fold's bundle; the others differ in their weights."""
        return self.bundle(self.folds[0])

    @property
    def class_names(self) -> dict[int, str]:
        """Label → name, without the background."""
        return {label: name for label, name in self.first.class_names.items() if label > 0}

    @property
    def meaning(self) -> LabelMeaning:
        """What its label maps and the references hold: classes, or regions, and what counts in no score."""
        held_out = self.root / f"fold_{self.folds[0]}" / "held_out"
        references = find_references(held_out / "datalist.json")
        found = find_meaning(references, held_out / "predictions", self.first.root)
        is_plain = not self.first.metadata.get("regions")  # whatever the datalist has
        return replace(found, names=self.class_names, regions=None, predicted="labels") if is_plain else found

    @property
    def has_softmax(self) -> bool:
        """Whether the class probabilities of every case were kept."""
        return all(case.softmax is not None for case in self.cases.values())

    def fingerprint(self) -> dict[str, Any]:
        """What the choice depends on, by content."""
        return {
            "name": self.name,
            "weights_sha256": {
                str(fold): content_sha256(self.bundle(fold).root / WEIGHTS) for fold in self.folds
            },
            "inference_sha256": content_sha256(self.first.config("inference")),
            "predictions_sha256": {
                name: content_sha256(case.prediction) for name, case in self.cases.items()
            },
            "softmax": self.has_softmax,
            "references": {
                name: [content_sha256(case.label), case.fold, case.patient]
                for name, case in self.cases.items()
            },
        }

    def never_held_out(self) -> set[str]:
        """Names of cases that folds were trained on and none held out: of folds that are missing."""
        records = [self.bundle(fold).root / TRAINING_CASES for fold in self.folds]
        trained = {
            str(case["name"])
            for record in records
            if record.is_file()
            for case in read_json(record)["cases"]
            if "from" not in case
        }
        return trained - set(self.cases)


def read_cross_validations(folders: Sequence[Path]) -> list[CrossValidated]:
    """Read cross-validations of the same cases in the same folds.

    Raises:
        UsageError: A folder holds none, or not all its folds are scored; the cases, folds or classes differ; or label
            maps cannot hold the regions.
    """
    if not folders:
        raise UsageError("No cross-validation was given; expected at least one folder.")
    for folder in folders:
        _refuse_lossy(folder)
    names = _unlike([folder.resolve().name.replace("+", "_") for folder in folders])
    found = [_read(folder, name) for folder, name in zip(folders, names, strict=True)]
    first = found[0]
    for other in found[1:]:
        if {n: c.fold for n, c in other.cases.items()} != {n: c.fold for n, c in first.cases.items()}:
            raise UsageError(
                f"{other.name} and {first.name} were cross-validated on other cases or folds; expected the same. Use "
                "one datalist with folds for all of them."
            )
        if other.meaning.regions != first.meaning.regions or other.class_names != first.class_names:
            raise UsageError(
                f"{other.name} has the classes {other.class_names}, {first.name} {first.class_names}; expected "
                "the same."
            )
    return found


def combinable(found: Sequence[CrossValidated], most: int) -> list[tuple[str, ...]]:
    """Names of the configurations that can be averaged in one bundle, at most so many at once.

    They need the same preprocessing, their class probabilities, and label maps that nothing but cleaning follows.
    """
    with_softmax = [
        one
        for one in found
        if one.has_softmax and not further_steps(read_json(one.first.config("inference")))
    ]
    return [
        tuple(one.name for one in group)
        for count in range(2, most + 1)
        for group in combinations(with_softmax, count)
        if len({_preprocessing(one) for one in group}) == 1
    ]


def _preprocessing(one: CrossValidated) -> str:
    config = read_json(one.first.config("inference"))
    names = ("region", "finder_preprocessing", "finder_inferer", "finder_network_def")
    values = json.dumps([config.get(name) for name in ("preprocessing", *names)])
    return re.sub(r"\bmedimg3d_\w+\.", "", values)  # code that each bundle carries in a package of its own


def _unlike(names: list[str]) -> list[str]:
    """Names of their own: a number behind those that come twice."""
    return [
        name if names.count(name) == 1 else f"{name}_{names[: position + 1].count(name)}"
        for position, name in enumerate(names)
    ]


def _read(root: Path, name: str) -> CrossValidated:
    if not root.is_dir():
        raise UsageError(f"{root} is no folder; expected one of medimg3d cross-validate.")
    numbers = (path.name.removeprefix("fold_") for path in root.glob("fold_*"))
    folds = tuple(sorted(int(number) for number in numbers if number.isdigit()))
    if len(folds) < 2:
        raise UsageError(
            f"{root} holds {len(folds)} folds; expected at least two of medimg3d cross-validate (--folds 0,1,…)."
        )
    cases: dict[str, HeldOutCase] = {}
    for fold in folds:
        bundle = root / f"fold_{fold}"
        held_out = bundle / "held_out"
        if (bundle / "configs" / "metadata.json").is_file() and BundleFolder(bundle).is_classifier:
            raise UsageError(f"{root} holds classifiers; an ensemble is made of bundles of label maps.")
        if not (held_out / "summary.json").is_file():
            raise UsageError(
                f"Fold {fold} of {root} is not finished; run medimg3d cross-validate once more with the same --out."
            )
        for case in _held_out(held_out, fold):
            if case.name in cases:
                raise UsageError(f"{case.name} was held out by two folds of {root}; expected one.")
            cases[case.name] = case
    return CrossValidated(name, root, folds, cases)


def _refuse_lossy(root: Path) -> None:
    for path in sorted(root.glob("fold_*/configs/metadata.json"))[:1]:
        regions = LabelRegions.of(read_json(path).get("regions"))
        if regions is not None and regions.lossy:
            raise UsageError(
                f"The bundle of {root} has regions that overlap without being nested ({regions}), which label maps "
                "cannot hold, and those choose an ensemble. Take one bundle, trained on all cases (--fold none)."
            )


def _held_out(folder: Path, fold: int) -> list[HeldOutCase]:
    predictions = find_predictions(folder / "predictions")
    cases = []
    for name, reference in find_references(folder / "datalist.json").cases.items():
        prediction = match_prediction(reference, predictions)
        if prediction is None:
            raise UsageError(f"{name} of fold {fold} has no prediction; run medimg3d cross-validate again.")
        stems = (prediction.name.removesuffix("_seg.nii.gz"), name)
        softmax = next(
            (file for stem in stems if (file := folder / "softmax" / f"{stem}.npz").is_file()), None
        )
        cases.append(
            HeldOutCase(
                name,
                fold,
                reference.label,
                reference.image,
                reference.patient,
                prediction,
                softmax,
            )
        )
    return cases
