"""A classifier's scores on the images that its training held out, as they are or augmented."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from medimg3d.atomic import write_text
from medimg3d.bundle.classifier import Classifier
from medimg3d.bundle.code_path import bundle_code
from medimg3d.bundle.folder import TRAINING_CASES, BundleFolder, read_json
from medimg3d.bundle.parser import parse_config
from medimg3d.data.class_index import with_class_index
from medimg3d.data.folds import case_name, select_fold
from medimg3d.errors import DataError, UsageError
from medimg3d.workflows.training_copy import read_training_list

Progress = Callable[[int, int], None]
Augment = Callable[[dict[str, Any]], dict[str, Any]]


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


def augmentation(bundle: BundleFolder) -> Augment:
    """The random transforms of the bundle's own training."""
    with bundle_code(bundle.root):
        transforms: Augment = parse_config(bundle, ["train"]).get_parsed_content("train#random_transforms")
    return transforms


def score_cases(
    model: Classifier,
    cases: list[dict[str, Any]],
    folder: Path,
    *,
    augment: Augment | None = None,
    num_views: int = 0,
    progress: Progress | None = None,
) -> np.ndarray:
    """The network's scores of each image.

    Args:
        model: The classifier.
        cases: As :func:`held_out_cases` gives them.
        folder: Where relative paths count from.
        augment: Random transforms (MONAI's, with ``set_random_state``); needed with ``num_views``.
        num_views: Random versions of each image that are scored; 0: the image as it is.
        progress: Called before the first image and after each.

    Returns:
        Scores, shape (n, views, classes); one view if ``num_views`` is 0. View v of image i depends on (v, i) alone.

    Raises:
        DataError: An image cannot be read.
    """
    import torch

    rows = []
    for number, case in enumerate(cases):
        if progress is not None:
            progress(number, len(cases))
        try:
            image = model.image(folder / case["image"])
        except (RuntimeError, OSError, ValueError) as err:
            raise DataError(
                f"{case['name']} cannot be read ({type(err).__name__}); mend the datalist."
            ) from err
        views = [image] if augment is None or num_views == 0 else _views(image, augment, number, num_views)
        rows.append(model.logits(torch.stack([torch.as_tensor(view) for view in views])).numpy())
    if progress is not None:
        progress(len(cases), len(cases))
    return np.asarray(rows, dtype=np.float64)


def write_scores(cases: list[dict[str, Any]], logits: np.ndarray, path: Path) -> None:
    """The scores that a choice rests on, so that it can be made anew without the images.

    Args:
        cases: As :func:`held_out_cases` gives them.
        logits: As :func:`score_cases` gives them.
        path: A CSV with the columns ``case``, ``view``, ``label``, ``score_0``, ``score_1``, …
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["case", "view", "label", *(f"score_{number}" for number in range(logits.shape[2]))])
    for case, views in zip(cases, logits, strict=True):
        for view, scores in enumerate(views):
            writer.writerow([case["name"], view, int(case["label"]), *(f"{value:.6f}" for value in scores)])
    write_text(path, text.getvalue())


def _views(image: Any, augment: Any, number: int, num_views: int) -> list[Any]:
    views = []
    for view in range(num_views):
        state = np.random.SeedSequence([view, number]).generate_state(1)[0]
        augment.set_random_state(seed=int(state))
        views.append(augment({"image": image.clone()})["image"])
    return views


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
