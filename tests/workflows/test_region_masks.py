"""Bundles of overlapping regions from prediction to figures: numbers, masks, cross-validation."""

import json
import shutil
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest
from phantoms import write_region_bundle, write_region_study, write_threshold_bundle

from medimg3d.errors import UsageError
from medimg3d.workflows import cross_validate as module
from medimg3d.workflows.cross_validate import cross_validate
from medimg3d.workflows.ensemble import ensemble
from medimg3d.workflows.evaluate import evaluate
from medimg3d.workflows.predict import predict

NESTED = {"whole": [1, 2], "first": [1]}
CROSSING = {"left": [1, 2], "right": [1, 3]}


def plain(bundle, inputs, out, **options):
    return predict(bundle, inputs, out, overlays=False, reports=False, **options)


def voxels(path):
    return np.asanyarray(nibabel.load(path).dataobj)


def test_predictions_of_nested_regions_are_scored_without_being_told_that_they_are_numbers(tmp_path):
    study = write_region_study(tmp_path / "study", NESTED)
    plain(write_region_bundle(tmp_path / "bundle", NESTED), [study], tmp_path / "out")
    np.testing.assert_array_equal(np.unique(voxels(tmp_path / "out" / "p0_seg.nii.gz")), [0, 1, 2])
    assert json.loads((tmp_path / "out" / "run.json").read_text())["bundle"]["regions"] == NESTED
    result = evaluate(tmp_path / "out", study, tmp_path / "scores", num_worst=0, workers=1)
    assert [s.dice for case in result.scores.values() for s in case.values()] == [1, 1, 1, 1]
    assert result.warnings == []


def test_masks_keep_what_a_label_map_of_crossing_regions_loses(tmp_path):
    study = write_region_study(tmp_path / "study", CROSSING)
    bundle = write_region_bundle(tmp_path / "bundle", CROSSING)
    plain(bundle, [study], tmp_path / "lossy")
    plain(bundle, [study], tmp_path / "whole", region_masks=True)
    label = voxels(tmp_path / "study" / "p1" / "label.nii.gz")
    for number, (name, values) in enumerate((("left", (1, 2)), ("right", (1,))), start=1):
        mask = voxels(tmp_path / "whole" / "regions" / f"{number}_{name}" / "p1_seg.nii.gz")
        np.testing.assert_array_equal(mask, np.isin(label, values))
    same = [voxels(tmp_path / folder / "p1_seg.nii.gz") for folder in ("lossy", "whole")]
    np.testing.assert_array_equal(*same)
    lossy = evaluate(tmp_path / "lossy", study, tmp_path / "scores", num_worst=0, workers=1)
    assert lossy.scores["p1"]["left"].dice < 1
    assert "--region-masks" in lossy.warnings[-1]
    whole = evaluate(tmp_path / "whole", study, tmp_path / "scores", num_worst=0, workers=1)
    assert [score.dice for score in whole.scores["p1"].values()] == [1, 1]


def test_masks_need_regions_and_go_with_no_backend(tmp_path):
    study = write_region_study(tmp_path / "study", NESTED)
    bundle = write_region_bundle(tmp_path / "bundle", NESTED)
    other = write_threshold_bundle(tmp_path / "other")
    with pytest.raises(UsageError, match="no overlapping regions"):
        plain(other, [tmp_path / "study" / "p0" / "ct.nii.gz"], tmp_path / "out", region_masks=True)
    with pytest.raises(UsageError, match="leave --backend"):
        plain(bundle, [study], tmp_path / "out", region_masks=True, backend="openvino-f32")


def cross_validated(tmp_path, monkeypatch, regions):
    """Folds of a bundle that nothing trains, on cases of a file a channel."""
    recipe = write_region_bundle(tmp_path / "recipe", regions)
    settings = {"num_folds": 2, "fold_seed": 0, "train": {"trainer": {"max_epochs": 1}}}
    (recipe / "configs" / "train.json").write_text(json.dumps(settings))

    def train(bundle, *, out, **_):
        shutil.copytree(bundle, out, dirs_exist_ok=True)
        (out / "docs").mkdir()
        (out / "docs" / "README.md").write_text("trained")
        return SimpleNamespace(start=[])

    monkeypatch.setattr(module, "train", train)
    study = write_region_study(tmp_path / "study", regions)
    return recipe, study


@pytest.mark.parametrize("regions", [NESTED, CROSSING], ids=["nested", "crossing"])
def test_cross_validation_scores_regions_of_cases_with_a_file_a_channel(tmp_path, monkeypatch, regions):
    recipe, study = cross_validated(tmp_path, monkeypatch, regions)
    result = cross_validate(recipe, out=tmp_path / "cv", folds=[0, 1], datalist=study, check=None)
    for summary in (*result.folds.values(), result.pooled):
        assert list(summary["classes"].values()) == list(regions)
        assert [summary["metrics"]["dice"][name]["mean"] for name in regions] == [1, 1]
        assert summary["warnings"] == []
    assert result.pooled["num_scored"] == 2
    if regions == CROSSING:
        with pytest.raises(UsageError, match="overlap without being nested"):
            ensemble([tmp_path / "cv"], tmp_path / "ensemble")
        return
    made = ensemble([tmp_path / "cv"], tmp_path / "ensemble")
    assert made.summary["choice"]["rules"] == []
    assert made.summary["nested"]["mean_dice"]["mean"] == 1
    assert list(made.summary["nested"]["metrics"]["dice"])[:2] == list(regions)
    plain(made.bundle, [study], tmp_path / "out")
    expected = tmp_path / "cv" / "cross_validation" / "predictions"
    for name in ("p0_seg.nii.gz", "p1_seg.nii.gz"):
        np.testing.assert_array_equal(voxels(tmp_path / "out" / name), voxels(expected / name))


def test_probabilities_of_regions_are_refused_before_any_training(tmp_path, monkeypatch):
    recipe, study = cross_validated(tmp_path, monkeypatch, NESTED)
    with pytest.raises(UsageError, match="leave it away"):
        cross_validate(recipe, out=tmp_path / "cv", folds=[0, 1], datalist=study, softmax=True)
    assert not (tmp_path / "cv").exists()


def test_the_volume_of_a_region_holds_the_regions_nested_in_it_and_a_loss_is_noted(tmp_path):
    study = write_region_study(tmp_path / "study", NESTED, num_cases=1)
    nested = plain(write_region_bundle(tmp_path / "nested", NESTED), [study], tmp_path / "out")
    # 4 x 5 x 3 voxels of the first, 4 x 5 x 2 of the second label
    assert nested.cases[0].volumes.voxels == {"whole": 100, "first": 60}
    assert nested.cases[0].note == ""
    crossing = plain(write_region_bundle(tmp_path / "crossing", CROSSING), [study], tmp_path / "other")
    assert "lose left where it overlaps right" in crossing.cases[0].note


def test_what_is_for_classes_that_exclude_each_other_says_so(tmp_path):
    study = write_region_study(tmp_path / "study", NESTED, num_cases=1)
    bundle = write_region_bundle(tmp_path / "bundle", NESTED)
    with pytest.raises(UsageError, match="--uncertainty is of classes that exclude each other"):
        plain(bundle, [study], tmp_path / "out", uncertainty=True)
