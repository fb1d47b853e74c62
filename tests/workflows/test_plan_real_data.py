"""Plans of a few real images of each kind, with which stock MONAI alone trains, scores and predicts."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from stock_monai import train_evaluate_infer

from medimg3d.data.set_description import SetDescription
from medimg3d.workflows.ingest import make_datalist
from medimg3d.workflows.plan import plan_bundle

SMALL = {"width": 4, "max_poolings": 2}


@dataclass(frozen=True)
class FewCases:
    """A few cases of a real set, and how they are listed and planned.

    Attributes:
        root: Folder of the set.
        folders: Those of images and of label maps, whose files have the same names; or one a class.
        names: Patterns of the files' names.
        settings: Of the plan.
        listing: Options of :func:`make_datalist`.
        description: What is known beside the files; ``table`` is a file of the set.
    """

    root: str
    folders: tuple[str, str]
    names: tuple[str, ...]
    settings: Mapping[str, Any]
    listing: Mapping[str, Any] = field(default_factory=dict)
    description: Mapping[str, Any] = field(default_factory=dict)


SETS = {
    "hippocampus": FewCases(
        root="hippocampus",
        folders=("imagesTr", "labelsTr"),
        names=("hippocampus_00*",),
        settings=SMALL,
        listing={"num_folds": 3},
    ),
    # The held-out patient, 057, has twice the others' voxels along each edge: brought to their scale, and back.
    "heart": FewCases(
        root="acdc_half",
        folders=("images", "labels"),
        names=("patient002*", "patient005*", "patient057*"),
        settings={**SMALL, "field_of_view": "common"},
        listing={"num_folds": 3, "seed": 1, "patient_pattern": r"(patient\d+)"},
        description={
            "name": "heart",
            "modality": ("MRI",),
            "structures": {1: "right ventricle", 2: "myocardium", 3: "left ventricle"},
            "unknown_voxel_size": True,
        },
    ),
    "films": FewCases(
        root="chest_xray/train",
        folders=("NORMAL", "PNEUMONIA"),
        names=("IM-011*", "person100[0-2]*"),
        settings={"image_size": (32, 32)},
        listing={"num_folds": 3, "patient_pattern": r"(IM-\d+|person\d+)"},
    ),
    # Stored right to left and front to back; the folds are the table's.
    "lung": FewCases(
        root="lung_cancer_ct",
        folders=("ct", "tumour"),
        names=("lung_00*", "lung_01*"),
        settings=SMALL,
        listing={"pair": ("ct", "tumour")},
        description={
            "name": "lung",
            "modality": ("CT",),
            "structures": {1: "tumour"},
            "table": "patients.csv",
        },
    ),
}


@pytest.mark.realdata
@pytest.mark.slow
@pytest.mark.parametrize("name", SETS)
def test_stock_monai_trains_scores_and_predicts_a_plan_of_a_few_real_images(name, data_root, tmp_path):
    chosen, data = SETS[name], tmp_path / "data"
    write_few_cases(chosen, data_root / chosen.root, data)
    settings = {"trial": False, **chosen.settings}
    planned = plan_bundle(data / "dataset.json", tmp_path / name, settings, workers=1)
    cases = json.loads((data / "dataset.json").read_text())["training"]
    held_out = [case for case in cases if case["fold"] == 0]
    assert 0 < len(held_out) < len(cases)
    if planned.plan.is_segmentation:
        out = train_evaluate_infer(planned.bundle, data, tmp_path, data / "set" / chosen.folders[0])
        check_label_maps(data, cases, out, set(planned.plan.scheme.labels))
        check_scores(data, held_out, out, tmp_path / "evaluation", sorted(planned.plan.scheme.labels)[1:])
    else:
        out = train_evaluate_infer(planned.bundle, data, tmp_path)
        check_table(out, data, cases, set(chosen.folders))
        check_table(tmp_path / "evaluation", data, held_out, set(chosen.folders))


def write_few_cases(chosen: FewCases, source: Path, folder: Path) -> None:
    """Their files in the set's own folders, and beside the set ``dataset.json`` as ``medimg3d datalist`` makes it."""
    for part in chosen.folders:
        (folder / "set" / part).mkdir(parents=True)
        for path in (path for names in chosen.names for path in (source / part).glob(names)):
            shutil.copyfile(path, folder / "set" / part / path.name)
    if (source / "dataset.json").is_file():
        content = json.loads((source / "dataset.json").read_text())
        there = [case for case in content["training"] if (folder / "set" / case["image"]).is_file()]
        (folder / "set" / "dataset.json").write_text(json.dumps(content | {"training": there}))
    known = dict(chosen.description)
    if "table" in known:
        known["table"] = source / known["table"]
    listed = make_datalist(
        [folder / "set"], folder / "few.json", description=SetDescription(**known), **chosen.listing
    )
    assert listed.rejected == {}
    listed.path.rename(folder / "dataset.json")


def check_label_maps(data: Path, cases: list[dict[str, Any]], out: Path, values: set[int]) -> None:
    """One for each image and no more, on its grid, with the set's values."""
    assert len(list(out.glob("*_seg.nii.gz"))) == len(cases)
    for case in cases:
        image, found = nibabel.load(data / case["image"]), nibabel.load(label_map(out, case["image"]))
        assert found.shape == image.shape
        np.testing.assert_allclose(found.affine, image.affine, atol=1e-4)
        assert set(np.unique(found.dataobj)) <= values


def check_scores(
    data: Path, held_out: list[dict[str, Any]], out: Path, evaluation: Path, structures: list[int]
) -> None:
    """The held-out cases' Dice is that of their written label maps, compared with the set's own voxel by voxel."""
    rows = read_rows(evaluation / "val_mean_dice_raw.csv", "filename")
    assert sorted(rows) == sorted(str(data / case["image"]) for case in held_out)
    for case in held_out:
        truth, found = (
            np.asanyarray(nibabel.load(path).dataobj)
            for path in (data / case["label"], label_map(out, case["image"]))
        )
        assert found.any()  # or every Dice is 0 wherever the structures are
        row = rows[str(data / case["image"])]
        told = [float(row[f"class{number}"]) for number in range(len(structures))]
        own = [dice(found == value, truth == value) for value in structures]
        np.testing.assert_allclose(told, own, atol=1e-4)


def check_table(folder: Path, data: Path, cases: list[dict[str, Any]], classes: set[str]) -> None:
    """A row for each film and no more, with a probability and a class."""
    rows = read_rows(folder / "predictions.csv", "file")
    assert sorted(rows) == sorted(case["image"] for case in cases)
    for row in rows.values():
        assert 0 < float(row["probability"]) < 1
        assert row["decision"] in classes


def read_rows(table: Path, key: str) -> dict[str, dict[str, str]]:
    with table.open(newline="") as file:
        return {row[key]: row for row in csv.DictReader(file)}


def label_map(folder: Path, image: str) -> Path:
    return folder / f"{Path(image).name.removesuffix('.nii.gz')}_seg.nii.gz"


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return 2 * (one & other).sum() / (one.sum() + other.sum())
