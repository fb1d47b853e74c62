from dataclasses import replace

import numpy as np
import pytest
from sklearn import metrics

from medimg3d.report.classification_summary import (
    Resampling,
    ScoredFilms,
    class_estimates,
    decision_estimates,
    overall_estimates,
    share_unsure,
    subgroup_estimates,
)

QUICK = Resampling(num_resamples=200)


def films(n=120, num_classes=2, seed=0, patients=None):
    rng = np.random.default_rng(seed)
    truth = rng.integers(num_classes, size=n)
    scores = rng.normal(size=(n, num_classes)) + 1.5 * np.eye(num_classes)[truth]
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    return ScoredFilms(
        tuple("abcd"[:num_classes]),
        1 if num_classes == 2 else None,
        truth,
        probabilities.argmax(axis=1),
        probabilities,
        probabilities.max(axis=1) < 0.6,
        patients,
    )


def values(estimates):
    return {name: estimate.value for name, estimate in estimates.items()}


def test_figures_of_two_classes_are_those_of_scikit_learn():
    given = films()
    found = values(overall_estimates(given, QUICK))
    chance = given.probabilities[:, 1]
    assert found["auc"] == pytest.approx(metrics.roc_auc_score(given.truth, chance))
    assert found["average_precision"] == pytest.approx(metrics.average_precision_score(given.truth, chance))
    assert found["brier"] == pytest.approx(metrics.brier_score_loss(given.truth, chance))
    assert found["sensitivity"] == pytest.approx(metrics.recall_score(given.truth, given.decided))
    assert found["f1"] == pytest.approx(metrics.f1_score(given.truth, given.decided))


def test_auc_of_several_classes_is_the_mean_of_each_against_the_rest():
    given = films(num_classes=3)
    found = values(overall_estimates(given, QUICK))
    expected = metrics.roc_auc_score(given.truth, given.probabilities, multi_class="ovr")
    assert found["auc"] == pytest.approx(expected)
    assert "sensitivity" not in found
    per_class = class_estimates(given, QUICK)
    assert np.mean([per_class[name]["auc"].value for name in "abc"]) == pytest.approx(expected)


def test_a_share_counts_the_films_below_its_line():
    given = films()
    found = overall_estimates(given, QUICK)
    assert found["sensitivity"].n == (given.truth == 1).sum()
    assert found["specificity"].n == (given.truth == 0).sum()
    assert found["precision"].n == (given.decided == 1).sum()
    assert class_estimates(given, QUICK)["a"]["sensitivity"].n == (given.truth == 0).sum()


def test_a_sensitivity_of_1_gets_the_exact_interval_of_its_positives():
    truth = np.array([1] * 10 + [0] * 10)
    decided = np.array([1] * 12 + [0] * 8)
    chance = np.linspace(0.9, 0.1, 20)
    given = ScoredFilms(("a", "b"), 1, truth, decided, np.stack([1 - chance, chance], 1), truth > 1)
    found = overall_estimates(given, QUICK)["sensitivity"]
    assert (found.value, found.high, found.n) == (1, 1, 10)
    assert found.low == pytest.approx(0.025**0.1)  # ten of ten
    assert found.method == "Clopper-Pearson over 10 films"
    by_patient = replace(given, patients=tuple(f"p{n // 2}" for n in range(20)))
    assert overall_estimates(by_patient, QUICK)["sensitivity"].low == pytest.approx(
        0.025**0.2
    )  # five patients


def test_undefined_figures_say_which_class_is_missing():
    given = films()
    found = overall_estimates(given.only(given.truth == 1), QUICK)
    assert (found["auc"].value, found["auc"].low) == (None, None)
    assert found["specificity"].note == "undefined: no film of class a"
    assert found["accuracy"].value is not None


def test_figures_without_the_unsure_are_those_of_the_other_films():
    given = films()
    sure = ~given.unsure
    found = decision_estimates(given.only(sure), QUICK)
    assert found["accuracy"].value == pytest.approx((given.truth == given.decided)[sure].mean())
    assert share_unsure(given, QUICK).value == pytest.approx(given.unsure.mean())


def test_no_film_gives_no_number():
    given = films()
    found = decision_estimates(given.only(np.zeros(120, bool)), QUICK)
    assert {estimate.value for estimate in found.values()} == {None}


def test_a_subgroup_of_one_class_is_held_against_all_films_of_the_other():
    given = films()
    kinds = [("x" if n % 3 else "y") if label else "" for n, label in enumerate(given.truth)]
    entries = subgroup_estimates(given, kinds, QUICK)
    assert [entry["value"] for entry in entries] == ["x", "y"]
    own = np.array(kinds) == "x"
    compared = own | (given.truth == 0)
    figures = entries[0]["figures"]
    assert figures["auc"]["value"] == pytest.approx(
        metrics.roc_auc_score(given.truth[compared], given.probabilities[compared, 1])
    )
    assert figures["sensitivity"]["value"] == pytest.approx(given.decided[own].mean())
    assert entries[0]["compared_with"] == f"all {(given.truth == 0).sum()} films of other classes"
    assert "accuracy" not in figures


def test_a_subgroup_of_both_classes_stays_within_itself_and_one_that_is_a_class_is_passed_over():
    given = films()
    hospitals = ["north" if n % 2 else "south" for n in range(120)]
    entry = subgroup_estimates(given, hospitals, QUICK)[0]
    own = np.array(hospitals) == "north"
    assert entry["figures"]["accuracy"]["value"] == pytest.approx((given.truth == given.decided)[own].mean())
    assert entry["n_by_class"] == {"a": int((given.truth[own] == 0).sum()), "b": int(given.truth[own].sum())}
    assert subgroup_estimates(given, ["normal" if label == 0 else "" for label in given.truth], QUICK) == []
