from __future__ import annotations

import numpy as np
import pytest

from medimg3d.data.label_counts import count_labels


@pytest.mark.parametrize("shape", [(7, 6, 5), (9, 4), (11,), (3, 0, 2)])
def test_counts_are_those_of_bincount(shape):
    labels = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    counts = count_labels(labels)
    assert counts.shape == (256,)
    np.testing.assert_array_equal(counts, np.bincount(labels.ravel(), minlength=256))


def test_memory_order_does_not_matter():
    labels = np.random.default_rng(1).integers(0, 9, (5, 6, 7)).astype(np.uint8)
    np.testing.assert_array_equal(count_labels(labels), count_labels(np.asfortranarray(labels)))
