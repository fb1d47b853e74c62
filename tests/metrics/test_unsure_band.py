import itertools

import numpy as np
import pytest

from medimg3d.metrics.threshold import all_cuts
from medimg3d.metrics.unsure_band import lowest_confidence, unsure_band

SCORES = [0.1, 0.2, 0.3, 0.45, 0.55, 0.6, 0.8, 0.9]
LABELS = [0, 0, 0, 1, 0, 1, 1, 1]  # at 0.5 the two in the middle are wrong


def test_the_smallest_band_without_an_error_outside_holds_the_two_wrong_cases():
    band = unsure_band(SCORES, LABELS, 0.5, max_error=0)
    assert (band.low, band.high) == pytest.approx((0.375, 0.575))
    assert band.share == pytest.approx(2 / 8)
    assert (band.error_outside, band.error_without_band) == (0, pytest.approx(2 / 8))


def test_no_band_is_needed_where_the_errors_are_few_enough():
    band = unsure_band(SCORES, LABELS, 0.5, max_error=0.25)
    assert (band.low, band.high, band.share) == (0.5, 0.5, 0)


def test_the_band_of_a_share_holds_no_more_than_that_and_takes_out_an_error():
    band = unsure_band(SCORES, LABELS, 0.5, share=0.15)
    assert band.share == pytest.approx(1 / 8)
    assert band.error_outside == pytest.approx(1 / 7)
    assert band.low <= 0.5 <= band.high


def test_none_where_every_case_would_have_to_go():
    assert unsure_band([0.2, 0.8], [1, 0], 0.5, max_error=0) is None


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("rule", [{"max_error": 0.1}, {"share": 0.3}])
def test_no_other_pair_of_ends_is_better(seed, rule):
    rng = np.random.default_rng(seed)
    labels = rng.permutation([0, 1] * 15)
    scores = np.round(np.clip(0.5 + 0.3 * (labels - 0.5) + rng.normal(scale=0.2, size=30), 0, 1), 2)
    band = unsure_band(scores, labels, 0.505, **rule)
    ends = [*all_cuts(scores, labels).thresholds, 0.505]
    best = []
    for low, high in itertools.product(ends, ends):
        if low <= 0.505 <= high:
            inside = (scores > low) & (scores < high)
            errors = int((((scores > 0.505) != labels) & ~inside).sum())
            outside = 30 - inside.sum()
            if "share" in rule and inside.sum() <= 9 + 1e-9:
                best.append((errors, inside.sum()))
            if "max_error" in rule and outside and errors <= 0.1 * outside + 1e-9:
                best.append((inside.sum(), errors))
    inside = (scores > band.low) & (scores < band.high)
    errors = int((((scores > 0.505) != labels) & ~inside).sum())
    found = (errors, inside.sum()) if "share" in rule else (inside.sum(), errors)
    assert found == min(best)
    assert band.share == pytest.approx(inside.mean())
    assert band.error_outside == pytest.approx(errors / (30 - inside.sum()))


def test_lowest_confidence_sends_the_fewest_cases_that_reach_the_error():
    confidence = [0.4, 0.5, 0.6, 0.7, 0.9]
    right = [False, True, False, True, True]
    found = lowest_confidence(confidence, right, max_error=0)
    assert found.value == pytest.approx(0.65)
    assert (found.share, found.error_outside, found.error_without) == pytest.approx((3 / 5, 0, 2 / 5))
    assert lowest_confidence(confidence, right, max_error=0.5).share == 0
    assert lowest_confidence(confidence, right, share=0.4).value == pytest.approx(0.55)
    assert lowest_confidence([0.5, 0.9], [True, False], max_error=0) is None


def test_exactly_one_rule_is_expected_and_in_range():
    with pytest.raises(ValueError, match="exactly one of share and max_error"):
        unsure_band(SCORES, LABELS, 0.5)
    with pytest.raises(ValueError, match="share must be at least 0 and below 1, got 1"):
        unsure_band(SCORES, LABELS, 0.5, share=1)
    with pytest.raises(ValueError, match="max_error must be between 0 and 1, got 5"):
        lowest_confidence([0.5], [True], max_error=5)
    with pytest.raises(ValueError, match="one finite confidence"):
        lowest_confidence([], [], share=0.1)
