import numpy as np
import pytest

from medimg3d.metrics.volume import relative_volume_difference, volume_difference_ml, volume_ml


def box(voxels: int) -> np.ndarray:
    mask = np.zeros((10, 10, 10), bool)
    mask.ravel()[:voxels] = True
    return mask


def test_a_thousand_voxels_of_1_mm_are_1_ml():
    assert volume_ml(box(1000), spacing_mm=(1, 1, 1)) == 1


def test_anisotropic_voxels_count_for_their_size():
    assert volume_ml(box(100), spacing_mm=(0.5, 0.5, 4)) == pytest.approx(0.1)


def test_difference_is_negative_where_the_prediction_is_too_small():
    assert volume_difference_ml(box(300), box(500), spacing_mm=(1, 1, 1)) == pytest.approx(-0.2)
    assert relative_volume_difference(box(300), box(500)) == pytest.approx(-0.4)


def test_empty_masks():
    assert volume_ml(box(0), spacing_mm=(1, 1, 1)) == 0
    assert relative_volume_difference(box(0), box(5)) == -1
    assert relative_volume_difference(box(5), box(0)) == float("inf")
    assert np.isnan(relative_volume_difference(box(0), box(0)))
    assert volume_difference_ml(box(0), box(0), spacing_mm=(1, 1, 1)) == 0


@pytest.mark.parametrize("spacing", [(1, 1), (1, 1, 0), (1, 1, float("nan")), (1, -1, 1)])
def test_a_voxel_size_that_is_not_three_positive_numbers_is_refused(spacing):
    with pytest.raises(ValueError, match="spacing_mm must be 3 positive numbers"):
        volume_ml(box(1), spacing_mm=spacing)


def test_a_flat_mask_has_no_volume():
    with pytest.raises(ValueError, match="2 axes; a volume needs three"):
        volume_ml(np.ones((3, 3)), spacing_mm=(1, 1, 1))
