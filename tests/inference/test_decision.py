from __future__ import annotations

import json

import numpy as np
import pytest

from medimg3d.inference.decision import Decision, load_decision

CLASSES = ("normal", "pneumonia")


def test_temperature_divides_the_scores():
    decision = Decision(CLASSES, temperature=2.0)
    # exp(1) / (1 + exp(1)) of the difference 2 / 2
    np.testing.assert_allclose(decision.probabilities([[0.0, 2.0]])[0, 1], 1 / (1 + np.exp(-1)))


def test_huge_scores_do_not_overflow():
    np.testing.assert_allclose(Decision(CLASSES).probabilities([[0.0, 5000.0]]), [[0.0, 1.0]])


@pytest.mark.parametrize(("p", "decided"), [(0.29, "normal"), (0.3, "pneumonia"), (0.9, "pneumonia")])
def test_from_the_threshold_on_the_positive_class_is_decided(p, decided):
    decision = Decision(CLASSES, positive="pneumonia", threshold=0.3)
    assert decision.decide([1 - p, p]) == decided


def test_the_first_class_can_be_the_positive_one():
    decision = Decision(CLASSES, positive="normal", threshold=0.8)
    assert decision.decide([0.79, 0.21]) == "pneumonia"
    assert decision.leading([0.79, 0.21]) == 0.79


def test_the_band_includes_its_ends():
    decision = Decision(CLASSES, positive="pneumonia", threshold=0.5, unsure=(0.4, 0.6))
    found = [decision.is_unsure([1 - p, p]) for p in (0.39, 0.4, 0.5, 0.6, 0.61)]
    assert found == [False, True, True, True, False]


def test_with_three_classes_the_likeliest_decides():
    decision = Decision(("a", "b", "c"), unsure=(0.0, 0.5))
    assert decision.decide([0.2, 0.5, 0.3]) == "b"
    assert decision.is_unsure([0.2, 0.5, 0.3])
    assert not decision.is_unsure([0.1, 0.8, 0.1])


def test_a_decision_survives_its_file(tmp_path):
    decision = Decision(
        CLASSES, temperature=1.25, positive="pneumonia", threshold=0.61, unsure=(0.5, 0.7), rule="youden"
    )
    path = tmp_path / "decision.json"
    path.write_text(json.dumps(decision.as_json()))
    assert Decision.load(path) == decision
    assert load_decision(path, CLASSES) == decision


def test_without_a_file_the_decision_is_plain(tmp_path):
    assert load_decision(tmp_path / "decision.json", CLASSES) == Decision.plain(CLASSES)


def test_a_decision_for_other_classes_is_refused(tmp_path):
    path = tmp_path / "decision.json"
    path.write_text(json.dumps(Decision.plain(CLASSES).as_json()))
    with pytest.raises(ValueError, match=r"for the classes .*pneumonia.*; expected .*mass"):
        load_decision(path, ("normal", "mass"))


@pytest.mark.parametrize("text", ["{}", "[1]", '{"format": 9, "classes": ["a", "b"]}', "not json"])
def test_a_file_that_is_no_decision_is_named(tmp_path, text):
    path = tmp_path / "decision.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"decision.json is no decision"):
        Decision.load(path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"classes": ("a",)}, "at least two distinct"),
        ({"temperature": 0.0}, "temperature must be above 0"),
        ({"threshold": 0.5}, "belong together"),
        ({"threshold": 0.5, "positive": "x"}, "one of two classes"),
        ({"threshold": 1.5, "positive": "normal"}, r"threshold must be in \[0, 1\]"),
        ({"unsure": (0.7, 0.5)}, "unsure must be"),
    ],
)
def test_values_out_of_range_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        Decision(**{"classes": CLASSES, **values})
