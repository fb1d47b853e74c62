"""How sure a segmentation is of itself: one number a case, and a voxel-wise map."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def voxel_entropy(probabilities: NDArray[np.floating]) -> NDArray[np.float32]:
    """Entropy of the class probabilities at each voxel, as a share of the highest possible.

    Args:
        probabilities: Shape (classes, *spatial), sums of 1.

    Returns:
        Shape (*spatial): 0 where one class is certain, 1 where all are equally likely.
    """
    classes = probabilities.shape[0]
    total = np.zeros(probabilities.shape[1:], np.float32)
    for values in probabilities:
        p = np.asarray(values, dtype=np.float32)
        total -= p * np.log(np.where(p > 0, p, 1))
    return np.asarray(total / np.log(max(2, classes)), dtype=np.float32).clip(0, 1)


def voxel_disagreement(
    of_mean: NDArray[np.floating], mean_of_members: NDArray[np.floating]
) -> NDArray[np.float32]:
    """How far several networks contradict each other at each voxel, not how unsure each of them is.

    Args:
        of_mean: :func:`voxel_entropy` of their mean probabilities, shape (*spatial).
        mean_of_members: The mean of the members' own entropies, the same shape.

    Returns:
        Their difference, the mutual information, 0 (all give the same probabilities) to 1.

    Source: Smith and Gal 2018, arXiv:1803.08533.
    """
    return np.asarray(of_mean - mean_of_members, dtype=np.float32).clip(0, 1)


def soft_dice_doubt(probabilities: NDArray[np.floating]) -> float:
    """1 minus the soft Dice confidence: what the network itself expects to miss of a Dice of 1.

    Args:
        probabilities: Shape (classes, *spatial), sums of 1; class 0 is the background.

    Returns:
        0 (sure) to 1, the mean over the classes but the background. A class of which no voxel is predicted counts 1,
        unless it has no probability anywhere.

    Source: Borges et al. 2024, Soft Dice Confidence, arXiv:2402.10665.
    """
    labels = probabilities.argmax(axis=0)
    doubts = []
    for label in range(1, probabilities.shape[0]):
        p, mask = probabilities[label], labels == label
        total = float(p.sum(dtype=np.float64)) + int(mask.sum())
        doubts.append(1 - 2 * float(p[mask].sum(dtype=np.float64)) / total if total > 0 else 0.0)
    return float(np.mean(doubts)) if doubts else 0.0


def pairwise_disagreement(label_maps: list[NDArray[np.integer]]) -> float:
    """Mean over pairs of label maps of 1 minus the Dice of their foregrounds, label by label.

    Args:
        label_maps: Maps of one grid.

    Returns:
        0 (all equal) to 1; 0 for fewer than two maps, and labels that neither map of a pair has count 0.
    """
    pairs = []
    for position, one in enumerate(label_maps):
        for other in label_maps[position + 1 :]:
            size = int((one > 0).sum()) + int((other > 0).sum())
            common = int(((one == other) & (one > 0)).sum())
            pairs.append(1 - 2 * common / size if size else 0.0)
    return float(np.mean(pairs)) if pairs else 0.0
