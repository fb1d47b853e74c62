"""From a trained classifier's scores on validation images to its temperature, threshold and unsure band.

The images must be ones that the weights have not seen and that no figure is reported on: those that the
training held out. What was chosen is written beside the weights and travels with the bundle.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from medimg3d.atomic import write_text
from medimg3d.bundle.classifier import Classifier, decision_file, load_classifier
from medimg3d.bundle.folder import TRAINING_CASES, BundleFolder, read_json
from medimg3d.data.class_index import with_class_index
from medimg3d.data.folds import case_name, select_fold
from medimg3d.data.json_file import write_json
from medimg3d.errors import DataError, UsageError
from medimg3d.inference.decision import Decision
from medimg3d.workflows.training_copy import read_training_list

SCORES = "validation_scores.csv"

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Rule:
    """How the threshold is to be chosen.

    Args:
        sensitivity: Least sensitivity on the validation images; None maximizes sensitivity + specificity (Youden).
        unsure_share: Share of the validation images that a human should see; 0 for none.
        positive: Class that the threshold is about; the last one if None.
    """

    sensitivity: float | None = None
    unsure_share: float = 0.0
    positive: str | None = None

    def __post_init__(self) -> None:
        if self.sensitivity is not None and not 0 < self.sensitivity <= 1:
            raise UsageError(f"The sensitivity is {self.sensitivity}; expected a share above 0, up to 1.")
        if not 0 <= self.unsure_share < 1:
            raise UsageError(f"The unsure share is {self.unsure_share}; expected a share from 0 to below 1.")

    @property
    def name(self) -> str:
        """As it stands in the decision."""
        return "youden" if self.sensitivity is None else f"sensitivity {self.sensitivity:g}"


@dataclass(frozen=True)
class Calibration:
    """What was chosen, and on what.

    Attributes:
        decision: Written beside the weights.
        file: Where it was written.
        num_images: Validation images used.
        notes: What a reader should know, for example that the temperature could not be fitted.
    """

    decision: Decision
    file: Path
    num_images: int
    notes: list[str]


def calibrate(
    bundle: Path,
    datalist: Path,
    *,
    rule: Rule | None = None,
    checkpoint: Path | None = None,
    device: str | None = None,
    progress: Progress | None = None,
) -> Calibration:
    """Choose temperature, threshold and unsure band on the images that the training held out.

    Args:
        bundle: A trained classification bundle; its ``train.json`` says which fold was held out.
        datalist: The datalist that it was trained with.
        rule: How to choose; Youden without a band if None.
        checkpoint: Weights instead of the bundle's own; the decision is written beside them.
        device: ``"cpu"``, ``"cuda"``, …
        progress: Called before the first image and after each.

    Returns:
        What was chosen; ``decision.json`` and the scores are written beside the weights.

    Raises:
        UsageError: Nothing was held out (trained on all cases).
        DataError: A held-out class has no image, or an image cannot be read.
        BundleError: The bundle is no classifier, or cannot be built.
    """
    folder = BundleFolder(bundle)
    model = load_classifier(folder, checkpoint=checkpoint, device=device, calibrated=False)
    cases = held_out_cases(folder, datalist)
    logits, labels = _scores(model, cases, datalist.parent, progress)
    recipe = read_json(folder.config("train"))
    chosen_on = f"held-out fold {recipe['fold']} of {recipe['num_folds']}, {len(cases)} images"
    decision, notes = choose_decision(
        logits, labels, model.decision.classes, rule=rule or Rule(), chosen_on=chosen_on
    )
    decision = replace(decision, weights_sha256=model.facts.weights_sha256)
    weights = model.facts.weights
    _write_scores(cases, logits, labels, weights.with_name(SCORES))
    file = write_json(decision.as_json(), decision_file(weights))
    return Calibration(decision, file, len(cases), notes)


def held_out_cases(bundle: BundleFolder, datalist: Path) -> list[dict[str, Any]]:
    """The labelled cases that the training of a bundle held out: ``image``, ``label`` (index), ``name``.

    Raises:
        UsageError: It was trained on all cases.
    """
    recipe = read_json(bundle.config("train"))
    if recipe["fold"] < 0:
        raise UsageError(
            "The bundle was trained on all cases, so that nothing is left to choose a threshold on; train with "
            "--fold 0, or take over the decision.json of such a training."
        )
    classes = [name for _, name in sorted(bundle.class_names.items())]
    training_list = read_training_list(datalist, of_classes=True, class_names=classes)
    held_out = select_fold(
        training_list.cases,
        fold=recipe["fold"],
        part="validation",
        num_folds=recipe["num_folds"],
        seed=recipe["fold_seed"],
    )
    labelled = with_class_index(held_out, class_names=classes, class_key=recipe["class_key"])
    named = [{**one, "name": case_name(case)} for case, one in zip(held_out, labelled, strict=True)]
    _refuse_trained(bundle, named)
    return named


def choose_decision(
    logits: np.ndarray, labels: np.ndarray, classes: tuple[str, ...], *, rule: Rule, chosen_on: str
) -> tuple[Decision, list[str]]:
    """Temperature by likelihood, then the threshold and the band on the calibrated probabilities.

    Args:
        logits: Scores of the validation images, shape (n, classes).
        labels: Their classes' indices, shape (n,).
        classes: Class names.
        rule: How the threshold is chosen; with more than two classes the likeliest one decides.
        chosen_on: What the scores are of.

    Returns:
        The decision, and notes for the reader.
    """
    from medimg3d.metrics.calibration import fit_temperature
    from medimg3d.metrics.threshold import threshold_at_sensitivity, youden_threshold
    from medimg3d.metrics.unsure_band import unsure_band

    lacking = [name for index, name in enumerate(classes) if not (labels == index).any()]
    if lacking:
        raise DataError(f"No held-out image is of the class {lacking[0]}; expected some of each.")
    temperature = fit_temperature(logits, labels)
    notes = [f"temperature left at 1: {temperature.reason}"] if temperature.reason else []
    plain = Decision(classes, temperature=temperature.value, chosen_on=chosen_on)
    if len(classes) > 2:
        return plain, notes
    positive = rule.positive or classes[-1]
    if positive not in classes:
        raise UsageError(f"The positive class is {positive!r}; expected one of {', '.join(classes)}.")
    index = classes.index(positive)
    probabilities = plain.probabilities(logits)[:, index]
    is_positive = labels == index
    if rule.sensitivity is None:
        threshold = youden_threshold(probabilities, is_positive)
    else:
        threshold = threshold_at_sensitivity(probabilities, is_positive, rule.sensitivity)
    unsure = None
    if rule.unsure_share > 0:
        band = unsure_band(probabilities, is_positive, threshold.value, share=rule.unsure_share)
        unsure = None if band is None else (max(0.0, band.low), min(1.0, band.high))
    at = min(1.0, max(0.0, threshold.value))  # midpoints beyond the lowest and highest score may lie outside
    decision = replace(plain, positive=positive, threshold=at, unsure=unsure, rule=rule.name)
    return decision, notes


def _scores(
    model: Classifier, cases: list[dict[str, Any]], folder: Path, progress: Progress | None
) -> tuple[np.ndarray, np.ndarray]:
    rows = []
    for done, case in enumerate(cases):
        if progress is not None:
            progress(done, len(cases))
        try:
            rows.append(model.logits(model.image(folder / case["image"])[None]).numpy()[0])
        except (RuntimeError, OSError, ValueError) as err:
            raise DataError(
                f"{case['name']} cannot be read ({type(err).__name__}); mend the datalist."
            ) from err
    if progress is not None:
        progress(len(cases), len(cases))
    return np.asarray(rows, dtype=np.float64), np.asarray([case["label"] for case in cases])


def _refuse_trained(bundle: BundleFolder, cases: list[dict[str, Any]]) -> None:
    record = bundle.root / TRAINING_CASES
    if not record.is_file():
        return
    trained = {case["name"] for case in read_json(record)["cases"]}
    seen = [case["name"] for case in cases if case["name"] in trained]
    if seen:
        raise DataError(
            f"{len(seen)} of {len(cases)} held-out images were trained on (first: {seen[0]}); expected the datalist "
            "that the bundle was trained with."
        )


def _write_scores(cases: list[dict[str, Any]], logits: np.ndarray, labels: np.ndarray, path: Path) -> None:
    """The scores that the choice rests on, so that it can be made anew without the images."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["case", "label", *(f"score_{number}" for number in range(logits.shape[1]))])
    for case, label, row in zip(cases, labels, logits, strict=True):
        writer.writerow([case["name"], int(label), *(f"{value:.6f}" for value in row)])
    write_text(path, text.getvalue())
