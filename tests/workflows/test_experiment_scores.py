"""Figures of experiments from tables of cases written by hand."""

import json
from statistics import fmean

import pytest

from medimg3d.stats.bootstrap import bootstrap_mean
from medimg3d.workflows.experiment_scores import (
    differences,
    figures,
    read_scores,
    resampled_by,
    seed_spread,
)


def write_run(folder, dice, *, patients=None, times=None, structures=("front", "rear")):
    """A pooled cross-validation of one fold: case → Dice of each structure, None where neither map has it."""
    pool = folder / "cross_validation"
    pool.mkdir(parents=True)
    rows = ["case,class,found_in,dice"]
    for case, values in dice.items():
        for name, value in zip(structures, values, strict=True):
            rows.append(
                f"{case},{name},{'neither' if value is None else 'both'},{'' if value is None else value}"
            )
    (pool / "cases.csv").write_text("\n".join(rows) + "\n")
    classes = {str(number): name for number, name in enumerate(structures, start=1)}
    (pool / "summary.json").write_text(json.dumps({"classes": classes, "rejected": {}}))
    training = [
        {
            "id": case,
            "image": f"{case}.nii.gz",
            "label": f"{case}.nii.gz",
            **({"patient": patients[case]} if patients else {}),
        }
        for case in dice
    ]
    (pool / "datalist.json").write_text(
        json.dumps({"labels": {"0": "background"} | classes, "training": training})
    )
    if times is not None:
        (folder / "fold_0" / "training").mkdir(parents=True)
        (folder / "fold_0" / "training" / "times.json").write_text(json.dumps(times))
    return folder


def test_a_cases_dice_is_the_mean_over_seeds_and_a_structure_in_neither_map_counts_as_1(tmp_path):
    runs = [
        write_run(tmp_path / "seed_0", {"a": (0.8, 0.6), "b": (0.5, None)}),
        write_run(tmp_path / "seed_1", {"a": (0.6, 0.8), "b": (0.7, 0.0)}),  # a false find
    ]
    scores = read_scores(runs, [0])
    assert scores.dice["a"] == pytest.approx({"front": 0.7, "rear": 0.7})
    assert scores.dice["b"] == pytest.approx({"front": 0.6, "rear": 0.5})
    assert scores.values("mean", ["a", "b"]) == pytest.approx([0.7, 0.55])
    assert scores.by_seed == pytest.approx((0.725, 0.525))
    spread = seed_spread(scores)
    assert (spread["lowest"], spread["highest"]) == pytest.approx((0.525, 0.725))
    assert spread["sd"] == pytest.approx(0.2 / 2**0.5)
    assert figures(scores)["mean"]["mean"] == pytest.approx(0.625)


def test_a_case_that_one_seed_could_not_score_counts_in_none(tmp_path):
    runs = [
        write_run(tmp_path / "seed_0", {"a": (0.8, 0.6), "b": (0.5, 0.5)}),
        write_run(tmp_path / "seed_1", {"a": (0.6, 0.8)}),
    ]
    scores = read_scores(runs, [0])
    assert list(scores.dice) == ["a"]
    assert scores.by_seed == pytest.approx((0.7, 0.7))


def cases(values):
    return {f"c{number}": (value, value) for number, value in enumerate(values)}


def test_differences_are_paired_and_patients_resampled_together(tmp_path):
    before, after = [0.5, 0.6, 0.7, 0.8, 0.4, 0.3, 0.6, 0.5], [0.6, 0.6, 0.8, 0.9, 0.5, 0.5, 0.6, 0.6]
    patients = {f"c{number}": f"p{number % 7}" for number in range(8)}
    first = read_scores([write_run(tmp_path / "first", cases(before), patients=patients)], [0])
    other = read_scores([write_run(tmp_path / "other", cases(after), patients=patients)], [0])
    found = differences(other, first)
    expected = bootstrap_mean(
        [y - x for x, y in zip(before, after, strict=True)], groups=list(patients.values())
    )
    assert found["mean"]["mean"] == pytest.approx(fmean(after) - fmean(before))
    assert (found["mean"]["low"], found["mean"]["high"]) == pytest.approx((expected.low, expected.high))
    assert found["front"] == pytest.approx(found["rear"])
    assert resampled_by(other) == "patient"


def test_fewer_than_six_cases_give_a_difference_without_an_interval(tmp_path):
    first = read_scores([write_run(tmp_path / "first", cases([0.1, 0.2]))], [0])
    other = read_scores([write_run(tmp_path / "other", cases([0.3, 0.2]))], [0])
    found = differences(other, first)["mean"]
    assert found["mean"] == pytest.approx(0.1)
    assert found["low"] is None
    assert resampled_by(other) == "case"


def test_other_structures_are_not_compared(tmp_path):
    first = read_scores([write_run(tmp_path / "first", cases([0.1, 0.2]))], [0])
    names = ("left", "right")
    other = read_scores([write_run(tmp_path / "other", cases([0.3, 0.2]), structures=names)], [0])
    assert differences(other, first) is None


@pytest.mark.parametrize(
    ("times", "seconds"),
    [
        ({"training_s": 12.5, "resumed": False}, 12.5),
        ({"training_s": 3, "resumed": True}, None),
        (None, None),
    ],
)
def test_the_time_of_a_training_that_was_stopped_is_not_known(tmp_path, times, seconds):
    assert read_scores([write_run(tmp_path / "run", cases([0.5]), times=times)], [0]).training_s == seconds
