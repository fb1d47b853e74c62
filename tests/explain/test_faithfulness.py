import numpy as np
import pytest

from medimg3d.explain.faithfulness import AgainstChance, hottest_point, pointing_game, share_inside


def half() -> np.ndarray:
    mask = np.zeros((4, 4), np.uint8)
    mask[:, :2] = 1
    return mask


def test_heat_alike_everywhere_gets_the_share_of_chance():
    assert share_inside(np.ones((4, 4)), half()) == AgainstChance(0.5, 0.5)


def test_share_inside_counts_heat_and_not_pixels():
    heat = np.zeros((4, 4))
    heat[0, 0], heat[0, 3] = 3, 1
    assert share_inside(heat, half()) == AgainstChance(0.75, 0.5)


def test_what_speaks_against_the_class_is_left_out():
    heat = np.full((4, 4), -5.0)
    heat[0, 0] = 1
    assert share_inside(heat, half()) == AgainstChance(1.0, 0.5)


def test_no_heat_and_an_empty_mask_have_no_figure():
    assert share_inside(np.zeros((4, 4)), half()) == AgainstChance(None, 0.5)
    assert share_inside(np.ones((4, 4)), half() * 0) == AgainstChance(None, 0.0)
    assert pointing_game(-np.ones((4, 4)), half()) == AgainstChance(None, 0.5)
    assert pointing_game(np.ones((4, 4)), half() * 0) == AgainstChance(None, 0.0)


@pytest.mark.parametrize(("column", "tolerance", "hit"), [(1, 0, 1), (2, 0, 0), (2, 1, 1), (3, 1, 0)])
def test_the_hottest_point_hits_within_the_tolerance(column, tolerance, hit):
    heat = np.zeros((4, 4))
    heat[2, column] = 1
    chance = 0.5 if tolerance == 0 else 0.75
    assert pointing_game(heat, half(), tolerance) == AgainstChance(hit, chance)


def test_of_a_plateau_the_point_nearest_to_its_middle_is_hottest():
    heat = np.zeros((5, 7, 3))
    heat[1:4, 2:5, :] = 2
    assert hottest_point(heat) == (2, 3, 1)


def test_shapes_that_differ_and_negative_tolerances_are_refused():
    with pytest.raises(ValueError, match=r"shape \(4, 4\), mask \(2, 4\)"):
        share_inside(np.ones((4, 4)), half()[:2])
    with pytest.raises(ValueError, match="at least 0 pixels"):
        pointing_game(np.ones((4, 4)), half(), -1)
