"""The specificity gained over another classifier, both cut at the same sensitivity."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from medimg3d.report.classification_summary import Resampling, ScoredFilms
from medimg3d.report.equal_sensitivity import gain_at_equal_sensitivity

QUICK = Resampling(num_resamples=200)


def films(n=200, seed=0) -> tuple[ScoredFilms, np.ndarray]:
    """Films, and the logits of their positive class."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(2, size=n)
    logits = rng.normal(size=n) + 2.0 * truth
    chance = 1 / (1 + np.exp(1 - logits))
    decided = (chance > 0.4).astype(np.intp)
    scores = np.stack([1 - chance, chance], axis=1)
    return ScoredFilms(("well", "ill"), 1, truth, decided, scores, np.zeros(n, dtype=bool)), logits


def test_nothing_is_gained_over_the_same_scores_however_they_are_calibrated():
    given, logits = films()
    for other in (given.probabilities[:, 1], 1 / (1 + np.exp(-(3 * logits - 2)))):
        found = gain_at_equal_sensitivity(given, other, QUICK)["estimates"]
        assert found["specificity_gain"]["value"] == found["auc_gain"]["value"] == 0.0
        assert found["specificity_gain"]["low"] is None
        assert "every resample gives the same figure" in found["specificity_gain"]["note"]


def test_a_better_classifier_gains_and_the_interval_is_that_of_the_difference():
    given, logits = films(n=400)
    worse = logits + np.random.default_rng(5).normal(scale=3, size=len(logits))
    found = gain_at_equal_sensitivity(given, worse, QUICK)
    one = found["estimates"]
    assert one["specificity_gain"]["value"] == pytest.approx(
        one["specificity_here"]["value"] - one["specificity_there"]["value"]
    )
    assert 0 < one["specificity_gain"]["low"] < one["specificity_gain"]["value"]
    assert found["false_alarms"]["here"] < found["false_alarms"]["there"]
    own = given.truth == 1
    assert one["sensitivity"]["value"] == pytest.approx((given.decided[own] == 1).mean())


def test_scores_of_other_films_or_of_several_classes_are_refused():
    given, logits = films(n=20)
    with pytest.raises(ValueError, match="have the shape"):
        gain_at_equal_sensitivity(given, logits[1:], QUICK)
    with pytest.raises(ValueError, match="a positive class of two"):
        gain_at_equal_sensitivity(replace(given, positive=None), logits, QUICK)
