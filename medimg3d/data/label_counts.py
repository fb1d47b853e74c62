"""How many voxels of a label map have each label, counted without a copy of the map."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def count_labels(labels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Voxels of each label, plane by plane: ``np.bincount`` of the whole makes int64 of every voxel first.

    Args:
        labels: Label map, any shape, uint8.

    Returns:
        Shape (256,).
    """
    counts = np.zeros(256, np.int64)
    for plane in labels if labels.ndim else labels[None]:
        counts += np.bincount(plane.ravel(), minlength=256)
    return counts
