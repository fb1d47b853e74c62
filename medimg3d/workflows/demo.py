"""The whole job on a real head that needs no download: segment both hippocampi of the MNI152 template.

Where labelled images are found, it also trains for a short while and scores cases the weights have not seen.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medimg3d.atomic import write_text
from medimg3d.data.box import Box, box_around, paste
from medimg3d.data.fast_nifti_writer import write_label_nifti
from medimg3d.data.folds import select_fold
from medimg3d.data.nifti_header import geometry_header
from medimg3d.data.template import mni152_t1
from medimg3d.data.volume_file import Volume, read_volume, write_volume
from medimg3d.workflows.predict import PredictResult, predict

CENTERS_RAS = {"left": (-28.0, -22.0, -14.0), "right": (28.0, -22.0, -14.0)}
"""Middle of each hippocampus in MNI space, in mm."""
BOX_MM = (36.0, 52.0, 36.0)
"""Size of the boxes cut out, as in the training images."""
HELD_OUT_CASES = 20
"""Cases that are scored, at most."""

Say = Callable[[str], None]
"""Called with one line on what is done next."""


@dataclass(frozen=True)
class DemoTraining:
    """A short training and how it did on cases it has not seen.

    Attributes:
        bundle: The trained copy.
        epochs: How long it was trained.
        training_cases: Cases trained on.
        held_out_cases: Cases scored.
        dice: Structure → mean Dice over those.
        page: The evaluation's page.
    """

    bundle: Path
    epochs: int
    training_cases: int
    held_out_cases: int
    dice: dict[str, float]
    page: Path


@dataclass(frozen=True)
class DemoResult:
    """What the demo made.

    Attributes:
        prediction: Both hippocampi; cases ``left`` and ``right``.
        template: The head.
        label_map: Label map of both, on the head's grid.
        training: The short training, or None.
        skipped: Why there was none; empty if there was.
    """

    prediction: PredictResult
    template: Path
    label_map: Path
    training: DemoTraining | None
    skipped: str

    def volumes_ml(self) -> dict[str, dict[str, float]]:
        """Side → structure → volume in mL, with the total."""
        sides = {}
        for row in self.prediction.measurements:
            known = {name: ml for name, ml in row.ml.items() if ml is not None}
            sides[row.case] = known | {"total": sum(known.values())}
        return sides

    def summary(self) -> dict[str, Any]:
        """The result as plain values, for ``--json``."""
        training = None
        if self.training is not None:
            training = {
                "bundle": str(self.training.bundle),
                "epochs": self.training.epochs,
                "training_cases": self.training.training_cases,
                "held_out_cases": self.training.held_out_cases,
                "dice": self.training.dice,
                "page": str(self.training.page),
            }
        return {
            "volumes_ml": self.volumes_ml(),
            "out": str(self.prediction.out),
            "template": str(self.template),
            "label_map": str(self.label_map),
            "training": training,
            "skipped": self.skipped,
        }


def demo(
    bundle: Path,
    out: Path,
    *,
    train_minutes: float = 2.0,
    data_root: Path | None = None,
    say: Say | None = None,
) -> DemoResult:
    """Segment the template, and train where data is found.

    Writes ``images/`` (the boxes cut out), ``prediction/`` (see :func:`medimg3d.workflows.predict.predict`),
    ``template/`` (head and label map on one grid), and with data ``training/``, ``held_out/``,
    ``evaluation/``. A training in ``out`` is gone on with, not begun anew.

    Args:
        bundle: The hippocampus bundle, with weights.
        out: Folder to write to.
        train_minutes: How long to train; 0 for not at all.
        data_root: Folder that holds ``hippocampus/dataset.json``; else the environment's ``MEDIMG3D_DATA``.
        say: Called before each step.

    Returns:
        What was made.

    Raises:
        MissingExtraError: nilearn is not installed.
        UsageError: ``bundle`` is no folder.
        BundleError: The bundle has no weights, or cannot be built.
    """
    tell = say or (lambda line: None)
    tell("Cutting both hippocampal regions out of the MNI152 template ...")
    template = mni152_t1()
    boxes = hippocampal_boxes(template)
    images = cut_regions(template, boxes, out / "images")
    tell("Segmenting them ...")
    prediction = predict(bundle, images, out / "prediction")
    head = out / "template" / "mni152_t1.nii.gz"
    head.parent.mkdir(parents=True, exist_ok=True)
    write_volume(template, head)
    label_map = _paste_back(template, boxes, prediction, head.with_name("mni152_hippocampus_seg.nii.gz"))
    dataset, skipped = _find_dataset(data_root, train_minutes)
    training = None
    if dataset is not None:
        training = _train_and_score(bundle, dataset, out, train_minutes, tell)
    return DemoResult(prediction, head, label_map, training, skipped)


def hippocampal_boxes(template: Volume) -> dict[str, Box]:
    """The box around the hippocampus of each side.

    Raises:
        GeometryError: A box reaches out of the image.
    """
    return {
        side: box_around(center, BOX_MM, shape=template.array.shape, affine=template.affine)
        for side, center in CENTERS_RAS.items()
    }


def cut_regions(template: Volume, boxes: dict[str, Box], folder: Path) -> list[Path]:
    """Write each box as ``<side>.nii.gz`` with its own affine."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for side, box in boxes.items():
        array = np.ascontiguousarray(template.array[box.slices])
        affine = box.affine(template.affine)
        header = geometry_header(array.shape, affine, code="mni")
        region = Volume(array, affine, header, has_known_size=True)
        files.append(write_volume(region, folder / f"{side}.nii.gz"))
    return files


