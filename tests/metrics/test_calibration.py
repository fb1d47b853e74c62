import numpy as np
import pytest
from sklearn import metrics

from medimg3d.metrics.calibration import (
    brier_score,
    expected_calibration_error,
    fit_scaling,
    fit_temperature,
    reliability_bins,
    softmax,
    weighted_calibration_error,
)


def calibrated_logits(n=4000, num_classes=2, seed=0):
    """Logits whose softmax is the true chance of each class, and classes drawn by it."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=1.5, size=(n, num_classes))
    chances = softmax(logits)
    labels = (rng.random((n, 1)) > np.cumsum(chances, axis=1)).sum(axis=1)
    return logits, labels


@pytest.mark.parametrize("num_classes", [2, 3])
def test_logits_that_were_made_three_times_too_sure_get_temperature_three(num_classes):
    logits, labels = calibrated_logits(num_classes=num_classes)
    found = fit_temperature(3 * logits, labels)
    assert found.value == pytest.approx(3, rel=0.06)
    assert (found.reason, float(found)) == ("", found.value)
    assert found.nll_after < found.nll_before


def test_the_likelihood_before_is_that_of_scikit_learn_and_the_temperature_its_minimum():
    logits, labels = calibrated_logits(300)
    found = fit_temperature(logits, labels)
    assert found.nll_before == pytest.approx(metrics.log_loss(labels, softmax(logits)))
    assert found.nll_after == pytest.approx(metrics.log_loss(labels, softmax(logits, found.value)))
    for other in (0.98, 1.02):
        assert metrics.log_loss(labels, softmax(logits, other * found.value)) > found.nll_after


def test_temperature_stays_1_with_a_reason_where_none_can_be_fitted():
    separable = np.array([[4.0, 0], [3, 0], [0, 2], [0, 5]])
    assert "ever sharper" in fit_temperature(separable, [0, 0, 1, 1]).reason
    assert "ever flatter" in fit_temperature(separable, [1, 1, 0, 0]).reason
    assert "fewer than two classes" in fit_temperature(separable, [0, 0, 0, 0]).reason
    broken = fit_temperature(np.array([[np.nan, 0], [0, 1]]), [0, 1])
    assert (broken.value, broken.reason) == (1.0, "a logit is NaN or infinite")


@pytest.mark.parametrize("num_classes", [2, 3])
def test_logits_of_balanced_classes_get_the_bias_of_the_rare_class_back(num_classes):
    logits, labels = calibrated_logits(20000, num_classes)
    shift = np.array([1.2, -0.4, -0.8])[:num_classes]
    found = fit_scaling(2 * (logits - shift), labels)
    assert found.temperature == pytest.approx(2, rel=0.05)
    assert found.bias == pytest.approx(shift - shift.mean(), abs=0.06)
    assert found.nll_after < fit_temperature(2 * (logits - shift), labels).nll_after
    scaled = 2 * (logits - shift) / found.temperature + np.array(found.bias)
    assert found.nll_after == pytest.approx(metrics.log_loss(labels, softmax(scaled)))


def test_a_bias_without_an_optimum_is_left_away_with_a_reason():
    separable = np.array([[4.0, 0], [3, 0], [0, 2], [0, 5]])
    assert fit_scaling(separable, [0, 0, 1, 1]).bias == (0.0, 0.0)
    assert "ever sharper" in fit_scaling(separable, [0, 0, 1, 1]).reason
    logits, labels = calibrated_logits(300, 2)
    absent = np.column_stack([logits, np.full(300, -3.0)])
    found = fit_scaling(absent, labels)
    assert (found.bias, found.reason) == ((0.0, 0.0, 0.0), "bias has no optimum on these cases")
    assert found.temperature == fit_temperature(absent, labels).value


def test_bins_of_even_width_worked_out_by_hand():
    bins = reliability_bins([0.1, 0.2, 0.9, 1.0], [0, 1, 1, 1], num_bins=2, binning="width")
    assert [b.count for b in bins] == [2, 2]
    assert [b.mean_confidence for b in bins] == pytest.approx([0.15, 0.95])
    assert [b.observed_share for b in bins] == [0.5, 1.0]


def test_calibration_error_worked_out_by_hand():
    # bin 1: |0.15 - 0.5| = 0.35, bin 2: |0.95 - 1| = 0.05; half the cases in each
    error = expected_calibration_error([0.1, 0.2, 0.9, 1.0], [0, 1, 1, 1], num_bins=2, binning="width")
    assert error == pytest.approx(0.2)


def test_bins_of_equal_count_hold_equal_counts_and_never_part_equal_confidences():
    stated = np.linspace(0.01, 0.99, 100)
    assert [b.count for b in reliability_bins(stated, stated > 0.5, num_bins=5)] == [20] * 5
    tied = [0.3] * 8 + [0.6, 0.9]
    assert [b.count for b in reliability_bins(tied, [0] * 10, num_bins=5)] == [8, 2]


def test_an_empty_bin_has_no_share():
    bins = reliability_bins([0.05, 0.95], [0, 1], num_bins=4, binning="width")
    assert [b.count for b in bins] == [1, 0, 0, 1]
    assert np.isnan(bins[1].observed_share)


def test_error_of_a_resample_is_that_of_the_repeated_cases_in_the_same_bins():
    rng = np.random.default_rng(0)
    stated, event = rng.random(50), rng.random(50) < 0.5
    times = rng.integers(3, size=50)
    found = weighted_calibration_error(stated, event, times[None].astype(float), binning="width")
    repeated = expected_calibration_error(np.repeat(stated, times), np.repeat(event, times), binning="width")
    assert found[0] == pytest.approx(repeated)


def test_no_case_has_no_error():
    assert np.isnan(expected_calibration_error([], []))
    assert np.isnan(brier_score(np.zeros((0, 2)), []))


@pytest.mark.parametrize("num_classes", [2, 3])
def test_brier_score_is_that_of_scikit_learn(num_classes):
    logits, labels = calibrated_logits(200, num_classes)
    chances = softmax(logits)
    given = chances[:, 1] if num_classes == 2 else chances
    expected = metrics.brier_score_loss(labels, given)
    assert brier_score(chances, labels) == pytest.approx(expected)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="outside 0 to 1"):
        expected_calibration_error([1.2], [1])
    with pytest.raises(ValueError, match='binning must be "width" or "mass"'):
        reliability_bins([0.2], [1], binning="even")
    with pytest.raises(ValueError, match="num_bins must be at least 1"):
        reliability_bins([0.2], [1], num_bins=0)
    with pytest.raises(ValueError, match="Found label 0 to 2; expected 0 to 1"):
        fit_temperature(np.zeros((2, 2)), [0, 2])
    with pytest.raises(ValueError, match=r"expected \(n, classes\)"):
        brier_score([0.2, 0.8], [0, 1])
