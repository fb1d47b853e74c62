"""2D images: how a file holds one, and how it is shown to a bundle of 2D networks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medimg3d.data.nifti_header import geometry_header
from medimg3d.data.volume_file import Volume


def is_flat(shape: tuple[int, ...]) -> bool:
    """Whether an array of this shape is one 2D image: fewer than three axes, or one voxel along I, J or K."""
    return len(shape) < 3 or min(shape[:3]) == 1


def flat_image(volume: Volume) -> Volume:
    """A 2D image as (I, J), the form in which MONAI's transforms take it.

    MONAI looks at the first two axes of an affine alone. Those are kept where the image lies in the plane from
    right to left and from back to front; elsewhere (a coronal or tilted slice) they would be shortened or even
    singular, and the pixel sizes alone are given.

    Args:
        volume: Shape (I, J) or (I, J, 1).

    Returns:
        The same pixels, shape (I, J), with a header of two axes.
    """
    affine = volume.affine if _lies_flat(volume.affine) else np.diag([*volume.spacing_mm, 1.0])
    array = volume.array.reshape(volume.array.shape[:2])
    unit = "mm" if volume.has_known_size else "unknown"
    header = geometry_header(array.shape, affine, unit=unit)
    return Volume(array, header.get_best_affine(), header, volume.has_known_size)


def _lies_flat(affine: NDArray[np.float64]) -> bool:
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    return bool(np.abs(affine[2, :2]).max() < 1e-6 * sizes[:2].min())
