"""Evaluation of regions that overlap, in both forms of prediction, and of label maps with unlabelled voxels."""

import json

import numpy as np
import pytest
from phantoms import two_part_phantom, write_decathlon, write_nifti

from medimg3d.data.label_regions import LabelRegions
from medimg3d.errors import UsageError
from medimg3d.workflows.evaluate import evaluate

NESTED = {"whole": [1, 2], "rear": [2]}
CROSSING = {"left": [1, 2], "right": [2, 3]}


def study_of(tmp_path, truth, **extra):
    """A Decathlon root with one case of the given label map."""
    root = write_decathlon(tmp_path / "study", num_cases=1)
    write_nifti(root / "labelsTr" / "phantom_000.nii.gz", truth)
    names = {"0": "background"} | {str(v): f"part {v}" for v in np.unique(truth) if v not in (0, 255)}
    content = json.loads((root / "dataset.json").read_text()) | {"labels": names} | extra
    (root / "dataset.json").write_text(json.dumps(content))
    return root


def bundle_of(tmp_path, regions):
    folder = tmp_path / "bundle"
    (folder / "configs").mkdir(parents=True)
    (folder / "configs" / "metadata.json").write_text(json.dumps({"version": "1", "regions": regions}))
    return folder


def predicted(tmp_path, labels, folder=""):
    return write_nifti(tmp_path / "predictions" / folder / "phantom_000_seg.nii.gz", labels)


def run(tmp_path, root, **options):
    return evaluate(tmp_path / "predictions", root, tmp_path / "out", num_worst=1, workers=1, **options)


def three_parts():
    labels = np.zeros((8, 8, 8), dtype=np.uint8)
    labels[1:7, 1:7, 1:3], labels[1:7, 1:7, 3:5], labels[1:7, 1:7, 5:7] = 1, 2, 3
    return labels


def test_numbered_predictions_of_a_bundle_of_nested_regions_lose_nothing(tmp_path):
    truth = two_part_phantom(0)[1]
    predicted(tmp_path, truth)  # whole = 1 and 2, rear = 2: the numbers happen to be the values
    result = run(tmp_path, study_of(tmp_path, truth), bundle=bundle_of(tmp_path, NESTED))
    assert result.summary["classes"] == {"1": "whole", "2": "rear"}
    assert [result.scores["phantom_000"][name].dice for name in NESTED] == [1, 1]
    assert result.summary["regions"] == NESTED
    assert result.summary["settings"]["regions"] == "whole = 1+2, rear = 2"
    assert result.warnings == []
    assert result.summary["not_drawn"] == {}
    assert "whole" in result.files["cases"].read_text()


def test_numbers_and_values_are_not_taken_for_each_other(tmp_path):
    # front = 1 is the core here: the bundle writes 2 where the labels say 1.
    truth = two_part_phantom(0)[1]
    regions = {"whole": [1, 2], "front": [1]}
    predicted(tmp_path, LabelRegions.of(regions).as_map(truth))
    root = study_of(tmp_path, truth)
    scores = run(tmp_path, root, bundle=bundle_of(tmp_path, regions)).scores["phantom_000"]
    assert [score.dice for score in scores.values()] == [1, 1]
    taken_as_values = run(tmp_path, root, regions=LabelRegions.of(regions), predicted="labels")
    assert taken_as_values.scores["phantom_000"]["whole"].dice == 1
    assert taken_as_values.scores["phantom_000"]["front"].dice == 0


def test_original_values_are_scored_as_unions_by_the_datalists_regions_and_the_doubt_is_said(tmp_path):
    truth = two_part_phantom(0)[1]
    predicted(tmp_path, np.where(truth == 2, 1, truth))  # all front: the whole is right, the rear is missed
    result = run(tmp_path, study_of(tmp_path, truth, regions=NESTED))
    scores = result.scores["phantom_000"]
    assert (scores["whole"].dice, scores["rear"].dice) == (1, 0)
    assert scores["rear"].found_in == "reference only"
    assert "Nothing says how the predictions name regions" in result.warnings[0]


def test_run_json_beside_the_predictions_tells_that_they_number_regions(tmp_path):
    truth = two_part_phantom(0)[1]
    regions = {"whole": [1, 2], "front": [1]}
    predicted(tmp_path, LabelRegions.of(regions).as_map(truth))
    (tmp_path / "predictions" / "run.json").write_text(json.dumps({"bundle": {"regions": regions}}))
    result = run(tmp_path, study_of(tmp_path, truth))
    assert [score.dice for score in result.scores["phantom_000"].values()] == [1, 1]


