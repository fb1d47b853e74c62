import numpy as np
import pytest

from medimg3d.metrics.case_scores import score_classes, score_unions


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


def test_a_union_of_labels_is_scored_as_one_structure_and_may_overlap_another():
    truth = np.zeros((4, 4, 4), dtype=np.uint8)
    truth[:2], truth[0] = 2, 1  # 16 voxels of 1, 16 of 2
    pred = np.where(truth > 0, 1, 0).astype(np.uint8)
    pred[1] = 0  # the whole lacks 16 of its 32 voxels; the core is there
    unions = {1: ((1, 2), (1, 2)), 2: ((1,), (1,))}
    scores = score_unions(pred, truth, unions, spacing_mm=(1, 1, 1), tolerance_mm=0)
    assert scores[1].dice == pytest.approx(2 * 16 / (16 + 32))
    assert scores[2].dice == 1
    assert scores[1].volume_difference_ml == pytest.approx(-0.016)


def test_voxels_of_the_ignored_value_count_in_no_score():
    truth = np.zeros((6, 6, 6), dtype=np.uint8)
    truth[1:4, 1:5, 1:5] = 1
    truth[4:] = 255
    pred = np.zeros_like(truth)
    pred[1:6, 1:5, 1:5] = 1  # agrees wherever the truth is known
    how = {"spacing_mm": (1, 1, 1), "tolerance_mm": 0, "ignored": 255}
    score = score_unions(pred, truth, {1: ((1,), (1,))}, **how)[1]
    assert (score.dice, score.hd95_mm, score.surface_dice, score.volume_difference_ml) == (1, 0, 1, 0)


def test_a_surface_that_only_the_ignored_voxels_cut_is_none():
    # Both masks fill the known half: their only wall between known voxels is missing, so nothing can be compared.
    truth = np.full((4, 4, 4), 255, dtype=np.uint8)
    truth[:, :, 1] = 1
    score = score_unions(
        truth // 255 * 0 + 1, truth, {1: ((1,), (1,))}, spacing_mm=(1, 1, 1), tolerance_mm=1, ignored=255
    )[1]
    assert score.dice == 1
    assert np.isnan(score.hd95_mm)
    assert np.isnan(score.surface_dice)


def test_distances_are_taken_between_known_voxels_alone():
    # One wall is 1 voxel off, and further along I nobody labelled: without the cut the far wall would count too.
    truth, pred = np.zeros((2, 8, 6, 6), dtype=np.uint8)
    truth[2:6, 1:5, 1:5] = 1
    pred[3:6, 1:5, 1:5] = 1
    truth[5:] = 255
    how = {"spacing_mm": (2, 2, 2), "tolerance_mm": 0}
    score = score_unions(pred, truth, {1: ((1,), (1,))}, ignored=255, **how)[1]
    assert score.dice == pytest.approx(2 * 2 / (2 + 3))
    assert score.hd95_mm == 2


def test_a_2d_image_has_distances_in_its_plane_and_no_volume():
    truth = np.zeros((8, 8), np.uint8)
    truth[2:5, 2:5] = 1
    scores = score_classes(np.roll(truth, 1, axis=0), truth, [1], spacing_mm=(2.0, 1.0), tolerance_mm=2.0)[1]
    assert scores.dice == pytest.approx(2 * 6 / 18)
    assert scores.hd95_mm == pytest.approx(2.0)
    assert scores.surface_dice == 1
    assert (scores.pred_volume_ml, scores.truth_volume_ml, scores.volume_difference_ml) == (None, None, None)
    assert scores.relative_volume_difference == 0
