from __future__ import annotations

from itertools import permutations, product

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd, Orientation, Orientationd, Spacing

from medimg3d.transforms.in_place_orientation import InPlaceOrientation, InPlaceOrientationd, flip_in_place
from medimg3d.transforms.separable_spacing import SeparableSpacing
from tests.phantoms import affine, oblique_affine

TURNS = [
    np.eye(3)[list(order)] * np.array(signs)
    for order in permutations(range(3))
    for signs in product((1, -1), repeat=3)
]


def image_of(turn, matrix, kind=np.int16, channels=2) -> MetaTensor:
    values = np.random.default_rng(0).integers(0, 200, (channels, 5, 6, 7)).astype(kind)
    whole = np.eye(4)
    whole[:3, :3] = turn
    return MetaTensor(values, affine=matrix @ whole)


def assert_same(found: MetaTensor, expected: MetaTensor) -> None:
    assert isinstance(found, MetaTensor)
    assert found.dtype == expected.dtype
    assert torch.equal(found.as_tensor(), expected.as_tensor())
    assert torch.equal(found.affine, expected.affine)
    (one,), (other,) = found.applied_operations, expected.applied_operations
    assert one["orig_size"] == other["orig_size"]
    np.testing.assert_array_equal(
        one["extra_info"]["original_affine"], other["extra_info"]["original_affine"]
    )


@pytest.mark.parametrize("matrix", [affine((0.7, 0.9, 2.0)), oblique_affine((1.1, 0.7, 2.2))])
@pytest.mark.parametrize("turn", TURNS, ids=range(48))
def test_each_of_the_48_orientations_is_turned_as_by_monai(turn, matrix):
    image = image_of(turn, matrix)
    expected = Orientation("RAS", labels=None)(image.clone())
    memory = image.as_tensor().untyped_storage().data_ptr()
    found = InPlaceOrientation("RAS", labels=None)(image)
    assert_same(found, expected)
    assert found.as_tensor().untyped_storage().data_ptr() == memory


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.float32, np.float64])
@pytest.mark.parametrize("code", ["LPS", "ASR"])
def test_any_type_and_any_target_is_turned_as_by_monai(kind, code):
    image = image_of(np.eye(3), oblique_affine((1.0, 2.0, 3.0)), kind)
    expected = Orientation(code, labels=None)(image.clone())
    assert_same(InPlaceOrientation(code, labels=None)(image), expected)


def test_a_2d_image_is_turned_as_by_monai():
    image = MetaTensor(np.arange(42.0).reshape(1, 6, 7), affine=affine((-2.0, 3.0, 1.0)))
    expected = Orientation("RA", labels=None)(image.clone())
    assert_same(InPlaceOrientation("RA", labels=None)(image), expected)


@pytest.mark.parametrize("turn", TURNS[::5])
@pytest.mark.parametrize("kind", [np.uint8, np.int16])
def test_whole_numbers_turned_and_resampled_are_those_of_float32(turn, kind):
    image = image_of(turn, affine((0.7, 0.9, 2.0)), kind)
    expected = Spacing(1.3)(Orientation("RAS", labels=None)(image.clone().to(torch.float32)))
    found = SeparableSpacing(1.3)(InPlaceOrientation("RAS", labels=None)(image))
    assert found.dtype == torch.float32
    assert torch.equal(found.affine, expected.affine)
    np.testing.assert_allclose(found.numpy(), expected.numpy(), atol=2e-4)  # 1e-6 of the range


@pytest.mark.parametrize("turn", TURNS[::7])
def test_a_prediction_is_turned_back_as_by_monai(turn):
    def there_and_back(kind):
        steps = Compose([kind("image", axcodes="RAS", labels=None)])
        item = steps({"image": image_of(turn, affine((0.7, 0.9, 2.0)))})
        item["pred"] = item["image"] * 2
        return Invertd("pred", transform=steps, orig_keys="image")(item)["pred"]

    found, expected = there_and_back(InPlaceOrientationd), there_and_back(Orientationd)
    assert torch.equal(found.as_tensor(), expected.as_tensor())
    np.testing.assert_allclose(found.affine, expected.affine)


def test_a_lazy_call_is_monais_and_leaves_the_image_alone():
    image = image_of(-np.eye(3), affine())
    before = image.as_tensor().clone()
    found = InPlaceOrientation("RAS", labels=None, lazy=True)(image)
    assert len(found.pending_operations) == 1
    assert torch.equal(image.as_tensor(), before)


@pytest.mark.parametrize("dims", [(0,), (1,), (2,), (0, 1), (1, 2), (0, 1, 2), ()])
@pytest.mark.parametrize("size", [1, 2, 5, 130])
def test_a_flip_in_slabs_is_torchs(dims, size, monkeypatch):
    monkeypatch.setattr("medimg3d.transforms.in_place_orientation.SLAB_VOXELS", 40)
    values = torch.arange(size * 3 * 4).reshape(size, 3, 4)
    expected = torch.flip(values, dims)
    flip_in_place(values, dims)
    assert torch.equal(values, expected)


def test_the_axes_are_named_as_nibabel_names_them():
    found = InPlaceOrientation("PIR", labels=None)(image_of(np.eye(3), affine((1.0, 2.0, 3.0))))
    assert nibabel.aff2axcodes(found.affine.numpy()) == ("P", "I", "R")
