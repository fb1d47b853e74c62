import numpy as np
import pytest

from medimg3d.metrics.case_scores import score_classes


def maps() -> tuple[np.ndarray, np.ndarray]:
    """Class 1 agrees, class 2 is missed, class 3 is made up, class 4 is nowhere."""
    pred, truth = np.zeros((2, 12, 12, 12), np.uint8)
    pred[1:5, 1:5, 1:5] = truth[1:5, 1:5, 1:5] = 1
    truth[8:10, 8:10, 8:10] = 2
    pred[8:10, 1:3, 1:3] = 3
    return pred, truth


def test_each_class_says_where_it_was_found():
    scores = score_classes(*maps(), [1, 2, 3, 4], spacing_mm=(1, 1, 1), tolerance_mm=1)
    assert [scores[label].found_in for label in (1, 2, 3, 4)] == [
        "both",
        "reference only",
        "prediction only",
        "neither",
    ]
    assert (scores[1].dice, scores[1].hd95_mm, scores[1].surface_dice) == (1, 0, 1)
    assert (scores[2].dice, scores[2].hd95_mm, scores[2].surface_dice) == (0, float("inf"), 0)
    assert (scores[3].dice, scores[3].hd95_mm, scores[3].surface_dice) == (0, float("inf"), 0)
    assert np.isnan([scores[4].dice, scores[4].hd95_mm, scores[4].surface_dice]).all()


def test_eight_voxels_of_2_mm_that_are_missed_are_minus_64_thousandths_of_a_ml():
    scores = score_classes(*maps(), [2], spacing_mm=(2, 2, 2), tolerance_mm=1)
    assert scores[2].volume_difference_ml == pytest.approx(-0.064)
    assert scores[2].relative_volume_difference == -1


def test_without_a_voxel_size_nothing_in_mm_or_ml_is_known():
    score = score_classes(*maps(), [1], spacing_mm=None, tolerance_mm=1)[1]
    assert score.dice == 1
    assert (score.hd95_mm, score.surface_dice, score.volume_difference_ml, score.pred_volume_ml) == (
        None,
    ) * 4


def test_maps_of_different_shapes_are_refused():
    pred, truth = maps()
    with pytest.raises(ValueError, match="expected one grid"):
        score_classes(pred[1:], truth, [1], spacing_mm=None, tolerance_mm=1)
