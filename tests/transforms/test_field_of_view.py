"""The scale of images of unknown voxel size: what is resampled, where it lies, and the way back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd

from medimg3d.inference.recorded_grid import RecordedGrid
from medimg3d.transforms.field_of_view import CommonFieldOfViewd

AFFINE = np.diag([3.0, -3.0, 10.0, 1.0])


def image_of(values):
    array = torch.as_tensor(values, dtype=torch.float32)[None]
    meta = {"original_affine": AFFINE.copy(), "spatial_shape": np.array(array.shape[1:])}
    return MetaTensor(array, affine=torch.as_tensor(AFFINE), meta=meta)


def test_an_image_of_twice_the_edge_becomes_means_of_four_voxels_and_stays_in_its_place():
    values = np.random.default_rng(0).normal(size=(40, 32, 3)).astype(np.float32)
    out = CommonFieldOfViewd("image", edge=20, axes=[0, 1])({"image": image_of(values)})["image"]
    means = values.reshape(20, 2, 16, 2, 3).mean((1, 3))
    np.testing.assert_allclose(out[0].numpy(), means, atol=1e-5)
    corners = np.array([[-0.5, -0.5, 0, 1], [39.5, 31.5, 2, 1]])
    small = np.array([[-0.5, -0.5, 0, 1], [19.5, 15.5, 2, 1]])
    np.testing.assert_allclose(small @ out.affine.numpy().T, corners @ AFFINE.T, atol=1e-6)


@pytest.mark.parametrize("shape", [(29, 29, 3), (14, 10, 3), (20, 5, 60)])
def test_images_near_the_edge_are_left_as_they_are(shape):
    values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    out = CommonFieldOfViewd("image", edge=20, axes=[0, 1])({"image": image_of(values)})["image"]
    np.testing.assert_array_equal(out[0].numpy(), values)
    np.testing.assert_array_equal(out.affine.numpy(), AFFINE)


@pytest.mark.parametrize("shape", [(40, 32, 3), (10, 8, 3), (20, 16, 3)])
def test_predictions_come_back_onto_the_voxels_of_the_file(shape):
    label = np.zeros(shape, dtype=np.float32)
    label[shape[0] // 4 : shape[0] // 2, shape[1] // 4 : shape[1] // 2] = 1
    steps = Compose(
        [CommonFieldOfViewd(["image", "label"], edge=20, axes=[0, 1], mode=["bilinear", "nearest"])]
    )
    item = steps({"image": image_of(label), "label": image_of(label)})
    assert max(item["label"].shape[1:3]) == 20
    assert set(item["label"].unique().tolist()) == {0, 1}
    back = Invertd("label", steps, orig_keys="image", nearest_interp=True)(item)["label"]
    assert back.shape[1:] == shape
    np.testing.assert_allclose(back.affine.numpy(), AFFINE, atol=1e-6)
    overlap = 2 * (back[0].numpy() * label).sum() / (back.sum() + label.sum())
    assert overlap > 0.85


def test_the_streamed_prediction_knows_the_original_grid():
    steps = CommonFieldOfViewd("image", edge=20, axes=[0, 1])
    item = steps({"image": image_of(np.zeros((40, 32, 3)))})
    grid = RecordedGrid.of(item["image"])
    assert grid.axis_map.original_shape == (40, 32, 3)
    assert grid.axis_map.model_shape == (20, 16, 3)
    assert grid.axis_map.scale == pytest.approx((0.5, 0.5, 1.0))


@pytest.mark.parametrize("wrong", [{"edge": 0}, {"axes": []}, {"axes": [-1]}, {"tolerance": 1.0}])
def test_arguments_that_cannot_be_are_refused(wrong):
    with pytest.raises(ValueError, match="expected an edge above 0"):
        CommonFieldOfViewd("image", **({"edge": 20, "axes": [0, 1]} | wrong))
