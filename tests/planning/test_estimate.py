"""What a whole image needs, by hand."""

from __future__ import annotations

import pytest
from facts import facts

from medimg3d.data.datalist import Datalist
from medimg3d.planning.estimate import BASE_GB, inverted_image_gb, whole_image_gb
from medimg3d.planning.planner import draft_plan
from medimg3d.planning.settings import PlanSettings


@pytest.mark.parametrize(("mirrored", "volumes"), [(False, 2 * 8 + 1 + 1), (True, 3 * 8 + 1 + 1)])
def test_a_whole_image_needs_two_or_three_copies_of_all_classes(mirrored, volumes):
    needed = whole_image_gb(1_000_000, channels=1, num_classes=8, mirrored=mirrored)
    assert needed == pytest.approx(BASE_GB + volumes * 0.004)


def test_the_way_back_holds_all_classes_on_both_grids_and_three_places_a_voxel():
    needed = inverted_image_gb(8_000_000, 1_000_000, num_classes=2)
    assert needed == pytest.approx(BASE_GB + 8 * (0.024 + 2 * 0.012) + 2 * 0.012)


def planned(*, spacings, **settings):
    """Nine volumes of 40³ voxels and one of 200³."""
    data = facts(shapes=((40, 40, 40),) * 9 + ((200, 200, 200),), spacings_mm=spacings)
    return draft_plan(data, Datalist(), PlanSettings(**settings))


def test_only_cases_that_are_resampled_have_a_way_back():
    same = planned(spacings=((1.0, 1.0, 1.0),) * 10)
    assert same.largest_inverted_gb == same.largest_image_gb
    fine = planned(spacings=((1.0, 1.0, 1.0),) * 9 + ((0.2, 0.2, 0.2),))  # 200³ become 40³
    assert fine.largest_inverted_gb == pytest.approx(inverted_image_gb(200**3, 40**3, num_classes=2))
    assert fine.largest_image_gb < 0.6


def test_where_nothing_is_resampled_there_is_no_way_back():
    unknown = planned(spacings=(None,) * 10)
    assert unknown.spacing_mm is None
    assert unknown.largest_inverted_gb == unknown.largest_image_gb
