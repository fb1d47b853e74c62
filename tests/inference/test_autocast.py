import pytest
import torch
from torch import nn

from medimg3d.inference.autocast import AutocastInferer


def network():
    torch.manual_seed(0)
    return nn.Conv3d(1, 4, 3, padding=1)


def test_float32_gives_the_networks_own_output():
    images, net = torch.randn(1, 1, 4, 4, 4), network()
    assert torch.equal(AutocastInferer()(images, net), net(images))


def test_bfloat16_runs_on_the_cpu_and_comes_back_as_float32():
    images, net = torch.randn(1, 1, 4, 4, 4), network()
    seen = []
    net.register_forward_hook(lambda module, given, output: seen.append(output.dtype))
    output = AutocastInferer("bfloat16")(images, net)
    assert seen == [torch.bfloat16]
    assert output.dtype == torch.float32
    assert torch.allclose(output, net(images), atol=0.05)


def test_channels_last_keeps_the_keys_and_the_result():
    images, net = torch.randn(1, 1, 4, 4, 4), network()
    expected, keys = net(images), list(net.state_dict())
    assert torch.allclose(AutocastInferer(channels_last=True)(images, net), expected, atol=1e-6)
    assert list(net.state_dict()) == keys
    assert net.weight.is_contiguous(memory_format=torch.channels_last_3d)


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match="precision must be one of float32, bfloat16, got 'half'"):
        AutocastInferer("half")
