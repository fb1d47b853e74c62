"""Bundles that find a region first: trained in two stages, and predicted as stock MONAI predicts them."""

from __future__ import annotations

import json
import math

import nibabel
import numpy as np
import phantoms
import pytest
import torch
from stock_monai import monai_bundle

from medimg3d.bundle.code_path import bundle_code
from medimg3d.bundle.folder import BundleFolder, set_config_values
from medimg3d.bundle.inference import load_inference, read_facts
from medimg3d.bundle.parser import parse_config
from medimg3d.errors import BundleError, UsageError
from medimg3d.workflows.plan import plan_bundle
from medimg3d.workflows.predict import predict
from medimg3d.workflows.train import train
from medimg3d.workflows.train_finder import RegionRecall, measure_recall, read_recalls, recall_line

SETTINGS = {
    "trial": False,
    "patch_size": (24, 24, 24),
    "width": 4,
    "finder_margin_mm": 6.0,
    "spacing_mm": (1.25, 1.25, 1.25),
    "augmentation": "none",
}
SMALL = {"iterations_per_epoch": 1, "batch_size": 2}
THRESHOLD = {"_target_": "torch.nn.Conv3d", "in_channels": 1, "out_channels": 2, "kernel_size": 1}
GRIDS = {
    "flipped": np.diag([-1.0, 1.0, -1.0, 1.0]),
    "oblique": phantoms.oblique_affine((1.0, 1.0, 1.0)),
    "anisotropic": phantoms.affine((0.8, 0.8, 2.0)),
    "exchanged": np.array([[0, 1.0, 0, 1], [0, 0, -1.0, 9], [1.5, 0, 0, 4], [0, 0, 0, 1]]),
}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return phantoms.write_large_study(tmp_path_factory.mktemp("study"), num_cases=5)


@pytest.fixture(scope="module")
def planned(study, tmp_path_factory):
    out = tmp_path_factory.mktemp("plan") / "balls"
    bundle = plan_bundle(study / "dataset.json", out, SETTINGS, workers=1).bundle
    set_config_values(bundle / "configs" / "train_finder.json", SMALL)
    return bundle


@pytest.fixture
def ready(planned, study, tmp_path):
    """The bundle with weights by hand: a finder of what is far above the mean, and a network at random."""
    return made_ready(planned, tmp_path / "balls")


def made_ready(planned, folder, level=2.0):
    from medimg3d.bundle.folder import copy_bundle

    bundle = copy_bundle(BundleFolder(planned), folder)
    for name in ("inference", "evaluate"):
        set_config_values(bundle.config(name), {"finder_network_def": THRESHOLD})
    torch.manual_seed(0)
    with bundle_code(bundle.root):
        network = parse_config(bundle, ["train"]).get_parsed_content("network_def")
    (folder / "models").mkdir()
    torch.save({"model": network.state_dict()}, folder / "models" / "model.pt")
    weight = torch.tensor([0.0, 10.0]).reshape(2, 1, 1, 1, 1)
    finder = {"weight": weight, "bias": torch.tensor([0.0, -10.0 * level])}
    torch.save({"model": finder}, folder / "models" / "finder.pt")
    return folder


def images_on_all_grids(folder):
    for number, (name, matrix) in enumerate(GRIDS.items()):
        image, _ = phantoms.small_ball_phantom(number)
        phantoms.write_nifti(folder / f"{name}.nii.gz", image, matrix)
    return folder


def label_maps(folder):
    return {path.name: nibabel.load(path) for path in sorted(folder.glob("*_seg.nii.gz"))}


def test_the_plan_says_that_a_region_is_found_first(planned):
    text = (planned / "docs" / "plan.md").read_text()
    assert "| region finder | yes |" in text
    assert "train_finder.json" in (planned / "docs" / "README.md").read_text()
    assert json.loads((planned / "docs" / "plan.json").read_text())["decided"]["finder"] == "yes"


def test_a_second_plan_keeps_the_finder_or_drops_it_when_asked(study, tmp_path):
    first = plan_bundle(study / "dataset.json", tmp_path / "balls", SETTINGS, workers=1).plan
    second = plan_bundle(
        study / "dataset.json", tmp_path / "balls", {"epochs": 3, "trial": False}, resume=True, workers=1
    ).plan
    assert second.finder == first.finder
    assert second.patch_size == first.patch_size
    third = plan_bundle(
        study / "dataset.json", tmp_path / "balls", {"finder": "no", "trial": False}, resume=True, workers=1
    )
    assert third.plan.finder is None
    assert not (third.bundle / "configs" / "train_finder.json").exists()


def test_the_fast_road_gives_the_label_maps_of_the_plain_one_on_every_grid(ready, tmp_path):
    images = images_on_all_grids(tmp_path / "images")
    quiet = {"overlays": False, "reports": False}
    fast = predict(ready, [images], tmp_path / "fast", **quiet)
    predict(ready, [images], tmp_path / "plain", fast=False, **quiet)
    assert fast.rejected == {}
    plain = label_maps(tmp_path / "plain")
    for name, one in label_maps(tmp_path / "fast").items():
        assert np.array_equal(one.affine, plain[name].affine)
        assert one.shape == (72, 60, 56)
        labels = np.asarray(one.dataobj)
        assert np.array_equal(labels, np.asarray(plain[name].dataobj))
        assert 0 < labels.mean() < 0.3  # in the region alone


