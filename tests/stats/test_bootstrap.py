import numpy as np
import pytest
from scipy import stats

from medimg3d.stats.bootstrap import Interval, bootstrap_mean

SKEWED = np.random.default_rng(1).beta(9, 1.5, size=60)


def test_mean_and_n_are_those_of_the_values():
    interval = bootstrap_mean([0.8, 0.9, 1.0])
    assert interval.mean == pytest.approx(0.9)
    assert (interval.n, interval.level) == (3, 0.95)
    assert interval.low < 0.9 < interval.high


def test_same_seed_same_interval_and_another_seed_another():
    assert bootstrap_mean(SKEWED, seed=3) == bootstrap_mean(SKEWED, seed=3)
    assert bootstrap_mean(SKEWED, seed=3) != bootstrap_mean(SKEWED, seed=4)


def test_percentile_interval_of_many_normal_values_is_that_of_student():
    values = np.random.default_rng(0).normal(10, 2, size=400)
    low, high = stats.t.interval(0.95, 399, loc=values.mean(), scale=stats.sem(values))
    interval = bootstrap_mean(values, method="percentile")
    assert interval.low == pytest.approx(low, abs=0.02)
    assert interval.high == pytest.approx(high, abs=0.02)


def test_bca_is_that_of_scipy_on_the_plain_mean():
    expected = stats.bootstrap(
        (SKEWED,), np.mean, n_resamples=20000, rng=np.random.default_rng(5)
    ).confidence_interval
    interval = bootstrap_mean(SKEWED, num_resamples=20000)
    assert interval.low == pytest.approx(expected.low, abs=0.002)
    assert interval.high == pytest.approx(expected.high, abs=0.002)


def test_no_interval_for_one_case_and_no_mean_for_none():
    assert bootstrap_mean([0.7]) == Interval(0.7, None, None, 1)
    nothing = bootstrap_mean([])
    assert np.isnan(nothing.mean)
    assert (nothing.low, nothing.high, nothing.n) == (None, None, 0)


def test_equal_values_have_an_interval_of_no_width():
    assert bootstrap_mean([0.5] * 4) == Interval(0.5, 0.5, 0.5, 4)


def test_two_equal_cases_a_patient_are_as_one():
    doubled = bootstrap_mean(np.repeat(SKEWED, 2), groups=np.repeat(np.arange(60), 2).tolist())
    single = bootstrap_mean(SKEWED)
    assert (doubled.low, doubled.high) == pytest.approx((single.low, single.high), abs=1e-9)
    assert doubled.n == 120
    naive = bootstrap_mean(np.repeat(SKEWED, 2))
    assert naive.high - naive.low < doubled.high - doubled.low


def test_one_patient_gives_no_interval():
    assert bootstrap_mean([0.7, 0.8], groups=["a", "a"]).low is None


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(bad):
    with pytest.raises(ValueError, match="leave out"):
        bootstrap_mean([0.5, bad])


def test_settings_out_of_range_are_refused():
    with pytest.raises(ValueError, match="level must be between 0 and 1, got 95"):
        bootstrap_mean([1.0, 2.0], level=95)
    with pytest.raises(ValueError, match="Found 1 groups for 2 values"):
        bootstrap_mean([1.0, 2.0], groups=["a"])
    with pytest.raises(ValueError, match="method must be"):
        bootstrap_mean([1.0, 2.0], method="median")
