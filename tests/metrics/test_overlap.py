import numpy as np
import pytest
import torch
from monai.metrics import DiceMetric

from medimg3d.metrics.overlap import dice


def test_two_of_three_voxels_shared_on_each_side_is_two_thirds():
    pred, truth = np.array([1, 1, 1, 0]), np.array([0, 1, 1, 1])
    assert dice(pred, truth) == pytest.approx(2 / 3)


def test_equal_masks_have_dice_one_and_disjoint_masks_zero():
    mask = np.array([[1, 0], [1, 0]])
    assert dice(mask, mask) == 1
    assert dice(mask, 1 - mask) == 0


def test_one_empty_mask_is_zero_and_two_are_nan():
    mask, empty = np.ones((2, 2)), np.zeros((2, 2))
    assert dice(mask, empty) == 0
    assert dice(empty, mask) == 0
    assert np.isnan(dice(empty, empty))


def test_agrees_with_monai_on_random_masks():
    rng = np.random.default_rng(0)
    for _ in range(5):
        pred, truth = rng.random((2, 6, 7, 8)) > 0.6
        expected = DiceMetric()(
            torch.from_numpy(pred)[None, None].float(), torch.from_numpy(truth)[None, None].float()
        )
        assert dice(pred, truth) == pytest.approx(expected.item(), abs=1e-6)


def test_masks_on_different_grids_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 2\) and \(2, 3\); expected one grid"):
        dice(np.ones((2, 2)), np.ones((2, 3)))
