import pytest
import torch
from ignite.engine import Engine
from torch import nn

from medimg3d.engines.weight_averaging import AveragedWeights


def follow(values, momentum):
    """Train a single weight through the given values; its average after the last."""
    network = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(network.weight)
    averaged = AveragedWeights(network, momentum=momentum)

    def step(engine, value):
        network.weight.data.fill_(value)

    engine = Engine(step)
    averaged.attach(engine)
    engine.run(values, max_epochs=1)
    return averaged.model.weight.item()


def test_the_first_iteration_moves_nine_tenths_of_the_way():
    assert follow([1.0], momentum=0.01) == pytest.approx(0.9)  # 9 / (1 + 9)


def test_the_second_iteration_moves_nine_elevenths_of_the_rest():
    assert follow([1.0, 2.0], momentum=0.01) == pytest.approx(0.9 + (2 - 0.9) * 9 / 11)


def test_the_momentum_is_the_slowest_rate():
    assert follow([1.0, 3.0], momentum=1.0) == pytest.approx(3.0)


def test_the_average_is_not_trained():
    averaged = AveragedWeights(nn.Linear(2, 2))
    assert not any(parameter.requires_grad for parameter in averaged.model.parameters())


def test_momentum_of_zero_is_refused():
    with pytest.raises(ValueError, match=r"must be in \(0, 1\], got 0"):
        AveragedWeights(nn.Linear(1, 1), momentum=0)


def test_network_and_average_hold_different_tensors():
    network = nn.Linear(1, 1)
    averaged = AveragedWeights(network)
    network.weight.data.fill_(7)
    assert not torch.equal(averaged.model.weight, network.weight)
