import numpy as np
import pytest
from phantoms import affine, oblique_affine

from medimg3d.data.box import Box, box_around, paste
from medimg3d.errors import GeometryError


def test_a_box_of_4_mm_around_20_mm_at_2_mm_spacing_holds_voxels_9_and_10_or_10_and_11():
    box = box_around((20, 20, 20), (4, 4, 4), shape=(30, 30, 30), affine=affine((2.0, 2.0, 2.0)))
    assert box.shape == (2, 2, 2)
    assert box.start_ijk in ((9, 9, 9), (10, 10, 10))


def test_an_odd_box_has_its_place_in_the_middle_voxel():
    box = box_around((1, 2, 3), (3, 5, 7), shape=(20, 20, 20), affine=affine(origin_mm=(-6.0, -6.0, -6.0)))
    assert box == Box((6, 6, 6), (3, 5, 7))  # place at voxel (7, 8, 9)


def test_the_affine_of_a_box_puts_its_voxels_where_they_were():
    whole = oblique_affine((1.0, 2.0, 3.0))
    box = Box((3, 4, 5), (6, 6, 6))
    np.testing.assert_allclose(box.affine(whole) @ [1, 1, 1, 1], whole @ [4, 5, 6, 1], atol=1e-9)


def test_a_box_that_reaches_out_of_the_image_is_refused():
    with pytest.raises(GeometryError, match="reaches out"):
        box_around((1, 10, 10), (6, 6, 6), shape=(20, 20, 20), affine=affine())


def test_pasted_labels_leave_the_rest_as_it_is():
    whole = np.zeros((4, 4, 4), np.uint8)
    whole[1, 1, 1] = 9
    labels = np.zeros((2, 2, 2), np.uint8)
    labels[1, 1, 1] = 2
    paste(labels, Box((1, 1, 1), (2, 2, 2)), whole)
    assert whole[1, 1, 1] == 9
    assert whole[2, 2, 2] == 2
    assert np.count_nonzero(whole) == 2


def test_a_box_without_voxels_is_refused():
    with pytest.raises(ValueError, match="expected ≥ 0"):
        Box((0, 0, 0), (0, 1, 1))
