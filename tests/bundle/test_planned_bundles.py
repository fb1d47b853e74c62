"""The segmentation bundles that the planner made, as they are shipped: files for sharing, and what their weights do."""

from __future__ import annotations

import csv
import json
from importlib.resources import files
from pathlib import Path
from statistics import fmean

import jsonschema
import numpy as np
import pytest
from stock_monai import monai_bundle

from medimg3d.bundle.carried_code import check_carried_code
from medimg3d.data.content_hash import content_sha256
from medimg3d.data.label_map import read_label_map
from medimg3d.metrics.overlap import dice
from medimg3d.workflows.predict import predict

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
LUNG, HEART = BUNDLES / "ct_lung_tumor_unet", BUNDLES / "mri_heart_swinunetr"
PLACES = {LUNG: ("lung_cancer_ct", "ct", "tumour"), HEART: ("acdc_half", "images", "labels")}
each = pytest.mark.parametrize("bundle", PLACES, ids=lambda path: path.name)


@each
def test_files_for_sharing_are_there_and_small(bundle):
    names = ("README.md", "plan.md", "data_license.txt", "history.png", "cross_validation_cases.csv")
    for name in ("LICENSE", "models/model.pt", *(f"docs/{name}" for name in names)):
        assert (bundle / name).is_file(), name
    assert all(path.stat().st_size < 25_000_000 for path in bundle.rglob("*") if path.is_file())


@each
def test_the_weights_are_those_of_the_record(bundle):
    record = json.loads((bundle / "models" / "training_cases.json").read_text())
    assert record["weights_sha256"] == content_sha256(bundle / "models" / "model.pt")


@each
def test_carried_code_equals_its_source(bundle):
    check_carried_code(bundle)


@each
def test_metadata_fits_our_schema_and_says_that_there_are_weights(bundle):
    schema = json.loads((files("medimg3d.bundle") / "metadata_schema.json").read_text())
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    jsonschema.validate(metadata, schema)
    assert "no weights" not in json.dumps(metadata)
    assert "put your name" not in json.dumps(metadata).lower()


@each
def test_network_takes_and_gives_what_the_metadata_says(bundle, tmp_path):
    configs = bundle / "configs"
    output = monai_bundle(
        "verify_net_in_out",
        "network_def",
        cwd=tmp_path,
        config_file=configs / "inference.json",
        meta_file=configs / "metadata.json",
    )
    assert "data shape of network is verified with no error" in output


@pytest.mark.realdata
@each
def test_unseen_cases_get_the_scores_of_the_card(bundle, data_root, tmp_path):
    root, images, labels = PLACES[bundle]
    record = json.loads((bundle / "models" / "training_cases.json").read_text())
    seen = {case["image_sha256"] for case in record["cases"]}
    told: dict[str, list[float]] = {}
    with (bundle / "docs" / "cross_validation_cases.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            told.setdefault(row["case"], []).append(float(row["dice"]))
    unseen = [case for case in told if content_sha256(image_of(data_root / root / images, case)) not in seen][
        :4
    ]
    assert len(unseen) == 4
    chosen = [image_of(data_root / root / images, case) for case in unseen]
    predict(bundle, chosen, tmp_path / "out", overlays=False, reports=False)
    for case in unseen:
        truth = read_label_map(image_of(data_root / root / labels, case)).labels
        found = read_label_map(image_of(tmp_path / "out", f"{case}_seg")).labels
        assert found.shape == truth.shape
        scores = [dice(found == label, truth == label) for label in np.unique(truth[truth > 0])]
        assert fmean(scores) == pytest.approx(fmean(told[case]), abs=0.02), case


def image_of(folder: Path, name: str) -> Path:
    """A file by its name without endings, in the folder or below."""
    return next(folder.rglob(f"{name}.nii.gz"))
