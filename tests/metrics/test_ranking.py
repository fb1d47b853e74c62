import numpy as np
import pytest
from sklearn import metrics

from medimg3d.metrics.ranking import (
    auc,
    average_precision,
    precision_recall_curve,
    roc_curve,
    weighted_auc,
    weighted_average_precision,
    weighted_specificity_at_sensitivity,
)


def random_scores(n=300, digits=2, seed=0):
    """Scores with many ties."""
    rng = np.random.default_rng(seed)
    positive = rng.random(n) < 0.4
    return np.round(rng.normal(size=n) + positive, digits), positive


def test_auc_counts_the_pairs_in_the_right_order_and_a_tie_half():
    # positives 0.8 and 0.5, negatives 0.5 and 0.1: pairs right, right, tied, right
    assert auc([0.8, 0.5, 0.5, 0.1], [1, 1, 0, 0]) == pytest.approx(3.5 / 4)


def test_average_precision_worked_out_by_hand():
    # from the top: positive (1/1), negative, positive (2/3)
    assert average_precision([0.9, 0.8, 0.7], [1, 0, 1]) == pytest.approx((1 + 2 / 3) / 2)


@pytest.mark.parametrize("digits", [0, 1, 6])
def test_areas_are_those_of_scikit_learn_with_and_without_ties(digits):
    scores, positive = random_scores(digits=digits)
    assert auc(scores, positive) == pytest.approx(metrics.roc_auc_score(positive, scores))
    expected = metrics.average_precision_score(positive, scores)
    assert average_precision(scores, positive) == pytest.approx(expected)


def test_areas_of_resamples_are_those_of_the_repeated_cases():
    scores, positive = random_scores(60, digits=1)
    weights = np.random.default_rng(1).multinomial(60, np.full(60, 1 / 60), size=4).astype(float)
    for row, area, precision in zip(
        weights,
        weighted_auc(scores, positive, weights),
        weighted_average_precision(scores, positive, weights),
        strict=True,
    ):
        times = row.astype(int)
        repeated = np.repeat(positive, times), np.repeat(scores, times)
        assert area == pytest.approx(metrics.roc_auc_score(*repeated))
        assert precision == pytest.approx(metrics.average_precision_score(*repeated))


@pytest.mark.parametrize("labels", [[0, 0], [1, 1]])
def test_areas_are_undefined_where_a_class_has_no_case(labels):
    assert np.isnan(auc([0.1, 0.2], labels))
    assert np.isnan(average_precision([0.1, 0.2], labels))


def test_areas_of_no_case_are_undefined():
    assert np.isnan(auc([], []))


def test_curves_are_those_of_scikit_learn():
    scores, positive = random_scores(digits=1)
    curve = roc_curve(scores, positive)
    fpr, tpr, thresholds = metrics.roc_curve(positive, scores, drop_intermediate=False)
    assert curve.false_positive_rate == pytest.approx(fpr)
    assert curve.sensitivity == pytest.approx(tpr)
    assert curve.scores[1:] == pytest.approx(thresholds[1:])
    assert curve.auc == auc(scores, positive)
    precision, recall, _ = metrics.precision_recall_curve(positive, scores)
    found = precision_recall_curve(scores, positive)
    assert found.precision == pytest.approx(precision[:-1][::-1])
    assert found.recall == pytest.approx(recall[:-1][::-1])
    assert found.prevalence == pytest.approx(positive.mean())


def test_a_score_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="NaN or infinite"):
        auc([0.1, float("nan")], [0, 1])
    with pytest.raises(ValueError, match=r"expected \(n,\)"):
        auc([0.1, 0.2], [0, 1, 1])


def test_specificity_at_a_sensitivity_worked_out_by_hand():
    # rising: 0.1 n, 0.3 p, 0.5 n, 0.5 p, 0.7 n, 0.9 p
    scores, positive = [0.1, 0.3, 0.5, 0.5, 0.7, 0.9], [0, 1, 0, 1, 0, 1]

    def at(sensitivity):
        return weighted_specificity_at_sensitivity(scores, positive, np.ones((1, 6)), np.array([sensitivity]))

    assert at(1.0) == pytest.approx(1 / 3)  # the cut lies below 0.3
    assert at(2 / 3) == pytest.approx(1 / 3)  # one may be missed: the cut lies above 0.3, the tie stays whole
    assert at(1 / 3) == pytest.approx(1.0)
    assert at(0.0) == pytest.approx(1.0)
    assert np.isnan(at(np.nan))


def test_specificity_at_a_sensitivity_is_the_best_of_scikit_learns_roc_curve_in_each_resample():
    scores, positive = random_scores(n=60, digits=1)
    weights = np.random.default_rng(1).integers(0, 3, (20, 60)).astype(float)
    wanted = np.random.default_rng(2).random(20)
    found = weighted_specificity_at_sensitivity(scores, positive, weights, wanted)
    for row, share, value in zip(weights, wanted, found, strict=True):
        false_alarms, sensitivity, _ = metrics.roc_curve(
            positive, scores, sample_weight=row, drop_intermediate=False
        )
        assert value == pytest.approx((1 - false_alarms)[sensitivity >= share].max())