def _paste_back(template: Volume, boxes: dict[str, Box], prediction: PredictResult, path: Path) -> Path:
    labels = np.zeros(template.array.shape, np.uint8)
    for case in prediction.cases:
        paste(read_volume(case.label_map).array, boxes[case.case], labels)
    return write_label_nifti(labels, template.header, path)


def _find_dataset(data_root: Path | None, train_minutes: float) -> tuple[Path | None, str]:
    """The labelled set, or None and why."""
    if train_minutes <= 0:
        return None, "no training was asked for"
    root = data_root or (Path(os.environ["MEDIMG3D_DATA"]) if os.environ.get("MEDIMG3D_DATA") else None)
    if root is None or not (root / "hippocampus" / "dataset.json").is_file():
        return (
            None,
            "no labelled images were found: set MEDIMG3D_DATA to a folder with hippocampus/dataset.json",
        )
    return root / "hippocampus", ""


def _train_and_score(bundle: Path, dataset: Path, out: Path, minutes: float, tell: Say) -> DemoTraining:
    from medimg3d.workflows.evaluate import evaluate
    from medimg3d.workflows.train import train

    tell(f"Training anew for about {minutes:g} minutes on four fifths of the labelled images ...")
    trained = train(bundle, out=out / "training", dataset_dir=dataset, max_minutes=minutes, resume=True)
    held_out, images = _write_held_out(dataset, out / "held_out.json")
    tell(f"Scoring {len(images)} cases that these weights have not seen ...")
    predicted = predict(trained.bundle, images, out / "held_out", overlays=False, reports=False)
    names = predicted.bundle.class_names
    scores = evaluate(predicted.out, held_out, out / "evaluation", bundle=trained.bundle, class_names=names)
    dice = {name: float(entry["mean"]) for name, entry in scores.summary["metrics"]["dice"].items()}
    return DemoTraining(
        bundle=trained.bundle,
        epochs=trained.settings.epochs,
        training_cases=trained.training_cases,
        held_out_cases=len(scores.scores),
        dice=dice,
        page=scores.files["page"],
    )


def _write_held_out(dataset: Path, path: Path) -> tuple[Path, list[Path]]:
    """A datalist of the first held-out cases of fold 0, and their images."""
    content = json.loads((dataset / "dataset.json").read_text(encoding="utf-8"))
    cases = select_fold(content["training"], fold=0, part="validation")[:HELD_OUT_CASES]
    for case in cases:
        case |= {key: str((dataset / case[key]).resolve()) for key in ("image", "label")}
    held_out = {"name": "held-out cases of fold 0", "labels": content["labels"], "training": cases}
    write_text(path, json.dumps(held_out, indent=1) + "\n")
    return path, [Path(case["image"]) for case in cases]
