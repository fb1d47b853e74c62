import numpy as np
import pytest
import torch
from corner_network import CornerNetwork, bright_corners
from monai.networks.nets import DenseNet
from monai.visualize import OcclusionSensitivity
from torch import nn

from medimg3d.errors import UsageError
from medimg3d.explain.heatmaps import default_patch, evidence, gradcampp, log_odds, occlusion

SHAPES = [(8, 8), (8, 6, 4)]


def first_corner(shape) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[tuple(slice(0, size // 2) for size in shape)] = True
    return mask


def small_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, stride=2, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(3, 5, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(1),
        nn.Linear(5, 3),
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_gradcampp_lies_where_the_only_reason_of_each_class_is(shape):
    image = bright_corners(shape, first=2.0, last=1.0)
    network = CornerNetwork(shape)
    for class_index, mask in ((1, first_corner(shape)), (0, np.flip(first_corner(shape)))):
        heat = gradcampp(network, image, class_index)
        np.testing.assert_array_equal(heat, mask.astype(np.float32))


def test_a_map_without_evidence_stays_zero():
    image = bright_corners((8, 8), first=0.0, last=1.0)
    assert not gradcampp(CornerNetwork((8, 8)), image, 1).any()


def test_gradcampp_is_the_formula_of_the_paper():
    """By hand from the last map A and its gradient, in float64, without MONAI."""
    network, image = small_network().double().eval(), torch.randn(1, 1, 12, 10).double()
    activation = network[:4](image).detach().requires_grad_()
    score = network[4:](activation)[0, 2]
    (gradient,) = torch.autograd.grad(score, activation)
    a, g = activation.detach()[0].numpy(), gradient[0].numpy()
    below = 2 * g**2 + (a * g**3).sum(axis=(1, 2), keepdims=True)
    alpha = np.divide(g**2, below, out=np.zeros_like(g), where=below != 0)
    weights = (alpha * np.maximum(g, 0)).sum(axis=(1, 2))
    cam = np.maximum((weights[:, None, None] * a).sum(axis=0), 0)
    smooth = nn.functional.interpolate(torch.from_numpy(cam)[None, None], size=(12, 10), mode="bilinear")
    expected = smooth[0, 0].numpy() / smooth.max().item()
    np.testing.assert_allclose(gradcampp(network, image, 2), expected, atol=1e-5)


def test_the_map_does_not_depend_on_the_scale_of_the_scores():
    """Scores of thousands overflow the formula's exponential, tiny ones vanish beside its epsilon."""
    image = bright_corners((8, 8), first=1.0, last=0.5)
    maps = []
    for scale in (1e-6, 1.0, 1e6):
        network = CornerNetwork((8, 8))
        with torch.no_grad():
            network.out.weight.mul_(scale)
        maps.append(gradcampp(network, image, 1))
    for heat in maps:
        np.testing.assert_array_equal(heat, first_corner((8, 8)).astype(np.float32))


@pytest.mark.parametrize("layer", ["features.norm5", "features", "class_layers.relu", "features.denseblock2"])
def test_any_layer_can_be_named_also_one_before_an_in_place_relu(layer):
    torch.manual_seed(0)
    network = DenseNet(2, 1, 2, init_features=4, growth_rate=2, block_config=(2, 2)).eval()
    heat = gradcampp(network, torch.randn(1, 1, 32, 24), 1, layer=layer)
    assert heat.shape == (32, 24)
    assert heat.dtype == np.float32
    assert np.isfinite(heat).all()


@pytest.mark.parametrize("method", [gradcampp, occlusion])
def test_the_network_is_unchanged_in_evaluation_mode_and_without_hooks(method):
    network = DenseNet(2, 1, 2, init_features=4, growth_rate=2, block_config=(2, 2)).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    method(network, torch.rand(1, 1, 32, 32), 0)
    assert not network.training
    assert all(parameter.grad is None for parameter in network.parameters())
    assert network.class_layers.relu.inplace
    for module in network.modules():
        assert not module._forward_hooks
        assert not module._backward_hooks
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])


def test_frozen_weights_can_be_explained():
    network = CornerNetwork((8, 8)).requires_grad_(False)
    assert gradcampp(network, bright_corners((8, 8)), 1).max() == 1


def test_a_layer_without_a_map_or_without_a_say_is_refused():
    network = CornerNetwork((8, 8))
    with pytest.raises(UsageError, match=r"Layer out gives \(1, 2\); expected a map"):
        gradcampp(network, bright_corners((8, 8)), 1, layer="out")
    network.idle = nn.Conv2d(1, 1, 1)
    with pytest.raises(UsageError, match="Layer idle gives no tensor"):
        gradcampp(network, bright_corners((8, 8)), 1, layer="idle")


@pytest.mark.parametrize("shape", SHAPES)
def test_occlusion_is_positive_for_and_negative_against_the_class(shape):
    """Both corners are 1, so the logits are equal. Hiding one by the mean (m) takes share * (1 - m) off its logit."""
    share = 0.5 ** len(shape)
    mean = 2 * share
    patch = tuple(size // 2 for size in shape)
    heat = occlusion(CornerNetwork(shape), bright_corners(shape, last=1.0), 1, patch=patch, overlap=0)
    first = first_corner(shape)
    np.testing.assert_allclose(heat[first], share * (1 - mean), atol=1e-6)
    np.testing.assert_allclose(heat[np.flip(first)], -share * (1 - mean), atol=1e-6)
    assert not heat[~first & ~np.flip(first)].any()


@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence:UserWarning")
@pytest.mark.parametrize("shape", [(20, 17), (12, 10, 9)])
def test_occlusion_equals_that_of_monai(shape):
    torch.manual_seed(0)
    network = DenseNet(len(shape), 1, 3, init_features=4, growth_rate=2, block_config=(2,)).eval()
    image = torch.randn(1, 1, *shape)
    patch = tuple(size // 3 for size in shape)
    ours = occlusion(network, image, 2, patch=patch, overlap=0.4)
    theirs = OcclusionSensitivity(
        network,
        mask_size=patch,
        mode="mean_img",
        overlap=0.4,
        verbose=False,
        activate=lambda logits: log_odds(logits, 2)[:, None],
    )(image)[0]
    with torch.no_grad():
        whole = log_odds(network(image), 2)
    np.testing.assert_allclose(ours, (whole - theirs.as_tensor())[0, 0].numpy(), atol=1e-5)


def test_each_channel_is_hidden_by_its_own_mean():
    """Channels of 1 and 1,000 without contrast: hiding changes nothing."""

    class Sum(nn.Module):
        def forward(self, image):
            total = image.sum(dim=(1, 2, 3))
            return torch.stack([torch.zeros_like(total), total], dim=1)

    image = torch.cat([torch.full((1, 1, 4, 4), 1.0), torch.full((1, 1, 4, 4), 1000.0)], dim=1)
    assert not occlusion(Sum(), image, 1).any()


def test_batches_do_not_change_the_occlusion_map():
    image = bright_corners((8, 8), first=1.0, last=0.3)
    one, many = (occlusion(CornerNetwork((8, 8)), image, 1, batch_size=size) for size in (1, 100))
    np.testing.assert_array_equal(one, many)


def test_log_odds_of_three_equal_scores_are_one_to_two():
    assert log_odds(torch.zeros(1, 3), 0).item() == pytest.approx(np.log(1 / 2))


def test_evidence_is_the_positive_part_scaled_to_one():
    np.testing.assert_array_equal(evidence(np.array([-4.0, 0, 1, 2], np.float32)), [0, 0, 0.5, 1])
    assert not evidence(np.array([-4.0, 0], np.float32)).any()


def test_the_patch_is_an_eighth_in_2d_a_quarter_in_3d_and_never_nothing():
    assert default_patch((224, 28)) == (28, 4)
    assert default_patch((64, 64, 3)) == (16, 16, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class_index": 2}, r"class_index must be in \[0, 1\], got 2"),
        ({"image": torch.zeros(2, 1, 8, 8)}, "expected one image"),
    ],
)
@pytest.mark.parametrize("method", [gradcampp, occlusion])
def test_more_than_one_image_and_unknown_classes_are_refused(method, change, message):
    given = {"image": bright_corners((8, 8)), "class_index": 1} | change
    with pytest.raises(ValueError, match=message):
        method(CornerNetwork((8, 8)), **given)


@pytest.mark.parametrize(
    ("change", "message"), [({"patch": (9, 4)}, "must fit into the image"), ({"overlap": 1.0}, r"\[0, 1\)")]
)
def test_patches_that_do_not_fit_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        occlusion(CornerNetwork((8, 8)), bright_corners((8, 8)), 1, **change)
