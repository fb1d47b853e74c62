"""The film bundle as stock MONAI sees it: no medimg3d, another folder."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import phantoms
import pytest
import stock_monai
import torch

from medimg3d.bundle.carried_code import check_carried_code
from medimg3d.bundle.folder import BundleFolder, copy_bundle
from medimg3d.workflows.predict_classification import predict_classification
from medimg3d.workflows.train import train

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
NAMES = ("xray_pneumonia_densenet", "ct_adrenal_densenet")
SMALL = {"image_size": [32, 32], "batch_size": 4, "iterations_per_epoch": 2, "num_folds": 3}


@pytest.fixture(scope="module")
def films(tmp_path_factory) -> Path:
    return phantoms.write_films(tmp_path_factory.mktemp("films"), num_films=12, size=32)


@pytest.fixture(scope="module")
def trained(films, tmp_path_factory) -> Path:
    """The film bundle, trained for one short epoch on 32 x 32 pixels."""
    out = tmp_path_factory.mktemp("trained") / "bundle"
    bundle = BUNDLES / NAMES[0]
    train(
        bundle, out=out, dataset_dir=films, epochs=1, precision="float32", num_workers=0, overrides=SMALL,
        progress=False,
    )  # fmt: skip
    return out


@pytest.mark.parametrize("name", NAMES)
def test_carried_code_equals_its_source(name):
    check_carried_code(BUNDLES / name)


@pytest.mark.parametrize("name", NAMES)
def test_preprocessing_and_architecture_are_the_same_in_every_config(name):
    configs = [
        json.loads((BUNDLES / name / "configs" / f"{config}.json").read_text())
        for config in ("train", "evaluate", "inference")
    ]
    for block in ("preprocessing", "architecture", "class_names", "image_size"):
        assert configs[0][block] == configs[1][block] == configs[2][block]


def test_the_overlay_leaves_the_recipe_alone():
    """Its ids replace how data is cached, run and logged; loss, optimizer, augmentation and network stay."""
    for name in NAMES:
        overlay = json.loads((BUNDLES / name / "configs" / "train_fast.json").read_text())
        replaced = {key for key in overlay if "#" in key and not key.startswith("+")}
        assert replaced == {
            "train#cached_dataset", "validate#dataset", "train#inferer", "train#history", "train#checkpoint",
            "train#progress",
        }  # fmt: skip


def test_a_training_leaves_weights_history_and_a_decision(trained):
    with open(trained / "training" / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    metrics = ("loss", "accuracy", "f1", "precision", "recall", "auc")
    assert len(rows) == 1
    assert {f"{part}_{metric}" for part in ("train", "val") for metric in metrics} <= set(rows[0])
    decision = json.loads((trained / "models" / "decision.json").read_text())
    assert decision["positive"] == "pneumonia"
    assert decision["chosen_on"].startswith("held-out fold 0 of 3")


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_stock_monai_and_medimg3d_write_the_same_predictions(trained, films, tmp_path):
    stock_monai.monai_bundle(
        "run", cwd=tmp_path, config_file=trained / "configs" / "inference.json", bundle_root=trained,
        dataset_dir=films, output_dir=tmp_path / "stock",
    )  # fmt: skip
    predict_classification(trained, [films], tmp_path / "own", fast=False)
    stock = read_rows(tmp_path / "stock" / "predictions.csv")
    own = read_rows(tmp_path / "own" / "predictions.csv")
    assert len(stock) == 12
    for stock_row, own_row in zip(stock, own, strict=True):
        assert stock_row.keys() == own_row.keys()
        for column, value in stock_row.items():
            if column.startswith("probability"):
                # Two processes: the library that multiplies matrices may divide its sums otherwise.
                assert float(own_row[column]) == pytest.approx(float(value), abs=1e-6)
            else:
                assert own_row[column] == value


def test_stock_monai_trains_and_evaluates(trained, films, tmp_path):
    bundle = copy_bundle(BundleFolder(trained), tmp_path / "copy").root
    stock_monai.monai_bundle(
        "run", cwd=tmp_path, config_file=bundle / "configs" / "train.json", bundle_root=bundle,
        dataset_dir=films, ckpt_dir=bundle / "models", output_dir=tmp_path / "training", num_workers=0,
    )  # fmt: skip
    stock_monai.monai_bundle(
        "run", cwd=tmp_path, config_file=bundle / "configs" / "evaluate.json", bundle_root=bundle,
        dataset_dir=films, output_dir=tmp_path / "scores",
    )  # fmt: skip
    names = [line.split(",")[0] for line in (tmp_path / "scores" / "metrics.csv").read_text().splitlines()]
    assert {"val_auc", "val_accuracy"} <= set(names)
    # Four films of one patient group are held out, whatever their number.
    assert len((tmp_path / "scores" / "predictions.csv").read_text().splitlines()) > 1


def test_another_architecture_reaches_the_copys_inference(films, tmp_path):
    network = {
        "_target_": "DenseNet",
        "spatial_dims": 2,
        "in_channels": 1,
        "out_channels": "@num_classes",
        "init_features": 8,
        "growth_rate": 4,
        "block_config": [1, 1],
    }
    train(
        BUNDLES / NAMES[0], out=tmp_path / "small", dataset_dir=films, epochs=1, precision="float32",
        num_workers=0, overrides=SMALL | {"architecture": network}, progress=False,
    )  # fmt: skip
    assert (tmp_path / "small" / "models" / "model.pt").stat().st_size < 200_000
    assert len(predict_classification(tmp_path / "small", [films], tmp_path / "out").images) == 12


def test_runs_share_what_was_preprocessed(films, tmp_path):
    network = {"_target_": "DenseNet", "spatial_dims": 2, "in_channels": 1, "out_channels": "@num_classes",
               "init_features": 8, "growth_rate": 4, "block_config": [1, 1]}  # fmt: skip
    cache = tmp_path / "cache"
    entries = []
    for seed in (0, 1):
        train(
            BUNDLES / NAMES[0], out=tmp_path / str(seed), dataset_dir=films, epochs=1, precision="float32", seed=seed,
            num_workers=0, cache_dir=cache, overrides=SMALL | {"architecture": network}, progress=False,
        )  # fmt: skip
        entries.append({path: path.stat().st_mtime_ns for path in cache.iterdir() if path.is_dir()})
        assert not (tmp_path / str(seed) / "training" / "cache").exists()
    assert len(entries[0]) == 12
    assert entries[0] == entries[1]


def test_pretraining_without_labels_gives_weights_to_begin_from(films, tmp_path):
    small = {"_target_": "DenseNet", "spatial_dims": 2, "in_channels": 1, "out_channels": "@num_classes",
             "init_features": 8, "growth_rate": 4, "block_config": [1, 1]}  # fmt: skip
    options = {"dataset_dir": films, "epochs": 1, "precision": "float32", "num_workers": 0, "progress": False}
    pretrained = train(
        BUNDLES / NAMES[0], out=tmp_path / "pretrained", overlay="pretrain",
        overrides=SMALL | {"architecture": small}, **options,
    )  # fmt: skip
    assert pretrained.history[0]["train_loss"] > 0
    weights = str(pretrained.bundle / "models" / "model.pt")
    start = {"transfer": "frozen", "pretrained": weights, "architecture": small}
    tuned = train(BUNDLES / NAMES[0], out=tmp_path / "tuned", overrides=SMALL | start, **options)
    before = torch.load(weights, weights_only=True)
    after = torch.load(tuned.bundle / "models" / "model.pt", weights_only=True)
    torch.testing.assert_close(after["features.conv0.weight"], before["backbone.features.conv0.weight"])


def test_the_variant_of_three_classes_trains_from_the_subtype(films, tmp_path):
    train(
        BUNDLES / NAMES[0], out=tmp_path / "three", dataset_dir=films, epochs=1, precision="float32",
        num_workers=0, overrides=SMALL | {"num_folds": 2}, overlay="three_classes", progress=False,
    )  # fmt: skip
    bundle = BundleFolder(tmp_path / "three")
    assert list(bundle.class_names.values()) == ["normal", "bacteria", "virus"]
    rows = predict_classification(bundle.root, [films], tmp_path / "out").images
    assert {"probability_normal", "probability_bacteria", "probability_virus"} <= set(rows[0].row)


@pytest.mark.slow
def test_two_processes_end_with_equal_weights_and_score_every_film(films, tmp_path):
    """Gradients are averaged over both; the held-out films are dealt out to both and gathered."""
    configs = BUNDLES / NAMES[0] / "configs"
    save = (
        "$torch.save(@network.module.state_dict(), os.path.join(@output_dir, 'rank_' + str(@rank) + '.pt'))"
    )
    scored = "os.path.join(@output_dir, 'scored_' + str(@rank) + '.txt')"
    count = f"$open({scored}, 'w').write(str(@validate#metrics.num_cases))"
    network = {"_target_": "DenseNet", "spatial_dims": 2, "in_channels": 1, "out_channels": "@num_classes",
               "init_features": 8, "growth_rate": 4, "block_config": [1, 1]}  # fmt: skip
    values = {
        "config_file": f"['{configs / 'train.json'}','{configs / 'multi_gpu_train.json'}']",
        "bundle_root": BUNDLES / NAMES[0],
        "dataset_dir": films,
        "output_dir": tmp_path,
        "image_size": "[32,32]",
        "architecture": json.dumps(network),
        "batch_size": 2,
        "iterations_per_epoch": 2,
        "num_folds": 3,
        "num_workers": 0,
        "train#trainer#max_epochs": 2,
        "finalize": json.dumps([save, count, "$torch.distributed.destroy_process_group()"]),
    }
    options = [str(part) for name, value in values.items() for part in (f"--{name}", value)]
    launcher = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nnodes=1",
        "--nproc_per_node=2",
    ]
    stock_monai.run([*launcher, "-m", "monai.bundle", "run", *options], cwd=tmp_path)
    ranks = [torch.load(tmp_path / f"rank_{rank}.pt", weights_only=True) for rank in (0, 1)]
    for name, value in ranks[0].items():
        if "running" not in name:  # batch normalization's means are each rank's own until the next step
            torch.testing.assert_close(value, ranks[1][name], atol=0, rtol=0)
    assert (tmp_path / "models" / "model.pt").is_file()
    assert (tmp_path / "scored_0.txt").read_text() == (tmp_path / "scored_1.txt").read_text() == "4"
