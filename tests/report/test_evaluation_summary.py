import math

import pytest

from medimg3d.metrics.case_scores import ClassScore
from medimg3d.report.evaluation_summary import ALL_CLASSES, summarise_metrics, worst_cases


def score(dice, hd95_mm, found_in="both"):
    return ClassScore(found_in, dice, hd95_mm, dice, 0.0, 0.0, 1.0, 1.0)


NOWHERE = ClassScore("neither", math.nan, math.nan, math.nan, 0.0, math.nan, 0.0, 0.0)
SCORES = {
    "a": {"front": score(0.8, 2.0), "rear": score(0.6, 4.0)},
    "b": {"front": score(0.9, 1.0), "rear": score(0.0, math.inf, "reference only")},
    "c": {"front": score(0.7, 3.0), "rear": NOWHERE},
}


def test_means_and_counts():
    metrics = summarise_metrics(SCORES, ["front", "rear"])
    assert metrics["dice"]["front"]["mean"] == pytest.approx(0.8)
    assert (metrics["dice"]["rear"]["mean"], metrics["dice"]["rear"]["n"]) == (pytest.approx(0.3), 2)
    assert metrics["hd95_mm"]["rear"] == {
        "mean": 4,
        "low": None,
        "high": None,
        "n": 1,
        "left_out": {"infinite": 1, "class in neither": 1},
    }
    assert metrics["volume_difference_ml"]["rear"]["n"] == 2


def test_mean_of_classes_takes_the_classes_that_a_case_has():
    metrics = summarise_metrics(SCORES, ["front", "rear"])
    # a: 0.7, b: 0.45, c: 0.7 (it has no rear)
    assert metrics["dice"][ALL_CLASSES]["mean"] == pytest.approx((0.7 + 0.45 + 0.7) / 3)
    assert metrics["hd95_mm"][ALL_CLASSES]["left_out"] == {"infinite": 1}
    assert ALL_CLASSES not in metrics["volume_difference_ml"]


def test_one_class_has_no_mean_of_classes():
    single = {case: {"front": classes["front"]} for case, classes in SCORES.items()}
    assert list(summarise_metrics(single, ["front"])["dice"]) == ["front"]


def test_one_patient_gives_no_interval():
    metrics = summarise_metrics(SCORES, ["front"], patients=dict.fromkeys("abc", "p"))
    assert metrics["dice"]["front"]["low"] is None


def test_worst_cases_come_first_and_cases_without_any_class_not_at_all():
    scores = SCORES | {"d": {"front": NOWHERE, "rear": NOWHERE}}
    assert [entry["case"] for entry in worst_cases(scores, 9)] == ["b", "a", "c"]
    assert [entry["case"] for entry in worst_cases(scores, 1)] == ["b"]
    assert worst_cases(scores, 9)[2]["dice"] == {"front": 0.7, "rear": None}
