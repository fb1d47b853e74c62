import pytest
import torch
from corner_network import CornerNetwork
from monai.networks.nets import DenseNet, resnet18
from torch import nn

from medimg3d.errors import BundleError, UsageError
from medimg3d.explain.layers import find_target_layer, spatial_layers


def dense_net(spatial_dims: int) -> DenseNet:
    return DenseNet(spatial_dims, 1, 2, init_features=4, growth_rate=2, block_config=(2, 2))


@pytest.mark.parametrize("shape", [(32, 24), (32, 24, 16)])
def test_of_a_densenet_it_is_the_last_feature_block_after_its_relu(shape):
    image = torch.zeros(1, 1, *shape)
    network = dense_net(len(shape))
    assert find_target_layer(network, image) == "class_layers.relu"
    assert spatial_layers(network, image)["class_layers.relu"] == (1, 8, *(size // 8 for size in shape))


def test_a_layer_that_has_shrunk_to_one_point_is_passed_over():
    """8 x 8 pixels: 4 after the first layer, 2 after the pooling, 1 after the transition's pooling."""
    layers = spatial_layers(dense_net(2), torch.zeros(1, 1, 8, 8))
    assert list(layers)[-1] == "features.transition1.conv"
    assert layers["features.transition1.conv"] == (1, 4, 2, 2)


def test_a_layer_that_runs_several_times_counts_where_it_runs_last():
    network = resnet18(spatial_dims=2, n_input_channels=1, num_classes=2)
    assert find_target_layer(network, torch.zeros(1, 1, 64, 64)) == "layer4.1.act"


def test_the_search_leaves_no_hooks_and_evaluation_mode():
    network = dense_net(2).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    spatial_layers(network, torch.rand(1, 1, 32, 32))
    assert not network.training
    assert not any(module._forward_hooks for module in network.modules())
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])


def test_hooks_are_gone_after_an_error_too():
    network = dense_net(2)
    with pytest.raises(RuntimeError, match="channels"):
        spatial_layers(network, torch.zeros(1, 3, 32, 32))
    assert not any(module._forward_hooks for module in network.modules())


def test_a_network_without_maps_is_refused():
    network = nn.Sequential(nn.Flatten(1), nn.Linear(16, 2))
    with pytest.raises(BundleError, match="no layer whose output is a map"):
        find_target_layer(network, torch.zeros(1, 1, 4, 4))


def test_a_mistyped_layer_is_refused_and_a_similar_one_named():
    network = CornerNetwork((4, 4))
    assert find_target_layer(network, torch.zeros(1, 1, 4, 4), "relu") == "relu"
    with pytest.raises(UsageError, match="no layer 'corner'; expected one such as corners"):
        find_target_layer(network, torch.zeros(1, 1, 4, 4), "corner")
