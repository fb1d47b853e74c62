"""Whether a heat map depends on what the network learned: it must fall apart when the weights do.

A map that looks the same for random weights shows the image's edges, not the network's reasons, and is not to
be trusted however convincing it looks (Adebayo et al. 2018).
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medimg3d.explain.heatmaps import evidence

if TYPE_CHECKING:
    import torch

Explain = Callable[["torch.nn.Module", "torch.Tensor"], NDArray[np.float32]]
"""Network and image → heat map; always of the same class."""


@dataclass(frozen=True)
class RandomizationStep:
    """How much of a heat map is left after some of the weights became random.

    Attributes:
        down_to: The deepest parameter that is random; all those behind it are, too.
        share_random: Share of the parameter tensors that are random, 0 to 1.
        rank_correlation: Spearman's, of the two maps' evidence, -1 to 1; None where a map is flat.
        ssim: Structural similarity of the two maps, 1 for equal ones.
    """

    down_to: str
    share_random: float
    rank_correlation: float | None
    ssim: float


def randomization_check(
    network: torch.nn.Module, image: torch.Tensor, explain: Explain, *, stages: int = 5, seed: int = 0
) -> tuple[RandomizationStep, ...]:
    """Randomise the weights from the answer back to the image, in stages, and compare the heat maps.

    Weights are drawn from a normal distribution around 0 of their own root mean square; the values of biases
    and normalisations are shuffled. So the signal keeps its scale, and what was learned is gone.

    Args:
        network: A classifier; unchanged (a copy is randomised).
        image: One image as the network takes it, shape (1, C, *spatial).
        explain: Gives the heat map, for example ``lambda network, image: gradcampp(network, image, 1)``.
        stages: Number of stages; in the last one every weight is random.
        seed: Same seed, same weights.

    Returns:
        One step a stage. Judge the last one's rank correlation over several images: one smooth map
        correlates with another by chance.

    Source: Adebayo et al. 2018, arXiv:1810.03292, cascading randomisation.
    """
    rng = np.random.default_rng(seed)
    trained = evidence(explain(network, image))
    copy = deepcopy(network)
    parameters = list(copy.named_parameters())[::-1]
    steps = []
    done = 0
    for part in np.array_split(np.arange(len(parameters)), min(stages, len(parameters))):
        for index in part:
            _randomize(parameters[index][1], rng)
        done += len(part)
        heat = evidence(explain(copy, image))
        steps.append(
            RandomizationStep(
                down_to=parameters[part[-1]][0],
                share_random=done / len(parameters),
                rank_correlation=rank_correlation(trained, heat),
                ssim=structural_similarity(trained, heat),
            )
        )
    return tuple(steps)


def rank_correlation(first: NDArray[np.float32], second: NDArray[np.float32]) -> float | None:
    """Spearman's rank correlation of two maps; None where one is flat."""
    from scipy.stats import spearmanr

    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(spearmanr(first.ravel(), second.ravel()).statistic)


def structural_similarity(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """SSIM of two maps from 0 to 1, averaged over the image (windows of 11 pixels, smaller on small maps).

    Source: Wang et al. 2004, doi:10.1109/TIP.2003.819861; ``monai.metrics.SSIMMetric``.
    """
    import torch
    from monai.metrics import SSIMMetric

    window = min(11, min(first.shape) // 2 * 2 - 1) if min(first.shape) > 1 else 1
    metric = SSIMMetric(spatial_dims=first.ndim, data_range=1.0, win_size=window)
    value = metric(torch.from_numpy(first)[None, None], torch.from_numpy(second)[None, None])
    return float(torch.as_tensor(value).mean())


def _randomize(parameter: torch.nn.Parameter, rng: np.random.Generator) -> None:
    import torch

    values = parameter.detach().cpu().numpy()
    if values.ndim > 1:
        drawn = rng.normal(0, float(np.sqrt(np.mean(np.square(values, dtype=np.float64)))), values.shape)
    else:
        drawn = rng.permutation(values)
    with torch.no_grad():
        parameter.copy_(torch.as_tensor(drawn, dtype=parameter.dtype))
