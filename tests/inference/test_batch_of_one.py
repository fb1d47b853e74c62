"""A batch of one case is held against MONAI's collation, but for the memory that it shares."""

from __future__ import annotations

import numpy as np
import torch
from monai.data import MetaTensor, decollate_batch, list_data_collate
from monai.transforms import Compose, Flip, Spacing

from medimg3d.inference.batch_of_one import batch_of_one, batch_of_one_item
from tests.phantoms import oblique_affine


def image() -> MetaTensor:
    values = np.random.default_rng(0).normal(size=(2, 5, 6, 7)).astype(np.float32)
    whole = MetaTensor(values, affine=oblique_affine((1.0, 2.0, 3.0)), meta={"filename_or_obj": "a.nii"})
    return Compose([Spacing(1.5), Flip(0)])(whole)


def assert_same(found: MetaTensor, expected: MetaTensor) -> None:
    assert torch.equal(found.as_tensor(), expected.as_tensor())
    assert found.is_batch == expected.is_batch
    assert set(found.meta) == set(expected.meta)
    assert torch.equal(found.affine, expected.affine)
    assert str(found.applied_operations) == str(expected.applied_operations)


def test_one_image_is_collated_as_by_monai_and_shares_its_memory():
    one = image()
    found = batch_of_one(one)
    assert_same(found, list_data_collate([one]))
    assert found.as_tensor().data_ptr() == one.as_tensor().data_ptr()


def test_a_case_is_collated_as_by_monai():
    case = {"image": image(), "name": "case 1", "number": 3, "pair": torch.arange(2)}
    found, expected = batch_of_one_item(case), list_data_collate([case])
    assert list(found) == list(expected)
    assert_same(found["image"], expected["image"])
    assert found["name"] == expected["name"]
    assert torch.equal(found["number"], expected["number"])
    assert torch.equal(found["pair"], expected["pair"])


def test_decollation_gives_the_image_back():
    one = image()
    back = decollate_batch(batch_of_one(one))[0]
    assert torch.equal(back.as_tensor(), one.as_tensor())
    assert torch.equal(back.affine, one.affine)
    assert not back.is_batch
    assert str(back.applied_operations) == str(one.applied_operations)
