"""Every network that a plan names can be built by MONAI and keeps the size of its patch."""

from __future__ import annotations

import pytest
import torch
from monai.bundle import ConfigParser

from medimg3d.planning.estimate import count_numbers, estimate_gb
from medimg3d.planning.networks import network_block, topology_of

SEGMENTERS = ("dynunet", "unet", "segresnet", "mednext", "swinunetr")


def built(network, patch, spacing, width):
    topology = topology_of(network, patch, spacing, max_poolings=2)
    block = network_block(network, topology, width=width, in_channels=2, deep_supervision=True)
    parser = ConfigParser({"num_classes": 3, "network": block})
    return parser.get_parsed_content("network").eval(), topology.patch


@pytest.mark.parametrize("network", SEGMENTERS)
def test_a_2d_network_gives_a_score_a_class_at_every_pixel(network):
    model, patch = built(network, (32, 32), (1, 1), 24 if network == "swinunetr" else 8)
    with torch.no_grad():
        assert model(torch.zeros(1, 2, *patch)).shape == (1, 3, *patch)


@pytest.mark.parametrize("network", ["dynunet", "unet", "segresnet"])
@pytest.mark.parametrize(("patch", "spacing"), [((16, 16, 5), (1, 1, 5)), ((16, 16, 12), (1, 1, 3))])
def test_a_3d_network_of_thick_slices_gives_a_score_a_class_at_every_voxel(network, patch, spacing):
    model, widened = built(network, patch, spacing, 8)
    with torch.no_grad():
        assert model(torch.zeros(1, 2, *widened)).shape == (1, 3, *widened)


def test_a_unet_halves_thick_slices_under_kernels_of_3_alone():
    model, _ = built("unet", (32, 32, 16), (1, 1, 3), 8)
    halving = [
        module
        for module in model.modules()
        if isinstance(module, (torch.nn.Conv3d, torch.nn.ConvTranspose3d)) and module.stride[2] == 2
    ]
    assert any(isinstance(module, torch.nn.ConvTranspose3d) for module in halving)
    assert {module.kernel_size[2] for module in halving} == {3}


def test_a_unet_of_slices_that_are_never_halved_has_kernels_of_1_across_them():
    topology = topology_of("unet", (64, 64, 5), (1, 1, 20), max_poolings=2)
    block = network_block("unet", topology, width=8, in_channels=1, deep_supervision=False)
    assert (block["kernel_size"], block["up_kernel_size"]) == ([3, 3, 1], [3, 3, 1])


def test_a_unet_of_cubes_has_kernels_of_3():
    topology = topology_of("unet", (64, 64, 64), (1, 1, 1), max_poolings=4)
    block = network_block("unet", topology, width=16, in_channels=1, deep_supervision=False)
    assert (block["kernel_size"], block["up_kernel_size"], block["strides"]) == (3, 3, [2, 2, 2, 2])


def test_a_dynunet_keeps_its_kernels_of_1_until_voxels_are_about_cubes():
    topology = topology_of("dynunet", (32, 32, 16), (1, 1, 3), max_poolings=2)
    block = network_block("dynunet", topology, width=8, in_channels=1, deep_supervision=False)
    assert block["kernel_size"][:2] == [[3, 3, 1], 3]


def test_outputs_and_weights_of_one_convolution_are_counted():
    block = {
        "_target_": "torch.nn.Conv3d",
        "in_channels": 1,
        "out_channels": "@num_classes",
        "kernel_size": 1,
    }
    outputs, weights = count_numbers(block, (2, 1, 4, 4, 4), num_classes=3)
    assert (outputs, weights) == (2 * 3 * 64, 3 + 3)


def test_twice_the_batch_needs_more():
    topology = topology_of("unet", (32, 32), (1, 1), max_poolings=2)
    block = network_block("unet", topology, width=8, in_channels=1, deep_supervision=False)
    one, two = (estimate_gb(block, (batch, 1, 32, 32), num_classes=2) for batch in (1, 2))
    assert two > one


@pytest.mark.parametrize("network", SEGMENTERS)
def test_every_network_can_be_estimated(network):
    topology = topology_of(network, (64, 64), (1, 1), max_poolings=3)
    width = 12 if network == "swinunetr" else 8
    block = network_block(network, topology, width=width, in_channels=1, deep_supervision=True)
    one, four = (count_numbers(block, (batch, 1, *topology.patch), num_classes=2)[0] for batch in (1, 4))
    assert four == pytest.approx(4 * one, rel=0.1)
