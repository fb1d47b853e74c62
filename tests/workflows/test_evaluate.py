import csv
import json
import shutil

import numpy as np
import pytest
from phantoms import affine, two_part_phantom, write_decathlon, write_nifti, write_nifti_of_unknown_size

from medimg3d.data.content_hash import content_sha256
from medimg3d.errors import DataError, UsageError
from medimg3d.workflows.evaluate import evaluate

NAMES = [f"phantom_{n:03d}" for n in range(4)]


@pytest.fixture
def study(tmp_path):
    """A Decathlon root with four cases, and perfect predictions of them."""
    root = write_decathlon(tmp_path / "study", num_cases=4)
    for name in NAMES:
        predict(tmp_path, name, two_part_phantom(NAMES.index(name))[1])
    return root


def predict(tmp_path, name, labels, matrix=None):
    return write_nifti(tmp_path / "predictions" / f"{name}_seg.nii.gz", labels, matrix)


def run(tmp_path, labels, *, num_worst=0, **settings):
    return evaluate(
        tmp_path / "predictions", labels, tmp_path / "out", num_worst=num_worst, workers=1, **settings
    )


def table(result):
    with result.files["cases"].open(newline="") as handle:
        return list(csv.DictReader(handle))


def without_rear(seed):
    label = two_part_phantom(seed)[1]
    return np.where(label == 2, 0, label).astype(np.uint8)


def write_record(folder, *paths, weights="w"):
    cases = [{"name": f"seen_{n}", "image_sha256": content_sha256(path)} for n, path in enumerate(paths)]
    record = {"format": 1, "cases": cases, "weights_sha256": weights}
    (folder / "models").mkdir(parents=True)
    (folder / "models" / "training_cases.json").write_text(json.dumps(record))
    return folder


def test_perfect_predictions_have_dice_1_and_distance_0(tmp_path, study):
    result = run(tmp_path, study)
    metrics = result.summary["metrics"]
    assert list(metrics["dice"]) == ["front", "rear", "mean of classes"]
    expected = {"mean": 1.0, "low": 1.0, "high": 1.0, "n": 4, "left_out": {}}
    assert metrics["dice"]["front"] == metrics["surface_dice"]["rear"] == expected
    assert metrics["hd95_mm"]["rear"]["mean"] == 0
    assert result.rejected == {}


def test_a_bar_moved_by_2_slices_of_1_mm_has_the_dice_and_distance_worked_out_by_hand(tmp_path, study):
    # Class 1 is 10 x 12 x 8 voxels; moved by 2 along I, 8 of 10 slices are shared: Dice 0.8, distance 2 mm.
    predict(tmp_path, NAMES[0], np.roll(two_part_phantom(0)[1], 2, axis=0))
    score = run(tmp_path, study).scores[NAMES[0]]["front"]
    assert score.dice == pytest.approx(0.8)
    assert score.hd95_mm == pytest.approx(2)
    assert score.truth_volume_ml == pytest.approx(0.96)
    assert score.volume_difference_ml == 0


def test_writes_table_summary_and_page(tmp_path, study):
    result = run(tmp_path, study, num_worst=1)
    rows = table(result)
    assert len(rows) == 8
    assert (rows[0]["case"], rows[0]["class"], rows[0]["dice"]) == (NAMES[0], "front", "1")
    assert json.loads(result.files["summary"].read_text()) == result.summary
    page = result.files["page"].read_text()
    assert "Research use only" in page
    assert page.count("data:image/png;base64,") == 6  # five metrics, one overlay
    assert not list((tmp_path / "out").glob(".*"))


def test_same_seed_gives_the_same_summary(tmp_path, study):
    predict(tmp_path, NAMES[1], np.roll(two_part_phantom(1)[1], 1, axis=0))
    predict(tmp_path, NAMES[2], np.roll(two_part_phantom(2)[1], 2, axis=0))
    first = run(tmp_path, study).summary
    assert run(tmp_path, study).summary == first
    assert first["metrics"]["dice"]["front"]["low"] < first["metrics"]["dice"]["front"]["mean"]


def test_a_missed_class_counts_as_dice_0_and_is_left_out_of_the_mean_distance_and_counted(tmp_path, study):
    predict(tmp_path, NAMES[0], without_rear(0))
    result = run(tmp_path, study, num_worst=1)
    metrics = result.summary["metrics"]
    assert metrics["dice"]["rear"]["mean"] == pytest.approx(0.75)
    assert metrics["hd95_mm"]["rear"]["n"] == 3
    assert metrics["hd95_mm"]["rear"]["left_out"] == {"infinite": 1}
    assert result.scores[NAMES[0]]["rear"].hd95_mm == float("inf")
    assert "inf" in result.files["cases"].read_text()
    assert result.summary["worst"][0]["case"] == NAMES[0]