def test_regions_that_cross_lose_their_common_part_which_is_said_and_masks_keep_it(tmp_path):
    truth = three_parts()
    regions = LabelRegions.of(CROSSING)
    predicted(tmp_path, regions.as_map(truth))
    root, bundle = study_of(tmp_path, truth), bundle_of(tmp_path, CROSSING)
    result = run(tmp_path, root, bundle=bundle)
    assert result.scores["phantom_000"]["left"].dice == pytest.approx(2 * 1 / (1 + 2))
    assert result.scores["phantom_000"]["right"].dice == 1
    assert "lost is left where it overlaps right" in result.warnings[-1]
    predicted(tmp_path, np.isin(truth, [1, 2]).astype(np.uint8), "regions/1_left")
    predicted(tmp_path, np.isin(truth, [2, 3]).astype(np.uint8), "regions/2_right")
    result = run(tmp_path, root, bundle=bundle)
    assert [score.dice for score in result.scores["phantom_000"].values()] == [1, 1]
    assert result.warnings == []


def test_other_regions_than_the_bundles_cannot_be_had_from_its_numbers(tmp_path):
    truth = two_part_phantom(0)[1]
    predicted(tmp_path, truth)
    other = LabelRegions.of({"front": [1]})
    with pytest.raises(UsageError, match="Leave --regions away"):
        run(tmp_path, study_of(tmp_path, truth), bundle=bundle_of(tmp_path, NESTED), regions=other)
    with pytest.raises(UsageError, match="give --regions or --bundle"):
        run(tmp_path, study_of(tmp_path, truth), predicted="regions")


def test_a_number_that_no_region_has_is_rejected(tmp_path):
    truth = three_parts()
    predicted(tmp_path, truth)
    predicted(tmp_path, truth).replace(tmp_path / "predictions" / "other_seg.nii.gz")
    predicted(tmp_path, np.minimum(truth, 2))
    root = study_of(tmp_path, truth)
    content = json.loads((root / "dataset.json").read_text())
    content["training"].append(content["training"][0] | {"id": "other"})
    (root / "dataset.json").write_text(json.dumps(content))
    result = run(tmp_path, root, bundle=bundle_of(tmp_path, CROSSING))
    assert result.rejected == {"other": "prediction holds label 3; expected 0 and 1, 2"}


@pytest.mark.parametrize(
    ("extra", "options"),
    [
        ({"ignore_label": 255}, {}),
        ({"labels": {"0": "background", "1": "front", "2": "rear", "255": "ignore"}}, {}),
        ({}, {"ignore_label": 255}),
    ],
    ids=["key", "name", "flag"],
)
def test_unlabelled_voxels_count_in_no_score_and_the_value_is_no_class(tmp_path, extra, options):
    truth = two_part_phantom(0)[1]
    predicted(tmp_path, truth)
    truth = truth.copy()
    truth[:, :, : truth.shape[2] // 2] = 255
    result = run(tmp_path, study_of(tmp_path, truth, **extra), **options)
    assert list(result.summary["classes"]) == ["1", "2"]
    for score in result.scores["phantom_000"].values():
        assert (score.dice, score.hd95_mm, score.volume_difference_ml) == (1, 0, 0)
    assert result.summary["settings"]["ignore_label"] == 255


def test_a_bundles_own_evaluation_tells_the_ignored_value(tmp_path):
    truth = two_part_phantom(0)[1]
    predicted(tmp_path, truth)
    truth = truth.copy()
    truth[:, :, ::3] = 255
    bundle = bundle_of(tmp_path, {})
    steps = [{"_target_": "medimg3d_x.ignored_voxels.MaskIgnoredd", "ignore_label": 255}]
    (bundle / "configs" / "evaluate.json").write_text(json.dumps({"postprocessing": {"transforms": steps}}))
    result = run(tmp_path, study_of(tmp_path, truth), bundle=bundle)
    assert [score.dice for score in result.scores["phantom_000"].values()] == [1, 1]
    assert result.summary["metrics"]["hd95_mm"]["part 1"]["left_out"] in (
        {},
        {"no surface where labelled": 1},
    )
