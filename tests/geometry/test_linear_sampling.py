from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from medimg3d.geometry.linear_sampling import AxisSamples, interpolate, interpolate_tile, resample


def some_samples(rng: np.random.Generator, shape) -> tuple[list[np.ndarray], list[AxisSamples]]:
    places = [rng.choice([-1, 1]) * np.sort(rng.uniform(-1, size, rng.integers(1, 30))) for size in shape]
    places = [one if one[0] >= -1 else one + size - 1 for one, size in zip(places, shape, strict=True)]
    return places, [AxisSamples.at(one, size) for one, size in zip(places, shape, strict=True)]


def by_scipy(values: torch.Tensor, places) -> np.ndarray:
    grid = np.meshgrid(*places, indexing="ij")
    return np.stack([map_coordinates(one, grid, order=1, mode="nearest") for one in values.double().numpy()])


def test_samples_lie_between_neighbours_and_stop_at_the_ends():
    samples = AxisSamples.at([-3, 0, 0.25, 1, 1.999, 9], 3)
    assert samples.low.tolist() == [0, 0, 0, 1, 1, 2]
    assert samples.high.tolist() == [0, 0, 1, 1, 2, 2]
    assert samples.weight.tolist() == pytest.approx([0, 0, 0.25, 0, 0.999, 0])


def test_a_weight_that_rounds_to_one_is_the_next_voxel():
    samples = AxisSamples.at([1 - 1e-12], 2)
    assert (samples.low.item(), samples.high.item(), samples.weight.item()) == (1, 1, 0)


def test_a_quarter_of_the_way_is_a_quarter_of_the_difference():
    values = torch.tensor([[[0.0, 8.0], [16.0, 24.0]]])
    halves = [AxisSamples.at([0.5], 2), AxisSamples.at([0.25], 2)]
    assert interpolate(values, halves).item() == 10  # 8 from the rows, 2 from the columns
    assert interpolate_tile(values, halves).item() == 10
    assert resample(values, halves).item() == 10


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("how", [interpolate, interpolate_tile, resample])
def test_values_are_those_of_scipy(how, seed):
    rng = np.random.default_rng(seed)
    shape = tuple(int(size) for size in rng.integers(1, 14, 2 + seed % 2))
    values = torch.from_numpy(rng.normal(0, 1, (2, *shape))).float()
    places, samples = some_samples(rng, shape)
    np.testing.assert_allclose(how(values, samples).numpy(), by_scipy(values, places), atol=2e-6)


def test_chunks_give_what_the_whole_gives():
    rng = np.random.default_rng(0)
    values = torch.from_numpy(rng.normal(0, 1, (2, 40, 9, 8))).float()
    samples = [
        AxisSamples.at(np.linspace(39, 0, 57), 40),
        AxisSamples.at(np.arange(9), 9),
        AxisSamples.at([3, 3.5], 8),
    ]
    assert torch.equal(resample(values, samples, chunk_bytes=1), resample(values, samples, chunk_bytes=2**30))


def test_whole_numbers_become_float32():
    values = torch.arange(6, dtype=torch.int16).view(1, 2, 3)
    result = resample(values, [AxisSamples.at([0.5], 2), AxisSamples.at([0, 1, 2], 3)])
    assert result.dtype == torch.float32
    assert result.tolist() == [[[1.5, 2.5, 3.5]]]


def test_successive_voxels_are_not_copied():
    values = torch.rand(1, 5, 5)
    inner = AxisSamples.at([1, 2, 3], 5)
    assert interpolate(values, [inner, None]).data_ptr() == values[:, 1:].data_ptr()


def test_autocast_does_not_coarsen_a_tile():
    values = torch.rand((3, 7, 6), generator=torch.Generator().manual_seed(0))
    samples = [AxisSamples.at(np.linspace(0, 6, 11), 7), AxisSamples.at(np.linspace(0, 5, 9), 6)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        coarse = interpolate_tile(values, samples)
    assert torch.equal(coarse, interpolate_tile(values, samples))