def test_a_class_in_neither_map_is_left_out_and_counted(tmp_path, study):
    label = without_rear(0)
    write_nifti(study / "labelsTr" / f"{NAMES[0]}.nii.gz", label)
    predict(tmp_path, NAMES[0], label)
    metrics = run(tmp_path, study).summary["metrics"]
    for metric in ("dice", "hd95_mm", "volume_difference_ml"):
        assert metrics[metric]["rear"]["n"] == 3
        assert metrics[metric]["rear"]["left_out"] == {"class in neither": 1}


def test_bad_cases_are_rejected_with_their_reason_and_the_others_go_on(tmp_path, study):
    predict(tmp_path, NAMES[0], two_part_phantom(0)[1], affine(origin_mm=(1, 0, 0)))
    (tmp_path / "predictions" / f"{NAMES[1]}_seg.nii.gz").write_bytes(b"no image")
    (tmp_path / "predictions" / f"{NAMES[2]}_seg.nii.gz").unlink()
    result = run(tmp_path, study)
    assert list(result.scores) == [NAMES[3]]
    assert set(result.scores) | set(result.rejected) == set(NAMES)
    assert "place their corners 1 mm apart" in result.rejected[NAMES[0]]
    assert result.rejected[NAMES[1]].startswith("prediction ")
    assert result.rejected[NAMES[2]] == f"no prediction; expected {NAMES[2]}_seg.nii.gz"
    assert result.summary["metrics"]["dice"]["front"]["low"] is None


def test_a_label_that_no_class_has_is_rejected(tmp_path, study):
    predict(tmp_path, NAMES[0], two_part_phantom(0)[1] * 3)
    assert run(tmp_path, study).rejected[NAMES[0]] == "prediction holds label 3; expected 0 and 1, 2"


def test_without_a_voxel_size_mm_and_ml_are_blank_and_counted(tmp_path):
    label = two_part_phantom(0)[1]
    for folder, name in (("labels", "a.nii.gz"), ("predictions", "a_seg.nii.gz")):
        write_nifti_of_unknown_size(tmp_path / folder / name, label)
    result = run(tmp_path, tmp_path / "labels")
    row = table(result)[0]
    assert (row["dice"], row["hd95_mm"], row["surface_dice"], row["pred_volume_ml"]) == ("1", "", "", "")
    assert row["relative_volume_difference"] == "0"
    assert result.summary["metrics"]["hd95_mm"]["class 1"]["left_out"] == {"voxel size unknown": 1}


def test_a_voxel_size_that_the_datalist_calls_unknown_gives_no_mm_and_no_ml(tmp_path, study):
    content = json.loads((study / "dataset.json").read_text()) | {"voxel_size": "unknown"}
    (study / "dataset.json").write_text(json.dumps(content))
    result = run(tmp_path, study)
    assert {(row["dice"], row["hd95_mm"], row["pred_volume_ml"]) for row in table(result)} == {("1", "", "")}
    assert result.summary["metrics"]["surface_dice"]["front"]["left_out"] == {"voxel size unknown": 4}
    assert result.summary["settings"]["voxel_size"] == "unknown"


def test_a_folder_of_labels_needs_no_datalist_and_images_give_the_overlay(tmp_path, study):
    result = run(tmp_path, study / "labelsTr", images=study / "imagesTr", num_worst=1)
    assert list(result.summary["classes"].values()) == ["class 1", "class 2"]
    assert result.summary["not_drawn"] == {}
    assert len(list((tmp_path / "out" / "overlays").iterdir())) == 1


def test_a_worst_case_without_image_is_named(tmp_path, study):
    result = run(tmp_path, study / "labelsTr", num_worst=1)
    assert list(result.summary["not_drawn"].values()) == [
        "its image is not known; give the folder of the images"
    ]


def test_predictions_named_as_the_labels_are_found(tmp_path, study):
    shutil.copytree(study / "labelsTr", tmp_path / "same")
    assert len(evaluate(tmp_path / "same", study, tmp_path / "out", num_worst=0).scores) == 4


def test_class_names_can_come_from_the_bundle(tmp_path, study):
    configs = tmp_path / "bundle" / "configs"
    configs.mkdir(parents=True)
    channels = {"0": "background", "1": "head", "2": "tail"}
    metadata = {"version": "1.2", "network_data_format": {"outputs": {"pred": {"channel_def": channels}}}}
    (configs / "metadata.json").write_text(json.dumps(metadata))
    result = run(tmp_path, study / "labelsTr", bundle=tmp_path / "bundle")
    assert result.summary["classes"] == {"1": "head", "2": "tail"}
    assert result.summary["bundle"] == {"name": "bundle", "version": "1.2"}
    assert result.summary["seen_in_training"]["why_not"] == "the bundle has no models/training_cases.json"


