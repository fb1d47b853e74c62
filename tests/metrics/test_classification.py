import numpy as np
import pytest
from sklearn import metrics

from medimg3d.metrics.classification import (
    confusion_matrix,
    decision_figures,
    f1,
    precision,
    recall,
    specificity,
    weighted_confusion,
)

#            truth 0: 3 right, 1 wrong; truth 1: 2 wrong, 4 right
TWO = np.array([[3, 1], [2, 4]])


def random_cases(num_classes, n=200, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(num_classes, size=n), rng.integers(num_classes, size=n)


def test_rows_are_the_truth_and_columns_the_decision():
    assert confusion_matrix([0, 0, 1, 1, 1], [0, 1, 1, 1, 0], 2).tolist() == [[1, 1], [1, 2]]


def test_figures_of_ten_cases_worked_out_by_hand():
    figures = {name: float(value) for name, value in decision_figures(TWO, 1).items()}
    assert figures["accuracy"] == pytest.approx(7 / 10)
    assert figures["sensitivity"] == pytest.approx(4 / 6)
    assert figures["specificity"] == pytest.approx(3 / 4)
    assert figures["precision"] == pytest.approx(4 / 5)
    assert figures["f1"] == pytest.approx(8 / 11)
    assert figures["balanced_accuracy"] == pytest.approx((4 / 6 + 3 / 4) / 2)
    assert figures["f1_macro"] == pytest.approx((8 / 11 + 6 / 9) / 2)
    assert figures["precision_weighted"] == pytest.approx((4 * 3 / 5 + 6 * 4 / 5) / 10)


@pytest.mark.parametrize("num_classes", [2, 4])
def test_figures_are_those_of_scikit_learn(num_classes):
    truth, decided = random_cases(num_classes)
    counts = confusion_matrix(truth, decided, num_classes)
    assert (counts == metrics.confusion_matrix(truth, decided)).all()
    figures = decision_figures(counts, None)
    expected = {
        "accuracy": metrics.accuracy_score(truth, decided),
        "balanced_accuracy": metrics.balanced_accuracy_score(truth, decided),
        "precision_macro": metrics.precision_score(truth, decided, average="macro"),
        "precision_weighted": metrics.precision_score(truth, decided, average="weighted"),
        "f1_macro": metrics.f1_score(truth, decided, average="macro"),
        "f1_weighted": metrics.f1_score(truth, decided, average="weighted"),
    }
    assert {name: float(value) for name, value in figures.items()} == pytest.approx(expected)
    assert f1(counts) == pytest.approx(metrics.f1_score(truth, decided, average=None))
    assert recall(counts) == pytest.approx(metrics.recall_score(truth, decided, average=None))


def test_specificity_of_a_class_is_the_recall_of_the_rest():
    truth, decided = random_cases(3)
    counts = confusion_matrix(truth, decided, 3)
    for k in range(3):
        expected = metrics.recall_score(truth == k, decided == k, pos_label=False)
        assert specificity(counts)[k] == pytest.approx(expected)


def test_precision_of_a_class_that_nobody_was_given_is_undefined_and_so_is_every_mean_with_it():
    counts = np.array([[5, 0], [2, 0]])
    figures = decision_figures(counts, 1)
    assert np.isnan(precision(counts)[1])
    assert np.isnan(figures["precision_macro"])
    assert np.isnan(figures["precision_weighted"])
    assert figures["f1"] == 0  # there were two to find


def test_recall_of_a_class_without_a_case_is_undefined_and_so_is_the_balanced_accuracy():
    figures = decision_figures(np.array([[5, 1], [0, 0]]), 1)
    assert np.isnan(figures["sensitivity"])
    assert np.isnan(figures["balanced_accuracy"])
    assert figures["accuracy"] == pytest.approx(5 / 6)


def test_no_case_at_all_gives_no_number():
    assert all(np.isnan(value) for value in decision_figures(np.zeros((2, 2)), 1).values())


def test_weighted_matrices_count_each_case_as_often_as_it_was_drawn():
    truth, decided = random_cases(3, n=20)
    weights = np.random.default_rng(1).integers(3, size=(5, 20)).astype(float)
    for row, counts in zip(weights, weighted_confusion(truth, decided, 3, weights), strict=True):
        times = row.astype(int)
        expected = confusion_matrix(np.repeat(truth, times), np.repeat(decided, times), 3)
        assert (counts == expected).all()


def test_indices_that_are_no_class_and_lengths_that_differ_are_refused():
    with pytest.raises(ValueError, match="Found class 0 to 2; expected 0 to 1"):
        confusion_matrix([0, 2], [0, 1], 2)
    with pytest.raises(ValueError, match="expected one number a case"):
        confusion_matrix([0, 1], [0], 2)
