"""The side-by-side with nnU-Net, but for nnU-Net itself: conversion, pairing, lengths, steps and the table."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
from phantoms import affine, write_nifti

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path[:0] = [str(BENCHMARKS), str(BENCHMARKS / "nnunet_trainer")]

import against_nnunet  # noqa: E402
import nnunet_data  # noqa: E402
import nnunet_scores  # noqa: E402
import pool_against_nnunet  # noqa: E402
import process_tree  # noqa: E402
import training_length  # noqa: E402

from medimg3d.data.datalist import Case, Datalist  # noqa: E402
from medimg3d.data.datalist_file import load_datalist  # noqa: E402
from medimg3d.data.folds import select_fold  # noqa: E402
from medimg3d.errors import DataError, UsageError  # noqa: E402
from medimg3d.metrics.case_scores import ClassScore  # noqa: E402

LABELS = {0: "background", 1: "front", 2: "rear"}


def _datalist(folder: Path, number: int = 4, *, labels=LABELS, **keys) -> Datalist:
    """Cases of one channel; the label maps hold every value of ``labels``."""
    values = list(labels)
    cases = []
    for index in range(number):
        array = np.arange(60, dtype=np.float32).reshape(3, 4, 5) + index
        label = np.resize(np.array(values, np.uint8), (3, 4, 5))
        cases.append(
            Case(
                image=write_nifti(folder / f"scan{index}.nii.gz", array),
                label=write_nifti(folder / f"truth{index}.nii.gz", label),
                id=f"case{index}",
                **{key: value[index] for key, value in keys.items()},
            )
        )
    return Datalist(labels=labels, training=tuple(cases), split={"num_folds": 2})


def _voxels(path: Path) -> np.ndarray:
    return np.asarray(nibabel.load(path).dataobj)


def _score(dice: float, found_in: str = "both") -> ClassScore:
    return ClassScore(found_in, dice, None, None, None, 0.0, None, None)


# --- folds


def test_cases_without_folds_get_those_of_a_training(tmp_path):
    datalist = nnunet_data.with_folds(_datalist(tmp_path, 6))
    plain = [{"image": f"case{index}.nii.gz"} for index in range(6)]
    for fold in (0, 1):
        held_out = [case.name for case in datalist.training if case.fold == fold]
        chosen = select_fold(plain, fold=fold, part="validation", num_folds=2, seed=0)
        assert held_out == [Path(case["image"]).name.removesuffix(".nii.gz") for case in chosen]


def test_a_patient_is_in_one_fold(tmp_path):
    datalist = nnunet_data.with_folds(_datalist(tmp_path, patient=["a", "b", "a", "b"]))
    folds = {case.name: case.fold for case in datalist.training}
    assert folds["case0"] == folds["case2"] != folds["case1"] == folds["case3"]


def test_splits_name_every_case_once_a_fold(tmp_path):
    datalist = nnunet_data.with_folds(_datalist(tmp_path, 3, fold=[0, 1, 0]))
    assert nnunet_data.splits(datalist) == [
        {"train": ["case1"], "val": ["case0", "case2"]},
        {"train": ["case0", "case2"], "val": ["case1"]},
    ]


def test_a_third_of_fewer_cases_is_held_out(tmp_path):
    datalist = nnunet_data.with_folds(_datalist(tmp_path, 8, fold=[0, 0, 0, 0, 1, 1, 1, 1]))
    chosen = nnunet_data.fewer_cases(datalist, 0, 6)
    assert [case.name for case in chosen.training] == ["case0", "case1", "case4", "case5", "case6", "case7"]


def test_one_case_is_too_few(tmp_path):
    with pytest.raises(UsageError, match="at least 2"):
        nnunet_data.fewer_cases(_datalist(tmp_path), 0, 1)


def test_regions_are_refused(tmp_path):
    from dataclasses import replace

    datalist = replace(_datalist(tmp_path), extra={"regions": {"whole": [1, 2]}})
    with pytest.raises(DataError, match="regions"):
        nnunet_data.with_folds(datalist)


# --- the raw folder


def test_both_forms_hold_the_same_cases_and_voxels(tmp_path):
    datalist = nnunet_data.with_folds(_datalist(tmp_path / "data", 3, fold=[0, 1, 1]))
    found = nnunet_data.write_both(datalist, 0, tmp_path / "work", channels=["MRI"])
    assert found == {"training_cases": 2, "held_out_cases": 1, "half_precision_gb": 3 * 60 * 2 / 1e9}
    work, raw = tmp_path / "work", tmp_path / "work" / "nnunet_raw" / nnunet_data.DATASET
    names = sorted(str(path.relative_to(work)) for path in work.rglob("*.nii.gz"))
    root = f"nnunet_raw/{nnunet_data.DATASET}"
    assert names == [
        "images/medimg3d/case0.nii.gz",
        "images/nnunet/case0_0000.nii.gz",
        *(f"{root}/imagesTr/case{index}_0000.nii.gz" for index in range(3)),
        *(f"{root}/labelsTr/case{index}.nii.gz" for index in range(3)),
    ]
    assert json.loads((raw / "dataset.json").read_text()) == {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, "front": 1, "rear": 2},
        "numTraining": 3,
        "file_ending": ".nii.gz",
    }
    assert [case.name for case in load_datalist(work / "held_out.json").training] == ["case0"]
    assert [case.fold for case in load_datalist(work / "datalist.json").training] == [0, 1, 1]


def test_a_second_conversion_leaves_nothing_of_the_first(tmp_path):
    datalist = nnunet_data.with_folds(_datalist(tmp_path / "data", 3, fold=[0, 1, 1]))
    nnunet_data.write_both(datalist, 0, tmp_path / "work", channels=["MRI"])
    nnunet_data.write_both(datalist, 1, tmp_path / "work", channels=["MRI"])
    held_out = sorted(path.name for path in (tmp_path / "work" / "images" / "medimg3d").iterdir())
    assert held_out == ["case1.nii.gz", "case2.nii.gz"]


def test_a_fold_without_cases_is_refused(tmp_path):
    datalist = nnunet_data.with_folds(_datalist(tmp_path / "data", 3, fold=[0, 0, 0]))
    with pytest.raises(UsageError, match="holds out 0 of 3"):
        nnunet_data.write_both(datalist, 1, tmp_path / "work", channels=["MRI"])


def test_label_values_with_gaps_become_consecutive_and_come_back(tmp_path):
    datalist = _datalist(tmp_path, 1, labels={0: "background", 2: "front", 7: "rear"})
    case = datalist.training[0]
    numbers = nnunet_data.consecutive_labels(datalist.labels)
    nnunet_data.write_label(case, tmp_path / "out", numbers)
    written = _voxels(tmp_path / "out" / "case0.nii.gz")
    assert sorted(np.unique(written)) == [0, 1, 2]
    nnunet_data.restore_labels(tmp_path / "out", datalist.labels)
    assert np.array_equal(_voxels(tmp_path / "out" / "case0.nii.gz"), _voxels(case.label))


def test_the_original_label_map_stays_as_it_is(tmp_path):
    datalist = _datalist(tmp_path, 1, labels={0: "background", 2: "front", 7: "rear"})
    before = datalist.training[0].label.read_bytes()
    nnunet_data.write_label(datalist.training[0], tmp_path / "out", {0: 0, 2: 1, 7: 2})
    nnunet_data.restore_labels(tmp_path / "out", datalist.labels)
    assert datalist.training[0].label.read_bytes() == before


def test_a_label_that_nobody_names_is_refused():
    with pytest.raises(DataError, match="holds 3"):
        nnunet_data.renumbered(np.array([0, 3]), {0: 0, 1: 1})


def test_two_files_are_two_channels_and_one_image_of_four_axes(tmp_path):
    files = tuple(
        write_nifti(tmp_path / f"{name}.nii.gz", np.full((3, 4, 5), value, np.float32), affine((2, 1, 1)))
        for name, value in (("ct", 1), ("pet", 2))
    )
    case = Case(images=dict(zip(("ct", "pet"), files, strict=True)), id="a")
    assert nnunet_data.write_channels(case, tmp_path / "apart", num_channels=2) == 2 * 2 * 60
    nnunet_data.write_together(case, tmp_path / "together")
    apart = [_voxels(tmp_path / "apart" / f"a_000{number}.nii.gz") for number in (0, 1)]
    together = nibabel.load(tmp_path / "together" / "a.nii.gz")
    assert [array.flat[0] for array in apart] == [1, 2]
    assert np.array_equal(np.asarray(together.dataobj), np.stack(apart, axis=-1))
    assert np.allclose(together.affine, affine((2, 1, 1)))


def test_an_image_of_four_axes_is_taken_apart(tmp_path):
    array = np.stack([np.zeros((3, 4, 5)), np.ones((3, 4, 5))], axis=-1).astype(np.float32)
    case = Case(image=write_nifti(tmp_path / "a.nii.gz", array))
    nnunet_data.write_channels(case, tmp_path / "apart", num_channels=2)
    assert [_voxels(tmp_path / "apart" / f"a_000{number}.nii.gz").max() for number in (0, 1)] == [0, 1]


def test_another_number_of_channels_is_refused(tmp_path):
    case = _datalist(tmp_path, 1).training[0]
    with pytest.raises(DataError, match="has 1 channels"):
        nnunet_data.write_channels(case, tmp_path / "out", num_channels=2)


@pytest.mark.parametrize(
    ("modality", "given", "expected"),
    [
        ({"0": "ct", "1": "PET"}, None, ["CT", "PET"]),
        ({"0": "CT venous"}, None, ["CT"]),
        ({"0": "MRI"}, "T1,T2", ["T1", "T2"]),
        ({"0": "ctest"}, None, ["ctest"]),
        ({}, None, ["image"]),
    ],
)
def test_a_ct_is_told_as_such(tmp_path, modality, given, expected):
    from dataclasses import replace

    datalist = replace(_datalist(tmp_path, 1), modality=modality)
    assert nnunet_data.channel_names(datalist, given) == expected


# --- pairing


def test_the_difference_is_ours_minus_theirs_over_the_structures_of_a_case():
    theirs = {"a": {"front": _score(0.8), "rear": _score(0.6)}, "b": {"front": _score(0.5)}}
    ours = {"a": {"front": _score(0.9), "rear": _score(0.7)}, "b": {"front": _score(0.6)}}
    found = nnunet_scores.compare(nnunet_scores.pair_up(theirs, ours, {}))
    assert found["dice"] == pytest.approx([0.6, 0.7])
    assert found["dice_by_class"]["front"] == pytest.approx([0.65, 0.75])
    assert found["difference"] == pytest.approx(0.1)
    assert found["cases"] == 2
    assert found["patients"] is None


def test_a_structure_that_the_truth_lacks_is_counted_not_paired():
    theirs = {"a": {"front": _score(0.8), "rear": _score(0.0, "prediction only")}}
    ours = {"a": {"front": _score(0.8), "rear": _score(math.nan, "neither")}}
    (pair,) = nnunet_scores.pair_up(theirs, ours, {})
    assert dict(pair.dice) == {"front": (0.8, 0.8)}
    assert [nnunet_scores.false_finds(side) for side in (theirs, ours)] == [1, 0]


def test_a_missed_structure_counts_as_0():
    missed = {"a": {"front": _score(0.0, "reference only")}}
    (pair,) = nnunet_scores.pair_up(missed, {"a": {"front": _score(0.8)}}, {})
    assert pair.means == (0.0, 0.8)


def test_a_case_without_any_structure_is_left_out():
    empty = {"a": {"front": _score(math.nan, "neither")}}
    assert nnunet_scores.pair_up(empty, empty, {}) == []


def test_a_case_of_one_side_only_is_refused():
    with pytest.raises(DataError, match="first: b"):
        nnunet_scores.pair_up({"a": {}}, {"a": {}, "b": {}}, {})


def test_the_patients_are_what_is_resampled():
    differences = [0.0, 0.02, 0.04, 0.06] * 4
    scores = {f"{n:02d}": {"front": _score(0.5 + d)} for n, d in enumerate(differences)}
    base = {case: {"front": _score(0.5)} for case in scores}
    patients = {case: str(int(case) % 4) for case in scores}  # all cases of a patient alike
    by_case = nnunet_scores.compare(nnunet_scores.pair_up(base, scores, {}))
    by_patient = nnunet_scores.compare(nnunet_scores.pair_up(base, scores, patients))
    width = [one["interval"][1] - one["interval"][0] for one in (by_case, by_patient)]
    assert by_patient["patients"] == 4
    assert width[1] > width[0]


@pytest.mark.parametrize(("gain", "expected"), [(0.0, True), (-0.004, True), (-0.006, False)])
def test_not_lower_means_within_half_a_point(gain, expected):
    ours = {name: {"front": _score(0.8 + gain)} for name in "abcd"}
    theirs = {name: {"front": _score(0.8)} for name in "abcd"}
    assert nnunet_scores.compare(nnunet_scores.pair_up(theirs, ours, {}))["not_lower"] is expected


# --- lengths


@pytest.mark.parametrize(
    ("steps", "epochs", "iterations", "validation"),
    [(1, 1, 1, 1), (49, 49, 1, 1), (4000, 50, 80, 16), (12500, 50, 250, 50), (250_000, 1000, 250, 50)],
)
def test_steps_become_at_least_50_epochs_of_at_most_250(steps, epochs, iterations, validation):
    length = training_length.length_of_steps(steps)
    assert (length.epochs, length.iterations, length.validation_iterations) == (
        epochs,
        iterations,
        validation,
    )
    assert length.steps == steps


@pytest.mark.parametrize("steps", [51, 99, 4049, 12_749, 99_999])
def test_at_most_2_percent_of_the_steps_are_lost(steps):
    assert 0.98 * steps <= training_length.length_of_steps(steps).steps <= steps


def test_time_is_filled_with_steps_validation_and_3_percent_of_overhead():
    length = training_length.length_of_time(1030.0, step_s=0.9, validation_step_s=0.5)  # 1.03 s a step
    assert length.steps == 1000


def test_no_time_left_is_one_step():
    assert training_length.length_of_time(-5.0, step_s=1.0, validation_step_s=1.0).steps == 1


# --- processes


def test_a_command_is_timed_and_its_memory_seen(tmp_path):
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'x = bytes(50_000_000)'])"
    done = process_tree.run_watched([sys.executable, "-c", code], tmp_path / "log", every_s=0.01)
    assert done.seconds > 0
    assert not done.was_interrupted
    assert (done.peak_memory_gb > 0) == (process_tree.PROC / "self" / "smaps_rollup").is_file()


def test_a_failing_command_names_its_log(tmp_path):
    with pytest.raises(SystemExit, match="exit code 3"):
        process_tree.run_watched([sys.executable, "-c", "print('why'); exit(3)"], tmp_path / "log")
    assert (tmp_path / "log").read_text() == "why\n"


def test_the_time_of_an_interrupted_run_is_added(tmp_path):
    note = tmp_path / "note"
    note.write_text('{"seconds": 100.0, "peak_bytes": 5000000000000}')
    done = process_tree.run_watched([sys.executable, "-c", ""], tmp_path / "log", note=note)
    assert done.was_interrupted
    assert done.seconds > 100
    assert done.peak_memory_gb == 5000
    assert not note.exists()


# --- steps


def _arguments(work: Path, *more: str):
    data = ["--datalist", str(work / "list.json"), "--work", str(work), "--nnunet-python", "python"]
    return against_nnunet.read_arguments([*data, *more])


def test_steps_of_nnunet_come_once_a_match(tmp_path):
    names = [name for _, name, _ in against_nnunet.wanted_steps(_arguments(tmp_path))]
    assert names == [
        *("convert", "preprocess", "plan", "train", "train-nnunet-time", "train-nnunet-steps", "predict"),
        *("predict-nnunet-time", "predict-nnunet-steps", "score-time", "score-steps"),
    ]


def test_where_medimg3d_takes_the_steps_of_nnunet_it_is_trained_again_and_nnunet_is_not(tmp_path):
    given = _arguments(
        tmp_path, "--match", "time,their-steps", "--steps", "train,train-nnunet,train-again,predict,score"
    )
    names = [name for _, name, _ in against_nnunet.wanted_steps(given)]
    assert names == [
        *("train", "train-nnunet-time", "train-their-steps", "predict", "predict-their-steps"),
        *("score-time", "score-their-steps"),
    ]


@pytest.fixture
def trained_fold(tmp_path):
    """What cross-validate leaves of fold 1, as far as the comparison reads it."""
    run = tmp_path / "cv" / "fold_1"
    recipe = {
        "window_size": [8],
        "batch_size": 2,
        "iterations_per_epoch": 10,
        "network_def": {"_target_": "UNet"},
    }
    contents = {
        "configs/train.json": recipe,
        "training/settings.json": {"fold": 1, "seed": 0, "epochs": 7, "precision": "bfloat16"},
        "training/times.json": {"training_s": 60.5, "resumed": False},
        "training/cache/x": {},
        "docs/README.md": {},
        "held_out/summary.json": {},
    }
    for name, content in contents.items():
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text(json.dumps(content))
    return run


def test_a_trained_fold_of_a_cross_validation_counts_with_its_time_and_steps(tmp_path, trained_fold):
    given = _arguments(tmp_path, "--fold", "1", "--trained", str(trained_fold))
    against_nnunet.step_file(given, "convert").parent.mkdir(parents=True)
    against_nnunet.step_file(given, "convert").write_text("{}")
    planned, trained = against_nnunet.plan(given), against_nnunet.train(given)
    assert planned["network"] == "UNet"
    assert planned["seconds"] is None
    assert (given.work / "bundle" / "configs").is_dir()
    assert not (given.work / "bundle" / "training").exists()
    assert (trained["seconds"], trained["steps"], trained["cache_gb"]) == (60.5, 70, 2 / 1e9)
    assert (given.work / "run" / "held_out").is_dir()


@pytest.mark.parametrize("times", [{"training_s": 60.5, "resumed": True}, None])
def test_a_trained_fold_without_a_whole_time_is_refused(tmp_path, trained_fold, times):
    (trained_fold / "training" / "times.json").write_text(json.dumps(times))
    with pytest.raises(SystemExit, match="without interruption"):
        against_nnunet.train(_arguments(tmp_path, "--fold", "1", "--trained", str(trained_fold)))


@pytest.mark.parametrize("more", [("--seed", "1"), ("--cases", "9")])
def test_a_trained_fold_of_another_seed_or_more_cases_is_refused(tmp_path, trained_fold, more):
    with pytest.raises(SystemExit, match="seed 0 on all cases"):
        against_nnunet.train(_arguments(tmp_path, "--fold", "1", "--trained", str(trained_fold), *more))


def test_a_trained_fold_of_another_number_is_refused(tmp_path, trained_fold):
    with pytest.raises(SystemExit, match="expected a training of fold 0"):
        against_nnunet.train(_arguments(tmp_path, "--fold", "0", "--trained", str(trained_fold)))


def test_medimg3d_is_trained_again_for_at_most_2_percent_fewer_steps_than_nnunet_took(tmp_path, monkeypatch):
    given = _arguments(tmp_path, "--match", "their-steps")
    asked = []

    def trained(_, name, *options, **__):
        asked.append([name, *map(str, options)])
        run = tmp_path / "run_their_steps"
        for file, content in (
            (run / "training" / "settings.json", {"epochs": 51, "precision": "float32"}),
            (run / "configs" / "train.json", {"iterations_per_epoch": 2}),
        ):
            file.parent.mkdir(parents=True)
            file.write_text(json.dumps(content))
        return process_tree.Watched(9.0, 1.0)

    monkeypatch.setattr(against_nnunet, "medimg3d", trained)
    for name, found in (("plan", {}), ("train-nnunet-time", {"steps": 103})):
        file = against_nnunet.step_file(given, name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(found))
    assert against_nnunet.train_again(given)["steps"] == 102
    (options,) = asked
    assert options[options.index("--epochs") + 1] == "51"
    assert "iterations_per_epoch=2" in options


def test_a_done_step_is_passed_over_unless_asked_for_again(tmp_path):
    runs = []

    def step():
        runs.append(1)
        return {"seconds": 1.23456}

    for more in ([], [], ["--again", "plan"]):
        against_nnunet.do_step(_arguments(tmp_path, *more), "plan", "plan", step)
    assert len(runs) == 2
    assert against_nnunet.of_step(_arguments(tmp_path), "plan")["seconds"] == 1.2346


def test_a_step_says_what_it_needs(tmp_path):
    with pytest.raises(SystemExit, match="--steps plan"):
        against_nnunet.of_step(_arguments(tmp_path), "plan")


def test_an_unknown_step_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        _arguments(tmp_path, "--steps", "convert,trian")
    assert "no --steps trian" in capsys.readouterr().err


def test_a_work_folder_keeps_what_it_was_begun_with(tmp_path):
    against_nnunet.keep_settings(_arguments(tmp_path, "--fold", "1"))
    with pytest.raises(SystemExit, match="was begun with --fold 1, not 0"):
        against_nnunet.keep_settings(_arguments(tmp_path))


def test_a_trial_does_not_write_into_the_results(tmp_path):
    assert _arguments(tmp_path, "--cases", "6").results.name == "quick.jsonl"


# --- the table


def _line(**values):
    return {
        "name": "hippocampus", "fold": 0, "match": "time", "backend": "torch", "device": "cpu", "cases": 44,
        "dice": [0.88, 0.89], "difference": 0.01, "interval": [0.004, 0.016], "training_s": [3600.0, 3540.0],
        "steps": [2000, 4000], "prediction_s": [60.0, 15.0], "prediction_memory_gb": [2.0, 0.8], "cores": 2,
        "processor": "a processor", "versions": {"torch": "2"}, "nnunet_versions": {"nnunetv2": "2.8"}, **values,
    }  # fmt: skip


def test_a_row_holds_both_sides_and_their_ratio():
    *_, row = nnunet_scores.table([_line()]).splitlines()
    assert row == (
        "| hippocampus, 0, time; 44 cases; torch | 0.8800 | 0.8900 | +0.0100 [+0.0040, +0.0160] | "
        "60.0 (2000) / 59.0 (4000) | 60.0 / 15.0 (4.0 ×) | 2.00 / 0.80 (40%) |"
    )


def test_the_last_line_of_a_comparison_counts():
    lines = [_line(difference=0.5), _line(fold=1), _line(difference=-0.5)]
    assert [line["difference"] for line in nnunet_scores.latest(lines)] == [-0.5, 0.01]


def test_nothing_measured_is_said():
    assert nnunet_scores.table([]) == "Nothing is measured yet."


# --- folds together


def test_folds_are_summed_in_time_and_compared_over_all_cases(tmp_path, monkeypatch):
    scores = {
        "fold_0": ({"a": {"front": _score(0.5)}}, {"a": {"front": _score(0.7)}}),
        "fold_1": ({"b": {"front": _score(0.6)}}, {"b": {"front": _score(0.6)}}),
    }
    spent = {
        "training_s": [10.0, 9.0], "steps": [5, 6], "prediction_s": [4.0, 1.0], "prediction_process_s": [5.0, 2.0],
        "training_memory_gb": [2.0, 1.0], "prediction_memory_gb": [1.0, 0.5], "cache_gb": [0.2, 0.1],
        "batch_size": [2, 4], "patch_size": [[8], [8]], "nnunet_versions": {}, "was_interrupted": [False, True],
    }  # fmt: skip
    monkeypatch.setattr(pool_against_nnunet, "costs", lambda *_: spent)
    monkeypatch.setattr(pool_against_nnunet, "head", lambda fold: {"name": "set", "fold": fold.fold})
    monkeypatch.setattr(
        pool_against_nnunet,
        "scores_of",
        lambda fold, side: scores[fold.work.name][side.startswith("medimg3d")],
    )
    monkeypatch.setattr(pool_against_nnunet, "load_datalist", lambda _: Datalist())
    folds = [
        pool_against_nnunet.argparse.Namespace(work=tmp_path / name, fold=number, seed=0, cores=1)
        for number, name in enumerate(scores)
    ]
    line = pool_against_nnunet.pooled_line(folds, "time", "torch")
    assert (line["fold"], line["cases"], line["dice"]) == ("2 folds", 2, [0.55, 0.65])
    assert (line["training_s"], line["steps"], line["prediction_s"]) == ([20.0, 18.0], [10, 12], [8.0, 2.0])
    assert line["prediction_memory_gb"] == [1.0, 0.5]
    assert line["was_interrupted"] == [False, True]
    scores["fold_1"] = scores["fold_0"]
    with pytest.raises(SystemExit, match="a was held out in two folds"):
        pool_against_nnunet.pooled_line(folds, "time", "torch")
