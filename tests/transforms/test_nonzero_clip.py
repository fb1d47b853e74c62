"""Clipping at percentiles of the values other than 0."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import ClipIntensityPercentiles, NormalizeIntensityd, Orientationd

from medimg3d.bundle.carried_code import needed_files
from medimg3d.transforms.nonzero_clip import ClipNonzeroPercentiles, ClipNonzeroPercentilesd
from tests.phantoms import affine

COUNTED = torch.arange(1.0, 202.0)
"""1 to 201: the 0.5 and 99.5 percentiles are the values one from either end, 2 and 200."""


def shuffled(values, seed: int = 0):
    order = np.random.default_rng(seed).permutation(len(values))
    return values[torch.as_tensor(order)]


def mostly_black():
    """One channel of 201 values among 1139 zeros (85 %), shape (1, 67, 20)."""
    return shuffled(torch.cat([COUNTED, torch.zeros(1139)])).reshape(1, 67, 20)


def test_percentiles_are_those_of_the_values_other_than_0():
    image = mostly_black()
    result = ClipNonzeroPercentiles(0.5, 99.5)(image).as_tensor()
    assert torch.equal(result, torch.where(image == 0, image, image.clamp(2, 200)))
    assert (result == 0).sum() == 1139


def test_an_image_without_zeros_is_clipped_as_monai_does_it():
    image = shuffled(COUNTED).reshape(1, 3, 67)
    result, expected = (clip(0.5, 99.5)(image) for clip in (ClipNonzeroPercentiles, ClipIntensityPercentiles))
    np.testing.assert_allclose(result.numpy(), expected.numpy(), rtol=1e-5)


def test_each_channel_has_its_own_bounds_and_one_of_zeros_stays():
    image = torch.stack([shuffled(COUNTED), -10 * COUNTED, torch.zeros(201)])
    result = ClipNonzeroPercentiles(0.5, 99.5)(image).as_tensor()
    assert (result[0].min(), result[0].max()) == (2, 200)
    assert (result[1].min(), result[1].max()) == (-2000, -20)
    assert not result[2].any()


def test_between_minus_1_and_1_no_value_becomes_0():
    image = torch.tensor([[-1.0, 0.0, 1.0]])  # the median of -1 and 1 would be 0
    for lower, upper in ((50, 100), (0, 50)):
        assert ClipNonzeroPercentiles(lower, upper)(image).count_nonzero() == 2


def test_the_z_score_counts_the_same_voxels_after_clipping():
    item = ClipNonzeroPercentilesd("image", 0.5, 99.5)({"image": mostly_black()})
    result = NormalizeIntensityd("image", nonzero=True)(item)["image"].as_tensor()
    tissue = result[mostly_black() != 0]
    assert (result == 0)[mostly_black() == 0].all()
    assert float(tissue.mean()) == pytest.approx(0, abs=1e-5)
    assert float(tissue.std(correction=0)) == pytest.approx(1, abs=1e-5)
    # 1 and 2 become one value, 200 and 201 another
    assert len(tissue.unique()) == 199


def test_metadata_and_earlier_transforms_stay_and_the_input_is_not_changed():
    image = MetaTensor(mostly_black()[..., None], affine=affine())
    item = Orientationd("image", axcodes="RAS", labels=None)({"image": image})
    before = item["image"].clone()
    result = ClipNonzeroPercentilesd("image", 0.5, 99.5)(item)["image"]
    assert isinstance(result, MetaTensor)
    assert torch.equal(result.affine, before.affine)
    assert [one["class"] for one in result.applied_operations] == ["Orientation"]
    assert torch.equal(item["image"].as_tensor(), before.as_tensor())


def test_whole_numbers_become_float32():
    result = ClipNonzeroPercentiles(0, 100)(torch.tensor([[0, 3, 5]], dtype=torch.int16))
    assert result.dtype == torch.float32
    assert result.tolist() == [[0.0, 3.0, 5.0]]


@pytest.mark.parametrize(("lower", "upper"), [(-1, 50), (60, 50), (0, 101)])
def test_percentiles_out_of_range_or_order_are_refused(lower, upper):
    with pytest.raises(ValueError, match=r"must be ascending in \[0, 100\]"):
        ClipNonzeroPercentiles(lower, upper)


def test_a_bundle_whose_configs_name_it_carries_it(tmp_path):
    (tmp_path / "head" / "configs").mkdir(parents=True)
    block = {"_target_": "medimg3d_head.nonzero_clip.ClipNonzeroPercentilesd", "keys": "image"}
    (tmp_path / "head" / "configs" / "train.json").write_text(json.dumps({"preprocessing": block}))
    assert needed_files(tmp_path / "head") == ["nonzero_clip.py"]
