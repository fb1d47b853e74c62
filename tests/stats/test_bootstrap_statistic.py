import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from medimg3d.metrics.ranking import weighted_auc
from medimg3d.stats.bootstrap_statistic import bootstrap_statistic, bootstrap_statistics, of_cases

VALUES = np.random.default_rng(1).beta(9, 1.5, size=60)
POSITIVE = np.arange(120) < 50
SCORES = np.random.default_rng(2).normal(size=120) + 1.5 * POSITIVE


def mean(weights):
    return weights @ VALUES / weights.sum(axis=1)


def area(weights):
    return weighted_auc(SCORES, POSITIVE, weights)


def ends(estimate):
    return estimate.low, estimate.high


@pytest.mark.parametrize("method", ["BCa", "percentile"])
def test_interval_of_a_mean_is_that_of_scipy(method):
    expected = stats.bootstrap(
        (VALUES,), np.mean, n_resamples=20000, method=method, rng=np.random.default_rng(5)
    ).confidence_interval
    found = bootstrap_statistic(mean, 60, num_resamples=20000, method=method)
    assert ends(found) == pytest.approx((expected.low, expected.high), abs=0.002)
    assert (found.value, found.n) == (pytest.approx(VALUES.mean()), 60)
    assert found.method.startswith(method)


@pytest.mark.parametrize("method", ["BCa", "percentile"])
def test_interval_of_an_auc_is_that_of_scipy_on_two_samples(method):
    def two_sample_auc(positives, negatives, axis=-1):
        wins = (positives[..., :, None] > negatives[..., None, :]).mean(axis=(-2, -1))
        return wins

    expected = stats.bootstrap(
        (SCORES[POSITIVE], SCORES[~POSITIVE]),
        two_sample_auc,
        n_resamples=20000,
        batch=200,
        vectorized=True,
        method=method,
        rng=np.random.default_rng(5),
    ).confidence_interval
    found = bootstrap_statistic(area, 120, strata=POSITIVE.tolist(), num_resamples=20000, method=method)
    assert ends(found) == pytest.approx((expected.low, expected.high), abs=0.004)


def test_any_function_of_the_drawn_cases_gives_the_same_as_its_fast_form():
    slow = of_cases(lambda cases: roc_auc_score(POSITIVE[cases], SCORES[cases]))
    settings = {"strata": POSITIVE.tolist(), "num_resamples": 100, "method": "percentile"}
    found = bootstrap_statistic(slow, 120, **settings)
    assert ends(found) == pytest.approx(ends(bootstrap_statistic(area, 120, **settings)))


def test_same_seed_same_interval_and_another_seed_another():
    first, again, other = (bootstrap_statistic(mean, 60, seed=seed) for seed in (3, 3, 4))
    assert first == again != other


def test_all_statistics_of_a_call_see_the_same_resamples():
    found = bootstrap_statistics({"mean": mean, "double": lambda w: 2 * mean(w)}, 60)
    assert ends(found["double"]) == pytest.approx([2 * end for end in ends(found["mean"])])


def test_two_equal_cases_a_patient_are_as_one():
    doubled = np.repeat(VALUES, 2)
    statistic = lambda w: w @ doubled / w.sum(axis=1)  # noqa: E731
    found = bootstrap_statistic(statistic, 120, groups=np.repeat(np.arange(60), 2).tolist())
    assert ends(found) == pytest.approx(ends(bootstrap_statistic(mean, 60)))
    naive = bootstrap_statistic(statistic, 120)
    assert naive.high - naive.low < found.high - found.low


def test_no_stratified_resample_lacks_a_class_even_where_one_has_three_cases():
    positive = np.arange(40) < 3
    drawn = []

    def share(weights):
        drawn.append((weights @ positive, weights.sum(axis=1)))
        return weights @ (positive * VALUES[:40]) / (weights @ positive)

    found = bootstrap_statistic(share, 40, strata=positive.tolist(), num_resamples=500)
    assert found.note == ""
    resampled = drawn[1]  # after the cases as they are
    assert set(resampled[0]) == {3}
    assert set(resampled[1]) == {40}


def test_a_patient_with_both_classes_is_drawn_among_its_like():
    groups = ["a", "a", "b", "b", "c", "d", "e", "f"]
    classes = [0, 1, 0, 1, 0, 0, 1, 1]
    seen = []

    def count(weights):
        seen.append(weights)
        return weights @ np.arange(8.0)

    bootstrap_statistic(count, 8, groups=groups, strata=classes, num_resamples=50, method="percentile")
    weights = seen[1]
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 0] + weights[:, 2] == 2).all()
    assert (weights[:, 4] + weights[:, 5] == 2).all()


def test_undefined_and_equal_figures_get_no_invented_interval():
    undefined = bootstrap_statistic(lambda w: np.full(len(w), np.nan), 60)
    assert (undefined.value, undefined.low, undefined.note) == (None, None, "undefined for these cases")
    equal = bootstrap_statistic(lambda w: np.ones(len(w)), 60)
    assert (equal.value, equal.low) == (1.0, None)
    assert "every resample gives the same figure" in equal.note


def test_no_interval_where_a_class_has_one_patient():
    found = bootstrap_statistic(mean, 60, groups=["a"] * 2 + list(range(58)), strata=[1] * 2 + [0] * 58)
    assert (found.low, found.note) == (None, "no interval: fewer than two patients of a class")


def test_resamples_without_a_figure_are_told_and_many_of_them_give_no_interval():
    rare = np.arange(60) == 0
    statistic = lambda w: np.where(w @ rare > 0, mean(w), np.nan)  # noqa: E731
    found = bootstrap_statistic(statistic, 60, method="percentile")
    assert found.low is None
    assert "of the resamples" in found.note  # (1 - 1/60) ** 60 is 36 %
    some = bootstrap_statistic(
        lambda w: np.where(w @ (np.arange(60) < 4) > 0, mean(w), np.nan), 60, method="percentile"
    )
    assert some.low is not None
    assert "which are left out" in some.note


def test_many_cases_are_worked_off_in_parts_without_changing_a_patients_cases(monkeypatch):
    from medimg3d.stats import bootstrap_statistic as module

    monkeypatch.setattr(module, "_NUMBERS_AT_ONCE", 600)  # ten resamples at a time
    found = bootstrap_statistic(mean, 60, num_resamples=205)
    assert found.low < found.value < found.high


def test_json_form_has_method_and_note_only_where_there_is_one():
    told = bootstrap_statistic(mean, 60).as_json()
    assert list(told) == ["value", "low", "high", "n", "method"]


def test_settings_out_of_range_are_refused():
    with pytest.raises(ValueError, match="Found 1 groups for 60 cases"):
        bootstrap_statistic(mean, 60, groups=["a"])
    with pytest.raises(ValueError, match="level must be between 0 and 1, got 95"):
        bootstrap_statistic(mean, 60, level=95)
    with pytest.raises(ValueError, match="method must be"):
        bootstrap_statistic(mean, 60, method="median")
    with pytest.raises(ValueError, match="num_resamples must be at least 1"):
        bootstrap_statistic(mean, 60, num_resamples=0)
