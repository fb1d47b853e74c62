from __future__ import annotations

import numpy as np
import pytest
from monai.data import MetaTensor
from monai.transforms import Compose, CropForegroundd, Orientationd, Spacingd

from medimg3d.errors import GeometryError
from medimg3d.geometry.axis_map import AxisMap
from tests.phantoms import affine, oblique_affine, two_boxes


def test_half_the_spacing_is_twice_the_voxels():
    axis_map = AxisMap.between(affine((1, 1, 1)), (10, 10, 10), affine((2, 2, 4), (3, 0, -1)), (4, 4, 2))
    assert axis_map.model_axis == (0, 1, 2)
    assert axis_map.scale == pytest.approx((2, 2, 4))
    assert axis_map.offset == pytest.approx((3, 0, -1))
    np.testing.assert_allclose(axis_map.coordinates(0), [3, 5, 7, 9])


def test_exchanged_and_flipped_axes_are_followed():
    original = np.array([[0.0, -2, 0, 5], [0, 0, 1, 0], [3, 0, 0, 0], [0, 0, 0, 1]])
    axis_map = AxisMap.between(affine(), (8, 8, 8), original, (3, 4, 5))
    assert axis_map.model_axis == (2, 0, 1)
    assert axis_map.scale == (3.0, -2.0, 1.0)
    assert axis_map.offset == (0.0, 5.0, 0.0)


def test_two_dimensional_images_use_the_first_axes_of_a_larger_affine():
    axis_map = AxisMap.between(affine((2, 1, 9)), (5, 6), affine((1, 1, 9), (4, 0, 7)), (10, 6))
    assert axis_map.scale == (0.5, 1.0)
    assert axis_map.offset == (2.0, 0.0)


@pytest.mark.parametrize("degrees", [0.0, 17.0])
def test_a_map_agrees_with_the_affines_after_monai_turned_resampled_and_cropped(degrees):
    source = MetaTensor(
        two_boxes()[None], affine=oblique_affine((0.7, 1.3, 2.5), degrees=degrees)[:, [1, 2, 0, 3]]
    )
    steps = [
        Orientationd("image", axcodes="LPI", labels=None),
        Spacingd("image", pixdim=(1.1, 0.9, 1.7)),
        CropForegroundd("image", source_key="image"),
    ]
    model = Compose(steps)({"image": source})["image"]
    axis_map = AxisMap.between(model.affine, model.shape[1:], source.affine, source.shape[1:])
    for voxel in ([0, 0, 0], [15, 17, 13], [3, 11, 2]):
        world = source.affine.numpy() @ [*voxel, 1]
        expected = np.linalg.solve(model.affine.numpy(), world)[:3]
        found = np.empty(3)
        for axis, at in enumerate(voxel):
            found[axis_map.model_axis[axis]] = axis_map.coordinates(axis)[at]
        np.testing.assert_allclose(found, expected, atol=1e-9)


def test_the_same_grid_with_rounding_is_exact():
    noisy = oblique_affine((0.7, 0.8, 3)).astype(np.float32)
    axis_map = AxisMap.between(oblique_affine((0.7, 0.8, 3)), (512, 512, 100), noisy, (512, 512, 100))
    assert axis_map.scale == (1.0, 1.0, 1.0)
    assert axis_map.offset == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("degrees", [0.001, 30.0, 45.0])
def test_turned_axes_are_refused(degrees):
    with pytest.raises(
        GeometryError, match=r"turned or sheared against the image's \(by up to .* block by block"
    ):
        AxisMap.between(affine(), (64, 64, 64), oblique_affine(degrees=degrees), (64, 64, 64))


def test_sheared_axes_are_refused_unless_the_axis_has_one_voxel():
    sheared = affine()
    sheared[0, 2] = 0.01
    with pytest.raises(GeometryError, match=r"by up to 0\.035 voxels"):
        AxisMap.between(affine(), (8, 8, 8), sheared, (8, 8, 8))
    assert AxisMap.between(affine(), (8, 8, 1), sheared, (8, 8, 1)).model_axis == (0, 1, 2)
    allowed = AxisMap.between(affine(), (8, 8, 8), sheared, (8, 8, 8), tolerance_voxels=0.05)
    assert allowed.offset == pytest.approx((0.035, 0, 0))  # right in the middle of 0 to 0.07


@pytest.mark.parametrize(
    ("model", "model_shape", "message"),
    [
        (np.zeros((4, 4)), (8, 8, 8), "singular"),
        (affine(), (8, 8), "2 axes and the image's 3"),
        (np.eye(3), (8, 8, 8), r"shape \(3, 3\); expected \(4, 4\)"),
        (affine((np.nan, 1, 1)), (8, 8, 8), "not finite"),
    ],
)
def test_affines_that_cannot_be_used_are_refused(model, model_shape, message):
    with pytest.raises(GeometryError, match=message):
        AxisMap.between(model, model_shape, affine(), (8, 8, 8))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_axis": (0, 0)}, "each of 2 axes once"),
        ({"scale": (1.0,)}, "must have 2 numbers"),
        ({"scale": (1.0, 0.0)}, "must not be 0"),
    ],
)
def test_a_map_checks_itself(change, message):
    good = {"model_axis": (0, 1), "scale": (1.0, 1.0), "offset": (0.0, 0.0), "model_shape": (2, 2)}
    with pytest.raises(ValueError, match=message):
        AxisMap(**(good | change), original_shape=(2, 2))
