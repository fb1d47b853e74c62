"""The decision is chosen on what the training held out, by the rule asked for or the recipe's own."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import phantoms
import pytest

from medimg3d.bundle.folder import BundleFolder, set_config_values
from medimg3d.errors import BundleError, DataError, UsageError
from medimg3d.workflows.calibrate import Rule, calibrate
from medimg3d.workflows.train import train

BUNDLE = Path(__file__).resolve().parents[2] / "bundles" / "xray_pneumonia_densenet"
NETWORK = {"_target_": "DenseNet", "spatial_dims": 2, "in_channels": 1, "out_channels": "@num_classes",
           "init_features": 8, "growth_rate": 4, "block_config": [1, 1]}  # fmt: skip
SMALL = {
    "image_size": [32, 32],
    "batch_size": 4,
    "iterations_per_epoch": 2,
    "num_folds": 3,
    "architecture": NETWORK,
}


@pytest.fixture(scope="module")
def films(tmp_path_factory) -> Path:
    return phantoms.write_films(tmp_path_factory.mktemp("films"), num_films=24, size=32)


@pytest.fixture(scope="module")
def trained(films, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "bundle"
    train(BUNDLE, out=out, dataset_dir=films, epochs=1, precision="float32", num_workers=0, overrides=SMALL,
          progress=False)  # fmt: skip
    return out


def scores(bundle: Path) -> list[dict[str, str]]:
    with open(bundle / "models" / "validation_scores.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_augmented_versions_are_scored_and_named(trained, films):
    picture = trained / "docs" / "validation_confusion.png"
    picture.unlink()  # the training drew it
    plain = calibrate(trained, films / "dataset.json", rule=Rule())
    assert picture.stat().st_size > 10_000
    assert {row["view"] for row in scores(trained)} == {"0"}
    augmented = calibrate(trained, films / "dataset.json", rule=Rule(num_views=3))
    rows = scores(trained)
    assert len(rows) == 3 * plain.num_images
    assert len({row["score_0"] for row in rows}) > plain.num_images  # the versions differ
    assert augmented.decision.chosen_on.endswith("3 augmented versions of each")
    assert calibrate(trained, films / "dataset.json", rule=Rule(num_views=3)).decision == augmented.decision


def test_the_recipes_rule_is_followed_unless_another_is_asked_for(trained, films):
    config = BundleFolder(trained).config("train")
    set_config_values(config, {"calibration": {"sensitivity": 0.9, "num_views": 2}})
    stored = calibrate(trained, films / "dataset.json").decision
    assert stored.rule == "sensitivity 0.9"
    assert "2 augmented versions" in stored.chosen_on
    assert calibrate(trained, films / "dataset.json", rule=Rule()).decision.rule == "youden"
    set_config_values(config, {"calibration": {"sensibility": 0.9}})
    with pytest.raises(BundleError, match="expected any of sensitivity"):
        calibrate(trained, films / "dataset.json")
    set_config_values(config, {"calibration": {}})


def test_images_that_were_trained_on_are_refused(trained, films, tmp_path):
    content = json.loads((films / "dataset.json").read_text())
    for case in content["training"]:
        case["image"] = str(films / case["image"])
        case["fold"] = 0
    (tmp_path / "all.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="were trained on"):
        calibrate(trained, tmp_path / "all.json")


def test_a_rule_that_cannot_be_is_refused():
    with pytest.raises(UsageError, match="views is -1"):
        Rule(num_views=-1)
    with pytest.raises(UsageError, match="sensitivity is 2"):
        Rule(sensitivity=2)
