"""The loss for regions and ignored voxels, held against MONAI's and torch's where these apply."""

from __future__ import annotations

import pytest
import torch
from monai.losses import DiceCELoss, DiceLoss

from medimg3d.engines.scheme_loss import SchemeLoss


@pytest.fixture
def scores():
    return torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def label():
    return torch.randint(0, 3, (2, 1, 6, 6), generator=torch.Generator().manual_seed(1))


def test_without_regions_and_ignored_voxels_it_is_monais_dice_and_cross_entropy(scores, label):
    expected = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=True)(scores, label)
    assert float(SchemeLoss()(scores, label)) == pytest.approx(float(expected), abs=1e-6)


def test_what_is_predicted_on_ignored_voxels_changes_nothing(scores, label):
    label[:, :, :2] = 255
    other = scores.clone()
    other[:, :, :2] += 7 * torch.randn(2, 3, 2, 6, generator=torch.Generator().manual_seed(2))
    loss = SchemeLoss(ignore_label=255)
    assert float(loss(scores, label)) == pytest.approx(float(loss(other, label)), abs=1e-6)


def test_cutting_the_ignored_rows_away_gives_the_same(scores, label):
    label[:, :, :2] = 255
    whole = SchemeLoss(ignore_label=255)(scores, label)
    cut = SchemeLoss()(scores[:, :, 2:], label[:, :, 2:])
    assert float(whole) == pytest.approx(float(cut), abs=1e-5)


def test_regions_are_each_their_own_yes_or_no(scores, label):
    regions = [[1, 2], [2], [1]]
    target = torch.cat([torch.isin(label, torch.tensor(values)) for values in regions], dim=1).float()
    dice = DiceLoss(sigmoid=True, batch=True)(scores, target)
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(scores, target)
    assert float(SchemeLoss(regions)(scores, label)) == pytest.approx(float(dice + entropy), abs=1e-6)


def test_a_batch_without_a_labelled_voxel_has_a_finite_loss(scores, label):
    loss = SchemeLoss(ignore_label=255)(scores.requires_grad_(), torch.full_like(label, 255))
    assert torch.isfinite(loss)
