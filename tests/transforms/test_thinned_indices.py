"""Positions of patches in a number that does not grow with the image."""

from __future__ import annotations

import numpy as np
import torch

from medimg3d.transforms.thinned_indices import ThinnedIndicesd


def test_every_nth_stays_with_the_smallest_n_that_is_enough():
    item = ThinnedIndicesd("a", at_most=4)({"a": np.arange(9)})
    assert item["a"].tolist() == [0, 3, 6]


def test_few_stay_as_they_are():
    indices = torch.tensor([3, 5, 8])
    item = ThinnedIndicesd(["a", "b"], at_most=3)({"a": indices, "b": np.zeros(0, np.int64)})
    assert torch.equal(item["a"], indices)
    assert len(item["b"]) == 0
