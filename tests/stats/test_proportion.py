import pytest
from scipy.stats import binomtest

from medimg3d.stats.proportion import clopper_pearson_interval, wilson_interval


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (10, 10), (3, 10), (195, 312), (1, 1)])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_intervals_are_those_of_scipy(successes, n, level):
    test = binomtest(successes, n)
    for found, method in ((wilson_interval, "wilson"), (clopper_pearson_interval, "exact")):
        expected = test.proportion_ci(level, method=method)
        assert found(successes, n, level=level) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_none_of_ten_may_still_be_three_in_ten():
    # rule of three: about 3 / n; exact: 1 - 0.025 ** (1 / 10)
    assert clopper_pearson_interval(0, 10) == pytest.approx((0, 1 - 0.025**0.1))


def test_no_case_has_no_interval():
    assert wilson_interval(0, 0) is None
    assert clopper_pearson_interval(0, 0) is None


def test_counts_and_levels_out_of_range_are_refused():
    with pytest.raises(ValueError, match="Found 11 successes of 10"):
        wilson_interval(11, 10)
    with pytest.raises(ValueError, match="level must be between 0 and 1, got 95"):
        clopper_pearson_interval(1, 10, level=95)
