from __future__ import annotations

import hashlib

import pytest
import torch
from torch import nn

from medimg3d.networks.transfer import load_matching, start_from


class Small(nn.Module):
    def __init__(self, colours: int = 1, classes: int = 2) -> None:
        super().__init__()
        self.first = nn.Conv2d(colours, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, classes)

    def forward(self, x):
        return self.head(self.norm(self.first(x)).mean((2, 3)))


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(1)
    path = tmp_path / "source.pt"
    torch.save(Small(classes=5).state_dict(), path)
    return path


def test_scratch_leaves_the_network_as_it_is():
    network = Small()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    assert start_from(network) is network
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())


def test_features_are_taken_over_and_the_head_is_not(weights):
    torch.manual_seed(2)
    network = Small()
    head = network.head.weight.clone()
    start_from(network, mode="finetune", weights=str(weights), head="head")
    source = torch.load(weights, weights_only=True)
    assert torch.equal(network.first.weight, source["first.weight"])
    assert torch.equal(network.head.weight, head)
    assert all(p.requires_grad for p in network.parameters())


def test_frozen_features_stay_the_same_through_a_training_step(weights):
    network = start_from(Small(), mode="frozen", weights=str(weights), head="head")
    network.train()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=1.0)
    network(torch.randn(8, 1, 6, 6)).square().sum().backward()
    optimizer.step()
    changed = {k for k, v in network.state_dict().items() if not torch.equal(before[k], v)}
    assert changed == {"head.weight", "head.bias"}


def test_colour_weights_give_a_grey_picture_what_it_got_as_colour():
    torch.manual_seed(3)
    colour, grey = Small(colours=3), Small()
    share = load_matching(grey, {f"module.{k}": v for k, v in colour.state_dict().items()}, head="head")
    picture = torch.randn(1, 1, 6, 6)
    torch.testing.assert_close(grey.first(picture), colour.first(picture.expand(-1, 3, -1, -1)))
    assert share == 1.0


def test_weights_of_another_network_are_refused():
    with pytest.raises(ValueError, match="fit 0% of the network"):
        load_matching(Small(), {"layer.weight": torch.zeros(3)}, head="head")


def test_a_wrong_hash_is_refused_and_the_right_one_is_not(weights):
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    start_from(Small(), mode="finetune", weights=str(weights), sha256=digest, head="head")
    with pytest.raises(ValueError, match=r"has the sha256 .*; expected 00"):
        start_from(Small(), mode="finetune", weights=str(weights), sha256="00", head="head")


def test_an_address_needs_its_hash():
    with pytest.raises(ValueError, match="nothing is downloaded without its hash"):
        start_from(Small(), mode="finetune", weights="https://example.org/w.pt", head="head")


def test_a_package_can_carry_the_weights(weights, monkeypatch):
    import sys
    import types

    package = types.ModuleType("carrier")
    package.Weights = types.SimpleNamespace(path=lambda: str(weights))
    monkeypatch.setitem(sys.modules, "carrier", package)
    network = start_from(Small(), mode="finetune", weights="carrier:Weights.path", head="head")
    assert torch.equal(network.first.weight, torch.load(weights, weights_only=True)["first.weight"])


@pytest.mark.parametrize(("mode", "given"), [("scratch", "w.pt"), ("frozen", None), ("both", None)])
def test_mode_and_weights_must_agree(mode, given):
    with pytest.raises(ValueError, match=r"transfer (is|must be)"):
        start_from(Small(), mode=mode, weights=given)


def test_a_head_that_does_not_exist_is_named(weights):
    with pytest.raises(ValueError, match="no layer 'top'"):
        start_from(Small(), mode="frozen", weights=str(weights).replace("source", "source"), head="top")