def test_what_is_predicted_lies_around_the_ball(ready, tmp_path):
    image, label = phantoms.small_ball_phantom(2)
    phantoms.write_nifti(tmp_path / "images" / "a.nii.gz", image, GRIDS["oblique"])
    predict(ready, [tmp_path / "images"], tmp_path / "out", overlays=False, reports=False)
    found = np.argwhere(np.asarray(label_maps(tmp_path / "out")["a_seg.nii.gz"].dataobj))
    ball = np.argwhere(label)
    assert (found.min(axis=0) >= ball.min(axis=0) - 12).all()
    assert (found.max(axis=0) <= ball.max(axis=0) + 12).all()


def test_a_case_in_which_nothing_is_found_is_predicted_as_a_whole_and_says_so(planned, tmp_path):
    bundle = made_ready(planned, tmp_path / "balls", level=1000.0)
    image, _ = phantoms.small_ball_phantom(0)
    phantoms.write_nifti(tmp_path / "images" / "a.nii.gz", image)
    result = predict(bundle, [tmp_path / "images"], tmp_path / "out", overlays=False, reports=False)
    assert "nothing was found at low resolution" in result.cases[0].note
    assert "nothing was found" in (tmp_path / "out" / "run.json").read_text()


def test_a_bundle_whose_finder_was_not_trained_is_refused(ready, tmp_path):
    (ready / "models" / "finder.pt").unlink()
    with pytest.raises(BundleError, match="--stage finder"):
        predict(ready, [tmp_path], tmp_path / "out")


def test_other_weights_of_the_finder_are_other_settings(ready):
    bundle = BundleFolder(ready)
    model = load_inference(bundle, read_facts(bundle), fast=True)
    first = model.settings(bundle)["finder_sha256"]
    torch.save({"model": {}}, ready / "models" / "finder.pt")
    assert model.settings(bundle)["finder_sha256"] != first


def test_the_memory_of_loading_counts_the_finder(ready, tmp_path):
    from medimg3d.bundle.loading_need import _finder_bytes
    from medimg3d.data.volume_file import read_volume_grid

    image = phantoms.write_nifti(tmp_path / "a.nii.gz", phantoms.small_ball_phantom(0)[0])
    bundle = BundleFolder(ready)
    model = load_inference(bundle, read_facts(bundle), fast=True)
    coarse = model.preprocessing.transforms[3].region.coarse_voxels((72, 60, 56), (1.0, 1.0, 1.0))
    assert _finder_bytes(model, read_volume_grid(image)) >= 4 * (4 + 8) * coarse


def test_a_prediction_within_a_cap_is_the_same(ready, tmp_path):
    images = images_on_all_grids(tmp_path / "images")
    quiet = {"overlays": False, "reports": False}
    predict(ready, [images], tmp_path / "free", **quiet)
    capped = predict(ready, [images], tmp_path / "capped", memory_gb=4.0, **quiet)
    assert capped.rejected == {}
    free = label_maps(tmp_path / "free")
    for name, one in label_maps(tmp_path / "capped").items():
        assert np.array_equal(np.asarray(one.dataobj), np.asarray(free[name].dataobj))


def test_recall_is_measured_on_the_held_out_cases(ready, study):
    recalls = measure_recall(BundleFolder(ready), study / "dataset.json", fold=0)
    assert len(recalls) == 1
    assert recalls[0].recall == 1
    assert 0 < recalls[0].share_of_image < 0.3


def test_recall_in_words():
    recalls = [
        RegionRecall("a", 1.0, 0.1),
        RegionRecall("b", 0.5, 0.2),
        RegionRecall("c", math.nan, 1.0, "nothing"),
    ]
    line = recall_line(recalls, held_out=True)
    assert "2 held-out cases: 75.00% of the labelled voxels" in line
    assert "least 50.00%, b" in line
    assert "20.0% of the image (median); nothing was found in 1" in line
    assert "none of 1 cases" in recall_line(recalls[2:], held_out=False)


def test_a_stage_is_refused_for_a_bundle_without_a_finder(tmp_path, study):
    plain = plan_bundle(
        study / "dataset.json", tmp_path / "plain", SETTINGS | {"finder": "no"}, workers=1
    ).bundle
    with pytest.raises(UsageError, match="no region finder"):
        train(plain, out=tmp_path / "out", dataset_dir=study, stage="finder")
    with pytest.raises(UsageError, match="expected all, finder, fine"):
        train(plain, out=tmp_path / "out", dataset_dir=study, stage="both")


def other_folds(study, trained):
    """A datalist in which a case that the finder was trained on is held out."""
    seen = json.loads((trained / "training_finder" / "training_cases.json").read_text())["cases"]
    content = json.loads((study / "dataset.json").read_text())
    first = next(case for case in content["training"] if case["image"].endswith(f"{seen[0]['name']}.nii.gz"))
    for number, case in enumerate([first, *(one for one in content["training"] if one is not first)]):
        case["fold"] = number
    path = study / "other_folds.json"
    path.write_text(json.dumps(content))
    return path


