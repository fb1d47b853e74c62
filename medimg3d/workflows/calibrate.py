"""From a trained classifier's scores on validation images to its temperature, threshold and unsure band.

The images must be ones that the weights have not seen and that no figure is reported on: those that the
training held out. What was chosen is written beside the weights and travels with the bundle.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from medimg3d.bundle.classifier import decision_file, load_classifier
from medimg3d.bundle.folder import BundleFolder, read_json
from medimg3d.data.json_file import write_json
from medimg3d.errors import BundleError, DataError, UsageError
from medimg3d.inference.decision import Decision
from medimg3d.workflows.validation_scores import (
    Progress,
    augmentation,
    held_out_cases,
    score_cases,
    write_scores,
)

SCORES = "validation_scores.csv"
CONFUSION = Path("docs") / "validation_confusion.png"


@dataclass(frozen=True)
class Rule:
    """How the threshold is to be chosen.

    Args:
        sensitivity: Least sensitivity on the validation images; None maximizes sensitivity + specificity (Youden).
        num_views: Choose on this many augmented versions of each image, which are harder than the images as
            they are; 0 for the images themselves.
        unsure_share: Share of the validation images that a human should see; 0 for none.
        positive: Class that the threshold is about; the last one if None.
    """

    sensitivity: float | None = None
    num_views: int = 0
    unsure_share: float = 0.0
    positive: str | None = None

    def __post_init__(self) -> None:
        if self.sensitivity is not None and not 0 < self.sensitivity <= 1:
            raise UsageError(f"The sensitivity is {self.sensitivity}; expected a share above 0, up to 1.")
        if self.num_views < 0:
            raise UsageError(f"The number of views is {self.num_views}; expected 0 or more.")
        if not 0 <= self.unsure_share < 1:
            raise UsageError(f"The unsure share is {self.unsure_share}; expected a share from 0 to below 1.")

    @classmethod
    def of_recipe(cls, bundle: BundleFolder) -> Rule:
        """The rule that stands in a bundle's ``train.json`` under ``calibration``; Youden's if none does.

        Raises:
            BundleError: It names something else than sensitivity, num_views, unsure_share and positive.
        """
        values = read_json(bundle.config("train")).get("calibration") or {}
        try:
            return cls(**values)
        except (TypeError, UsageError) as err:
            raise BundleError(
                f"train.json of {bundle.name}: calibration is {values} ({err}); expected any of sensitivity, "
                "num_views, unsure_share, positive."
            ) from err

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
        rule: How to choose; the one in the bundle's ``train.json`` if None.
        checkpoint: Weights instead of the bundle's own; the decision is written beside them.
        device: ``"cpu"``, ``"cuda"``, …
        progress: Called before the first image and after each.

    Returns:
        What was chosen; ``decision.json`` and the scores are written beside the weights, the confusion matrix of
        these images at the chosen threshold to ``docs/``.

    Raises:
        UsageError: Nothing was held out (trained on all cases).
        DataError: A held-out class has no image, or an image cannot be read.
        BundleError: The bundle is no classifier, or cannot be built.
    """
    folder = BundleFolder(bundle)
    model = load_classifier(folder, checkpoint=checkpoint, device=device, calibrated=False)
    cases = held_out_cases(folder, datalist)
    rule = rule or Rule.of_recipe(folder)
    views = score_cases(
        model,
        cases,
        datalist.parent,
        augment=augmentation(folder) if rule.num_views else None,
        num_views=rule.num_views,
        progress=progress,
    )
    num_views = views.shape[1]
    labels = np.repeat([case["label"] for case in cases], num_views)
    recipe = read_json(folder.config("train"))
    chosen_on = f"held-out fold {recipe['fold']} of {recipe['num_folds']}, {len(cases)} images"
    if rule.num_views:
        chosen_on += f", {num_views} augmented versions of each"
    logits = views.reshape(-1, views.shape[2])
    decision, notes = choose_decision(logits, labels, model.decision.classes, rule=rule, chosen_on=chosen_on)
    decision = replace(decision, weights_sha256=model.facts.weights_sha256)
    weights = model.facts.weights
    write_scores(cases, views, weights.with_name(SCORES))
    file = write_json(decision.as_json(), decision_file(weights))
    title = f"Held out: {decision.chosen_on.removeprefix('held-out ')}"
    _draw_confusion(decision, logits, labels, title, folder.root / CONFUSION)
    return Calibration(decision, file, len(cases), notes)


def choose_decision(
    logits: np.ndarray, labels: np.ndarray, classes: tuple[str, ...], *, rule: Rule, chosen_on: str
) -> tuple[Decision, list[str]]:
    """Temperature and bias by likelihood, then the threshold and the band on the calibrated probabilities.

    Args:
        logits: Scores of the validation images, shape (n, classes).
        labels: Their classes' indices, shape (n,).
        classes: Class names.
        rule: How the threshold is chosen; with more than two classes the likeliest one decides.
        chosen_on: What the scores are of.

    Returns:
        The decision, and notes for the reader.
    """
    from medimg3d.metrics.calibration import fit_scaling
    from medimg3d.metrics.threshold import threshold_at_sensitivity, youden_threshold
    from medimg3d.metrics.unsure_band import unsure_band

    lacking = [name for index, name in enumerate(classes) if not (labels == index).any()]
    if lacking:
        raise DataError(f"No held-out image is of the class {lacking[0]}; expected some of each.")
    scaling = fit_scaling(logits, labels)
    notes = [f"not calibrated in full: {scaling.reason}"] if scaling.reason else []
    bias = scaling.bias if any(scaling.bias) else ()
    plain = Decision(classes, temperature=scaling.temperature, bias=bias, chosen_on=chosen_on)
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


def _draw_confusion(
    decision: Decision, logits: np.ndarray, labels: np.ndarray, title: str, path: Path
) -> None:
    from medimg3d.metrics.classification import confusion_matrix
    from medimg3d.report.classification_figures import confusion_plot

    index = {name: number for number, name in enumerate(decision.classes)}
    decided = [index[decision.decide(row)] for row in decision.probabilities(logits)]
    path.parent.mkdir(exist_ok=True)
    confusion_plot({title: confusion_matrix(labels, decided, len(index))}, decision.classes, path)
