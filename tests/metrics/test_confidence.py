import numpy as np
import pytest

from medimg3d.metrics.confidence import (
    pairwise_disagreement,
    soft_dice_doubt,
    voxel_disagreement,
    voxel_entropy,
)


def of_voxels(*columns) -> np.ndarray:
    """Probabilities of a row of voxels, shape (classes, n)."""
    return np.array(columns, np.float32).T


def test_entropy_is_0_where_sure_and_1_where_all_classes_are_equal():
    entropy = voxel_entropy(of_voxels([1, 0], [0.5, 0.5], [0.25, 0.75]))
    np.testing.assert_allclose(entropy, [0, 1, 0.8112781], atol=1e-6)


def test_networks_that_are_sure_of_different_classes_disagree_and_equally_unsure_ones_do_not():
    sure = np.zeros((2, 3))
    sure[0] = 1
    unsure = np.full((2, 3), 0.5)
    for members, expected in (((sure, sure[::-1]), 1), ((unsure, unsure), 0), ((sure, sure), 0)):
        own = np.mean([voxel_entropy(one) for one in members], axis=0)
        apart = voxel_disagreement(voxel_entropy(np.mean(members, axis=0)), own)
        np.testing.assert_allclose(apart, expected, atol=1e-6)


def test_the_doubt_is_1_minus_the_soft_dice():
    probabilities = of_voxels([0.2, 0.8], [0.4, 0.6], [0.9, 0.1])
    assert soft_dice_doubt(probabilities) == pytest.approx(1 - 2 * 1.4 / (1.5 + 2))


def test_a_sure_map_has_no_doubt_and_a_missed_class_has_all():
    assert soft_dice_doubt(of_voxels([1, 0], [0, 1])) == 0
    assert soft_dice_doubt(of_voxels([1, 0], [1, 0])) == 0  # the class has no probability anywhere
    assert soft_dice_doubt(of_voxels([0.6, 0.4], [0.9, 0.1])) == 1


def test_the_doubt_is_the_mean_over_classes():
    assert soft_dice_doubt(of_voxels([0, 1, 0], [0.5, 0.1, 0.4])) == pytest.approx(
        (1 - 2 * 1 / (1.1 + 1) + 1) / 2
    )


def test_disagreement_is_the_mean_over_pairs():
    one, two, three = np.array([1, 1, 0]), np.array([1, 1, 0]), np.array([1, 2, 0])
    assert pairwise_disagreement([one, two]) == 0
    assert pairwise_disagreement([one, two, three]) == pytest.approx((0 + 0.5 + 0.5) / 3)
    assert pairwise_disagreement([one]) == pairwise_disagreement([one * 0, one * 0]) == 0