def test_cases_of_one_patient_are_resampled_together(tmp_path, study):
    content = json.loads((study / "dataset.json").read_text())
    for n, case in enumerate(content["training"]):
        case["patient"] = f"p{n // 2}"
    (study / "dataset.json").write_text(json.dumps(content))
    assert run(tmp_path, study).summary["settings"]["resampled_by"] == "patient"


def test_warns_about_scored_cases_that_the_bundle_was_trained_on(tmp_path, study):
    files = [study / "labelsTr" / f"{NAMES[1]}.nii.gz", study / "imagesTr" / f"{NAMES[2]}.nii.gz"]
    result = run(tmp_path, study, bundle=write_record(tmp_path / "bundle", *files))
    assert result.warnings[0].startswith("2 of 4 scored cases were among those the weights were trained on")
    assert result.summary["seen_in_training"]["cases"] == {NAMES[1]: "seen_0", NAMES[2]: "seen_1"}
    assert f"{NAMES[1]}, {NAMES[2]}." in result.files["page"].read_text()
    assert {row["case"] for row in table(result) if row["seen_in_training"] == "yes"} == set(NAMES[1:3])


def test_warns_from_the_record_beside_the_predictions_by_the_hash_of_the_input(tmp_path, study):
    record = {
        "bundle": {"name": "b", "version": "1", "weights_sha256": "w"},
        "training_cases": [{"name": "old", "image_sha256": "aa", "label_sha256": "bb"}],
        "cases": [{"case": NAMES[3], "input": "x.nii.gz", "input_sha256": "aa", "status": "done"}],
    }
    (tmp_path / "predictions" / "run.json").write_text(json.dumps(record))
    result = run(tmp_path, study / "labelsTr")
    assert result.summary["seen_in_training"]["cases"] == {NAMES[3]: "old"}
    assert result.summary["bundle"]["name"] == "b"


def test_no_warning_where_no_case_was_trained_on(tmp_path, study):
    other = write_nifti(tmp_path / "other.nii.gz", two_part_phantom(99)[1])
    result = run(tmp_path, study, bundle=write_record(tmp_path / "bundle", other))
    assert result.warnings == []
    assert result.summary["seen_in_training"] == {"checked": True, "why_not": "", "cases": {}}


def test_says_when_the_record_is_that_of_other_weights(tmp_path, study):
    (tmp_path / "predictions" / "run.json").write_text(json.dumps({"bundle": {"weights_sha256": "other"}}))
    other = write_nifti(tmp_path / "other.nii.gz", two_part_phantom(99)[1])
    result = run(tmp_path, study, bundle=write_record(tmp_path / "bundle", other))
    assert "made by other weights" in result.warnings[0]


def test_empty_and_missing_folders_are_bad_usage(tmp_path, study):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="has no NIfTI file; expected predictions named"):
        evaluate(tmp_path / "empty", study, tmp_path / "out")
    with pytest.raises(UsageError, match="has no label map"):
        run(tmp_path, tmp_path / "empty")
    with pytest.raises(UsageError, match="is no folder and no datalist"):
        run(tmp_path, tmp_path / "absent")
    with pytest.raises(UsageError, match="is no folder; give the folder that holds the predicted"):
        evaluate(tmp_path / "absent", study, tmp_path / "out")
    with pytest.raises(UsageError, match="tolerance_mm must be at least 0, got -1"):
        run(tmp_path, study, tolerance_mm=-1)


def test_predictions_of_another_study_are_bad_usage(tmp_path, study):
    write_nifti(tmp_path / "others" / "liver_seg.nii.gz", two_part_phantom(0)[1])
    with pytest.raises(UsageError, match=r"expected names like phantom_000_seg.nii.gz, found liver_seg"):
        evaluate(tmp_path / "others", study, tmp_path / "out")


def test_no_case_that_can_be_scored_is_an_error(tmp_path, study):
    for name in NAMES:
        (tmp_path / "predictions" / f"{name}_seg.nii.gz").write_bytes(b"no image")
    with pytest.raises(DataError, match="None of 4 cases could be scored; the first: prediction"):
        run(tmp_path, study)


def test_progress_counts_to_the_number_of_cases(tmp_path, study):
    calls = []
    run(tmp_path, study, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]


@pytest.mark.realdata
def test_real_references_scored_against_themselves_are_perfect(tmp_path, hippocampus):
    labels = sorted((hippocampus / "labelsTr").glob("*.nii.gz"))[:3]
    (tmp_path / "predictions").mkdir()
    for path in labels:
        shutil.copy(path, tmp_path / "predictions" / path.name)
    result = run(tmp_path, hippocampus, num_worst=1)
    assert result.summary["num_scored"] == 3
    assert result.summary["metrics"]["dice"]["Anterior"]["mean"] == 1
    assert result.summary["metrics"]["hd95_mm"]["Posterior"]["mean"] == 0
    assert result.summary["not_drawn"] == {}
