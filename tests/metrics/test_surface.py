import numpy as np
import pytest
import torch
from monai.metrics import HausdorffDistanceMetric, SurfaceDiceMetric
from scipy.ndimage import binary_erosion, distance_transform_edt, gaussian_filter
from scipy.spatial.distance import cdist

from medimg3d.metrics.surface import _neighbour_codes, hausdorff, surface_dice, surface_distances

EMPTY = np.zeros((8, 8, 8), bool)
ANISOTROPIC = (0.7, 1.3, 3.0)


def voxel(*index: int, shape=(12, 9, 9)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[index] = True
    return mask


def box(first: int, last: int) -> np.ndarray:
    mask = np.zeros((20, 12, 12), bool)
    mask[first:last, 3:9, 3:9] = True
    return mask


def blobs(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two ragged, partly overlapping shapes that also touch the border of the image."""
    rng = np.random.default_rng(seed)
    field = gaussian_filter(rng.normal(size=(24, 22, 16)), 3)
    return field > 0.05, field + 0.4 * gaussian_filter(rng.normal(size=field.shape), 3) > 0.05


def tensor(mask: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(mask)[None, None].float()


def test_voxels_3_apart_at_2_mm_spacing_are_6_mm_apart():
    first, second = voxel(2, 4, 4), voxel(5, 4, 4)
    assert hausdorff(first, second, spacing_mm=(2, 1, 1)) == 6
    assert hausdorff(first, second, spacing_mm=(2, 1, 1), percentile=100) == 6


def test_half_of_each_single_voxels_surface_is_one_voxel_nearer():
    # Voxels 2 and 5: corners at 1.5, 2.5 and 4.5, 5.5. Near corners are 2 apart, far ones 3: 4 and 6 mm.
    first, second = voxel(2, 4, 4), voxel(5, 4, 4)
    assert hausdorff(first, second, spacing_mm=(2, 1, 1), percentile=50) == 4
    assert surface_dice(first, second, spacing_mm=(2, 1, 1), tolerance_mm=4) == pytest.approx(0.5)
    assert surface_dice(first, second, spacing_mm=(2, 1, 1), tolerance_mm=3.9) == 0


def test_a_box_longer_by_4_slices_of_half_a_mm_is_2_mm_away():
    assert hausdorff(box(4, 10), box(4, 14), spacing_mm=(0.5, 1, 1), percentile=100) == 2


def test_a_distance_equal_to_the_tolerance_on_paper_is_within_it():
    # 10 x 0.7 - 7 x 0.7 is 2.1000000000000005 in floating point.
    assert surface_dice(box(4, 11), box(7, 14), spacing_mm=(0.7, 1, 1), tolerance_mm=2.1) == pytest.approx(1)


def test_equal_masks_are_0_mm_apart():
    assert hausdorff(box(4, 10), box(4, 10), spacing_mm=ANISOTROPIC) == 0
    assert surface_dice(box(4, 10), box(4, 10), spacing_mm=ANISOTROPIC, tolerance_mm=0) == 1


def test_squares_3_pixels_apart_in_2d():
    first, second = voxel(2, 4, shape=(12, 9)), voxel(5, 4, shape=(12, 9))
    assert hausdorff(first, second, spacing_mm=(2, 1)) == 6


def test_one_empty_mask_is_inf_and_0_and_two_are_nan():
    mask = voxel(3, 3, 3, shape=EMPTY.shape)
    for pred, truth in ((mask, EMPTY), (EMPTY, mask)):
        assert hausdorff(pred, truth, spacing_mm=(1, 1, 1)) == float("inf")
        assert surface_dice(pred, truth, spacing_mm=(1, 1, 1), tolerance_mm=1) == 0
    assert np.isnan(hausdorff(EMPTY, EMPTY, spacing_mm=(1, 1, 1)))
    assert np.isnan(surface_dice(EMPTY, EMPTY, spacing_mm=(1, 1, 1), tolerance_mm=1))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), ANISOTROPIC])
def test_surface_dice_agrees_with_monai(seed, spacing):
    pred, truth = blobs(seed)
    metric = SurfaceDiceMetric(class_thresholds=[1.11], include_background=True, use_subvoxels=True)
    expected = metric(tensor(pred), tensor(truth), spacing=list(spacing)).item()
    assert surface_dice(pred, truth, spacing_mm=spacing, tolerance_mm=1.11) == pytest.approx(
        expected, abs=1e-6
    )


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("percentile", [50, 95, 100])
def test_hausdorff_agrees_with_every_pair_of_elements_compared(seed, percentile):
    """Independent of the tree and of the box: scipy's full distance matrix, weighted as in the reference."""
    pred, truth = blobs(seed)
    expected = []
    (pred_points, pred_areas), (truth_points, truth_areas) = map(elements_by_monai, (pred, truth))
    matrix = cdist(pred_points, truth_points)
    for distances, area in ((matrix.min(axis=1), pred_areas), (matrix.min(axis=0), truth_areas)):
        order = np.argsort(distances)
        share = np.cumsum(area[order]) / area.sum()
        expected.append(distances[order][min(np.searchsorted(share, percentile / 100), len(order) - 1)])
    assert hausdorff(pred, truth, spacing_mm=ANISOTROPIC, percentile=percentile) == pytest.approx(
        max(expected)
    )


def elements_by_monai(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    from monai.metrics.utils import get_mask_edges

    padded = torch.from_numpy(np.pad(mask, 1))
    edges, _, areas, _ = get_mask_edges(padded, padded, crop=False, spacing=ANISOTROPIC)
    return np.argwhere(edges.numpy()) * np.array(ANISOTROPIC), areas.numpy()[edges.numpy()]


@pytest.mark.parametrize("seed", range(3))
def test_hausdorff_is_within_a_voxel_of_monais_which_counts_edge_voxels(seed):
    pred, truth = blobs(seed)
    diagonal = np.linalg.norm(ANISOTROPIC)
    metric = HausdorffDistanceMetric(include_background=True)
    expected = metric(tensor(pred), tensor(truth), spacing=list(ANISOTROPIC)).item()
    assert hausdorff(pred, truth, spacing_mm=ANISOTROPIC, percentile=100) == pytest.approx(
        expected, abs=diagonal
    )


def test_hausdorff_equals_monais_and_scipys_where_a_box_is_shifted_along_an_axis():
    pred, truth, spacing = box(4, 10), box(7, 13), (2.0, 1.0, 0.5)
    metric = HausdorffDistanceMetric(include_background=True)
    assert hausdorff(pred, truth, spacing_mm=spacing, percentile=100) == pytest.approx(
        metric(tensor(pred), tensor(truth), spacing=list(spacing)).item()
    )
    edge = truth & ~binary_erosion(truth)
    by_map = distance_transform_edt(~edge, sampling=spacing)[pred & ~binary_erosion(pred)].max()
    assert hausdorff(pred, truth, spacing_mm=spacing, percentile=100) == by_map == 6


def test_neighbour_codes_are_the_convolution_with_monais_kernel():
    from monai.metrics.utils import ENCODING_KERNEL

    mask = np.random.default_rng(0).random((5, 6, 7)) > 0.5
    kernel = torch.tensor(ENCODING_KERNEL[3])[None, None].float()
    expected = torch.nn.functional.conv3d(tensor(np.pad(mask, 1)), kernel)[0, 0]
    assert np.array_equal(_neighbour_codes(mask), expected.numpy())


def test_a_cube_of_10_mm_has_a_surface_of_about_600_mm2():
    cube = np.zeros((14, 14, 14), bool)
    cube[2:12, 2:12, 2:12] = True
    area = surface_distances(cube, cube, spacing_mm=(1, 1, 1)).pred_areas_mm2.sum()
    assert 500 < area < 600  # the dual grid rounds the edges and corners off


def test_the_box_around_the_masks_changes_nothing():
    pred, truth = blobs(1)
    wide = [np.pad(mask, 9) for mask in (pred, truth)]
    assert hausdorff(*wide, spacing_mm=ANISOTROPIC) == pytest.approx(
        hausdorff(pred, truth, spacing_mm=ANISOTROPIC)
    )


def test_settings_out_of_range_are_refused():
    mask = box(4, 10)
    with pytest.raises(ValueError, match=r"percentile must be in \(0, 100\], got 0"):
        hausdorff(mask, mask, spacing_mm=(1, 1, 1), percentile=0)
    with pytest.raises(ValueError, match="tolerance_mm must be at least 0, got -1"):
        surface_dice(mask, mask, spacing_mm=(1, 1, 1), tolerance_mm=-1)
    with pytest.raises(ValueError, match="Found masks with 1 axes; expected 2 or 3"):
        hausdorff(np.ones(3), np.ones(3), spacing_mm=(1,))
    with pytest.raises(ValueError, match="expected one grid"):
        hausdorff(mask, mask[1:], spacing_mm=(1, 1, 1))
