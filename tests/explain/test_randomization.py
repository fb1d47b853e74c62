import numpy as np
import pytest
import torch
from corner_network import CornerNetwork
from scipy import stats
from scipy.ndimage import gaussian_filter

from medimg3d.explain.heatmaps import gradcampp
from medimg3d.explain.randomization import randomization_check, rank_correlation, structural_similarity


def noisy_image() -> torch.Tensor:
    return torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))


def test_a_map_that_comes_from_the_weights_falls_apart_with_them():
    network = CornerNetwork((16, 16))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    steps = randomization_check(network, noisy_image(), lambda net, x: gradcampp(net, x, 1))
    assert [step.down_to for step in steps] == ["out.weight", "corners.gates"]
    assert [step.share_random for step in steps] == [0.5, 1.0]
    last = steps[-1].rank_correlation
    assert last is None or last < 0.5
    assert steps[-1].ssim < 0.5
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_map_that_only_shows_the_image_survives_untouched():
    def edges(_network, image):
        return np.hypot(*np.gradient(image[0, 0].numpy())).astype(np.float32)

    steps = randomization_check(CornerNetwork((16, 16)), noisy_image(), edges)
    assert [step.rank_correlation for step in steps] == [pytest.approx(1.0)] * 2
    assert [step.ssim for step in steps] == [pytest.approx(1.0)] * 2


def test_the_same_seed_gives_the_same_figures():
    def check(seed):
        explain = lambda net, x: gradcampp(net, x, 1)  # noqa: E731
        return randomization_check(CornerNetwork((16, 16)), noisy_image(), explain, seed=seed)

    assert check(1) == check(1)
    assert check(1) != check(2)


def test_a_flat_map_has_no_rank_correlation():
    flat, other = np.zeros((8, 8), np.float32), np.random.default_rng(0).random((8, 8), np.float32)
    assert rank_correlation(flat, other) is None


def ssim_by_scipy(x, y) -> float:
    """Wang et al. 2004 for values from 0 to 1; windows that reach over the border left out."""

    def local_mean(values):
        smooth = gaussian_filter(values.astype(float), 1.5, radius=5)
        return smooth[(slice(5, -5),) * values.ndim]

    mean_x, mean_y = local_mean(x), local_mean(y)
    variance_x, variance_y = local_mean(x * x) - mean_x**2, local_mean(y * y) - mean_y**2
    covariance = local_mean(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    above = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return float((above / ((mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2))).mean())


@pytest.mark.parametrize("shape", [(20, 24), (12, 13, 14)])
def test_similarities_equal_those_worked_out_with_scipy(shape):
    rng = np.random.default_rng(0)
    first = rng.random(shape, np.float32)
    second = (first + rng.random(shape, np.float32)) / 2
    expected = stats.pearsonr(stats.rankdata(first), stats.rankdata(second)).statistic
    assert rank_correlation(first, second) == pytest.approx(expected)
    assert structural_similarity(first, second) == pytest.approx(ssim_by_scipy(first, second), abs=1e-4)


@pytest.mark.parametrize("shape", [(1, 5), (2, 2), (4, 9, 3)])
def test_maps_smaller_than_the_window_can_be_compared(shape):
    ones = np.ones(shape, np.float32)
    assert structural_similarity(ones, ones) == pytest.approx(1.0)
