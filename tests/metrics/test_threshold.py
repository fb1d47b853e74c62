import numpy as np
import pytest
from sklearn import metrics

from medimg3d.metrics.threshold import (
    all_cuts,
    specificity_at_equal_sensitivity,
    threshold_at_sensitivity,
    threshold_at_specificity,
    youden_threshold,
)

SCORES = [0.1, 0.2, 0.4, 0.5, 0.8, 0.9]
LABELS = [0, 0, 1, 0, 1, 1]


def random_scores(n=200, seed=0):
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) < 0.4).astype(int)
    return np.round(1 / (1 + np.exp(-rng.normal(size=n) - labels)), 2), labels


def test_youden_threshold_lies_midway_between_the_scores_it_parts():
    # below 0.65: 2 of 3 positives, all negatives; below 0.3: all positives, 2 of 3 negatives: as good
    found = youden_threshold(SCORES, LABELS)
    assert found.value == pytest.approx(0.65)
    assert (found.sensitivity, found.specificity) == pytest.approx((2 / 3, 1))
    assert found.ties == pytest.approx((0.3,))
    assert found.margin == pytest.approx(0.15)


def test_youden_index_is_the_best_on_scikit_learns_roc_curve():
    scores, labels = random_scores()
    found = youden_threshold(scores, labels)
    fpr, tpr, _ = metrics.roc_curve(labels, scores)
    assert found.sensitivity + found.specificity - 1 == pytest.approx((tpr - fpr).max())
    called = scores > found.value
    assert found.sensitivity == pytest.approx(metrics.recall_score(labels, called))
    assert found.specificity == pytest.approx(metrics.recall_score(1 - labels, ~called))


def test_a_threshold_is_never_a_score_even_between_neighbouring_floats():
    close = [0.5, np.nextafter(0.5, 1), 0.7]
    cuts = all_cuts(close, [0, 1, 1])
    assert len(cuts.thresholds) == 3  # nothing lies between the first two
    assert not set(cuts.thresholds) & set(close)


def test_threshold_at_a_sensitivity_is_the_most_specific_that_reaches_it():
    found = threshold_at_sensitivity(SCORES, LABELS, 0.9)
    assert found.value == pytest.approx(0.3)
    assert (found.sensitivity, found.specificity) == pytest.approx((1, 2 / 3))
    assert threshold_at_sensitivity(SCORES, LABELS, 2 / 3).value == pytest.approx(0.65)


def test_threshold_at_a_specificity_is_the_most_sensitive_that_reaches_it():
    found = threshold_at_specificity(SCORES, LABELS, 0.5)
    assert (found.sensitivity, found.specificity) == pytest.approx((1, 2 / 3))
    assert threshold_at_specificity(SCORES, LABELS, 1).sensitivity == pytest.approx(2 / 3)


def test_full_sensitivity_can_be_had_where_the_lowest_score_is_0_or_the_highest_1():
    found = threshold_at_sensitivity([0.0, 0.4, 1.0], [1, 0, 1], 1)
    assert found.value < 0
    assert threshold_at_specificity([0.0, 0.4, 1.0], [1, 1, 0], 1).value > 1


def test_two_classifiers_are_compared_at_the_sensitivity_of_the_one_in_use():
    labels = [1, 1, 1, 0, 0, 0, 0]
    in_use = [0.9, 0.8, 0.2, 0.7, 0.6, 0.1, 0.1]  # at 0.5: 2 of 3 found, 2 false alarms
    other = [0.9, 0.8, 0.3, 0.7, 0.4, 0.2, 0.1]  # at 0.75: 2 of 3 found, none
    found = specificity_at_equal_sensitivity(in_use, other, labels, reference_threshold=0.5)
    assert (found.false_positives_reference, found.false_positives_other) == (2, 0)
    assert found.reference.sensitivity == found.other.sensitivity == pytest.approx(2 / 3)
    assert found.other.value == pytest.approx(0.75)
    assert found.specificity_gain == pytest.approx(0.5)


def test_a_reference_that_finds_nothing_is_refused():
    with pytest.raises(ValueError, match=r"finds no positive case above 0\.95"):
        specificity_at_equal_sensitivity(SCORES, SCORES, LABELS, reference_threshold=0.95)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="No negative case among 2"):
        youden_threshold([0.1, 0.2], [1, 1])
    with pytest.raises(ValueError, match="No positive case among 0"):
        youden_threshold([], [])
    with pytest.raises(ValueError, match="neither 0 nor 1"):
        youden_threshold([0.1, 0.2], [1, 2])
    with pytest.raises(ValueError, match="NaN or infinite"):
        youden_threshold([0.1, float("nan")], [0, 1])
    with pytest.raises(ValueError, match="sensitivity must be above 0 and at most 1, got 95"):
        threshold_at_sensitivity(SCORES, LABELS, 95)