@pytest.mark.slow
def test_the_two_stages_are_trained_one_by_one_and_survive_a_stop(planned, study, tmp_path):
    common = {
        "out": tmp_path / "trained",
        "dataset_dir": study,
        "precision": "float32",
        "num_workers": 0,
        "progress": False,
        "check": None,
        "overrides": SMALL,
    }
    first = train(planned, stage="finder", finder_epochs=2, **common)
    assert (first.training_cases, first.validation_cases, first.settings.epochs) == (4, 1, 2)
    assert "Region finder, 1 held-out cases" in first.finder[0]
    weights = (tmp_path / "trained" / "models" / "finder.pt").read_bytes()
    with pytest.raises(UsageError, match="holds a training of a region finder"):
        train(planned, stage="finder", finder_epochs=2, **common)
    (tmp_path / "trained" / "training_finder" / "recall.csv").unlink()  # as if stopped before it was written
    again = train(planned, stage="finder", finder_epochs=2, resume=True, **common)
    assert again.history == first.history
    assert (tmp_path / "trained" / "models" / "finder.pt").read_bytes() == weights
    with pytest.raises(BundleError, match="trained with fold 0, not 1"):
        train(planned, stage="fine", fold=1, epochs=1, **common)
    other = {"dataset_dir": None, "datalist": other_folds(study, tmp_path / "trained")}
    with pytest.raises(BundleError, match="begun on other cases"):
        train(planned, stage="fine", epochs=1, **common | other)
    whole = train(planned, stage="fine", epochs=1, **common)
    assert whole.finder == first.finder
    assert "Region finder" in (whole.bundle / "docs" / "README.md").read_text()
    assert len(read_recalls(BundleFolder(whole.bundle))) == 1
    both = train(planned, epochs=1, finder_epochs=2, **common | {"out": tmp_path / "both"})
    assert (both.bundle / "models" / "finder.pt").is_file()
    assert (both.bundle / "models" / "model.pt").is_file()


@pytest.mark.slow
def test_stock_monai_trains_both_and_predicts_what_medimg3d_predicts(planned, study, tmp_path):
    bundle = made_ready(planned, tmp_path / "balls")
    small = SMALL | {
        "num_workers": 0,
        "train#trainer#max_epochs": 1,
        "dataset_dir": study,
        "bundle_root": bundle,
    }
    for name in ("train_finder", "train"):
        config = bundle / "configs" / f"{name}.json"
        monai_bundle("run", cwd=tmp_path, config_file=config, output_dir=tmp_path / name, **small)
    assert (tmp_path / "train_finder" / "models" / "finder.pt").is_file()
    checkpoint = tmp_path / "train" / "models" / "model.pt"
    images = images_on_all_grids(tmp_path / "images")
    for name, data in (("inference", images), ("evaluate", study)):
        monai_bundle(
            "run",
            cwd=tmp_path,
            config_file=bundle / "configs" / f"{name}.json",
            bundle_root=bundle,
            dataset_dir=data,
            checkpoint=checkpoint,
            output_dir=tmp_path / name,
        )
    assert "ball" in (tmp_path / "evaluate" / "val_mean_dice_raw.csv").read_text()
    predict(bundle, [images], tmp_path / "ours", checkpoint=checkpoint, overlays=False, reports=False)
    stock = label_maps(tmp_path / "inference")
    assert len(stock) == len(GRIDS)
    for name, one in label_maps(tmp_path / "ours").items():
        assert np.allclose(one.affine, stock[name].affine, atol=1e-4)
        assert np.array_equal(np.asarray(one.dataobj), np.asarray(stock[name].dataobj))


def test_an_ensemble_averages_the_finders_of_its_folds(planned, tmp_path):
    from types import SimpleNamespace

    from medimg3d.workflows.ensemble_export import export_ensemble

    folds = {
        number: BundleFolder(made_ready(planned, tmp_path / f"fold_{number}" / "balls")) for number in (0, 1)
    }
    part = SimpleNamespace(name="balls", first=folds[0], folds=(0, 1), bundle=folds.__getitem__)
    (tmp_path / "work").mkdir()
    bundle = BundleFolder(export_ensemble([part], [], {}, tmp_path / "both", work=tmp_path / "work"))
    model = load_inference(bundle, read_facts(bundle), fast=True)
    region = model.preprocessing.transforms[3].region
    assert [path.rsplit("/", 1)[1] for path in region.weights] == ["finder.pt", "finder_fold_1.pt"]
    image, _ = phantoms.small_ball_phantom(2)
    phantoms.write_nifti(tmp_path / "images" / "a.nii.gz", image, GRIDS["oblique"])
    result = predict(bundle.root, [tmp_path / "images"], tmp_path / "out", overlays=False, reports=False)
    assert result.rejected == {}
    assert len(result.settings["finder_sha256"]) == 2
