import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from medimg3d.data.fingerprint import ImageFingerprint
from medimg3d.data.shortcuts import auc_error, joint_separation, separations


def image(*, mean=0.0, size=(8, 8), num_bytes=100, border=0.0, spacing=None) -> ImageFingerprint:
    percentiles = (0.0, 1.0, 2.0, 3.0, 4.0)
    return ImageFingerprint(
        size, spacing, "", "", num_bytes, percentiles, mean, border, 0, np.zeros(0, np.float32)
    )


def test_the_auc_is_that_of_scikit_learn_and_only_what_varies_is_listed():
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 9, 30), rng.integers(3, 12, 20)
    found = separations(
        [image(mean=float(x)) for x in first], [image(mean=float(x)) for x in second], names=("a", "b")
    )
    expected = roc_auc_score([1] * 30 + [0] * 20, [*first, *second])
    assert [one.feature for one in found] == ["mean brightness"]
    assert found[0].auc == pytest.approx(expected)
    assert found[0].strength == pytest.approx(1 - expected)
    assert found[0].low < expected < found[0].high


def test_the_strongest_comes_first_and_one_that_is_not_known_of_all_is_left_out():
    first = [image(mean=n % 5, num_bytes=200 + n, spacing=(1.0, 1.0)) for n in range(12)]
    second = [image(mean=n % 4, num_bytes=100 + n) for n in range(12)]
    found = separations(first, second, names=("a", "b"))
    assert [one.feature for one in found] == ["file size", "mean brightness"]
    assert (found[0].auc, found[0].low, found[0].high) == (1, 1, 1)


def test_nine_images_in_a_group_say_nothing():
    few, many = [image(mean=n) for n in range(9)], [image(mean=-n) for n in range(20)]
    assert separations(few, many, names=("a", "b")) == []
    assert joint_separation(few, many, names=("a", "b"), groups=list(map(str, range(29)))) is None


def test_the_standard_error_of_hanley_and_mcneil():
    # 0.9 with 10 and 20: Q1 = 9/11, Q2 = 1.62/1.9; (0.09 + 9 (Q1 - 0.81) + 19 (Q2 - 0.81)) / 200
    expected = math.sqrt((0.09 + 9 * (9 / 11 - 0.81) + 19 * (1.62 / 1.9 - 0.81)) / 200)
    assert auc_error(0.9, 10, 20) == pytest.approx(expected)


def test_features_together_find_what_none_finds_alone():
    rng = np.random.default_rng(1)
    signs = rng.choice([-1, 1], (200, 2))
    images = [image(mean=float(a + rng.normal(0, 0.1)), border=float(b)) for a, b in signs]
    same = signs[:, 0] == signs[:, 1]
    first = [one for one, is_first in zip(images, same, strict=True) if is_first]
    second = [one for one, is_first in zip(images, same, strict=True) if not is_first]
    groups = list(map(str, range(200)))
    joint = joint_separation(first, second, names=("a", "b"), groups=groups)
    assert separations(first, second, names=("a", "b"))[0].strength < 0.65
    assert joint.auc > 0.95
    assert joint == joint_separation(first, second, names=("a", "b"), groups=groups)


def test_a_patient_who_gives_the_class_away_is_not_in_training_and_scoring():
    """Five patients a class, each with a brightness of its own: nothing holds for a new patient."""
    brightness = [3, 8, 1, 6, 5, 2, 9, 4, 7, 0]
    images = [image(mean=float(brightness[n // 10])) for n in range(100)]
    groups = [str(n // 10) for n in range(100)]
    joint = joint_separation(images[:50], images[50:], names=("a", "b"), groups=groups)
    assert joint.auc < 0.8
