from __future__ import annotations

import pytest
import torch
from monai.losses import ContrastiveLoss
from monai.networks.nets import DenseNet
from torch import nn

from medimg3d.networks.contrastive import ContrastiveNetwork, ViewsLoss
from medimg3d.networks.transfer import start_from


def _densenet(classes: int = 2) -> DenseNet:
    torch.manual_seed(0)
    return DenseNet(2, 1, classes, init_features=8, growth_rate=4, block_config=(1, 1))


def test_each_view_is_projected_by_itself():
    network = ContrastiveNetwork(_densenet(), width=5).eval()
    views = torch.randn(3, 2, 1, 32, 32)
    projected = network(views)
    assert projected.shape == (3, 2, 5)
    torch.testing.assert_close(projected[:, 1], network(views[:, 1])[:, 0])


def test_the_loss_is_that_of_monai_on_the_two_views():
    views = torch.randn(4, 2, 6)
    loss = ContrastiveLoss(temperature=0.1)
    torch.testing.assert_close(ViewsLoss(loss)(views, None), loss(views[:, 0], views[:, 1]))


def test_equal_views_of_distinct_images_cost_less_than_mixed_up_ones():
    vectors = torch.eye(4)
    loss = ViewsLoss(ContrastiveLoss(temperature=0.1))
    matched = loss(torch.stack([vectors, vectors], dim=1))
    mixed = loss(torch.stack([vectors, vectors.roll(1, 0)], dim=1))
    assert float(matched) < float(mixed)


def test_pretrained_features_reach_the_classifier(tmp_path):
    pretrained = ContrastiveNetwork(_densenet(), width=5)
    with torch.no_grad():
        for parameter in pretrained.parameters():
            parameter.add_(1.0)
    torch.save({"model": pretrained.state_dict()}, tmp_path / "model.pt")
    network = start_from(_densenet(), mode="finetune", weights=str(tmp_path / "model.pt"))
    torch.testing.assert_close(network.features.conv0.weight, pretrained.backbone.features.conv0.weight)


def test_a_head_that_is_no_linear_layer_is_refused():
    with pytest.raises(ValueError, match="'features' is Sequential; expected Linear"):
        ContrastiveNetwork(_densenet(), head="features")
    with pytest.raises(ValueError, match="'top' is NoneType"):
        ContrastiveNetwork(nn.Sequential(nn.Linear(2, 2)), head="top")
