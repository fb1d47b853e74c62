"""MONAI's NibabelReader with the fast way to the voxels."""

from __future__ import annotations

from typing import Any

import numpy as np
from monai.data import NibabelReader
from monai.data.utils import correct_nifti_header_if_necessary
from monai.utils import ensure_tuple
from numpy.typing import DTypeLike

from medimg3d.data.fast_nifti import SMALL_INTEGERS, read_nifti_image


class FastNiftiReader(NibabelReader):
    """Reads NIfTI for ``LoadImage`` with the meta data and the values of MONAI's ``NibabelReader``.

    Named in a configuration as ``"reader": "medimg3d.data.fast_nifti_reader.FastNiftiReader"``. What it cannot
    read (another format, colour) ``LoadImage`` passes on to its own readers.

    Args:
        channel_dim: As for ``NibabelReader``.
        as_closest_canonical: As for ``NibabelReader``.
        squeeze_non_spatial_dims: As for ``NibabelReader``.
        voxel_type: Type of the voxels. ``"float32"`` is what ``LoadImage`` turns them into anyway; a ``dtype``
            there that holds more (``float64``, ``int64`` for labels above 2**24) wants None here, which reads
            the stored type as ``NibabelReader`` does.
        keep_small_integers: Keep int8, uint8 and int16 as stored where the header does not scale them: half the
            memory of float32 or less. For pipelines that make float32 of it later
            (:class:`medimg3d.transforms.separable_spacing.SeparableSpacingd` does), with ``"dtype": null`` for
            ``LoadImage``; a step before that which works out intensities would round them.
    """

    def __init__(
        self,
        channel_dim: str | int | None = None,
        as_closest_canonical: bool = False,
        squeeze_non_spatial_dims: bool = False,
        voxel_type: str | None = "float32",
        keep_small_integers: bool = False,
    ) -> None:
        super().__init__(channel_dim, as_closest_canonical, squeeze_non_spatial_dims)
        self.voxel_type = voxel_type
        self.keep_small_integers = keep_small_integers

    def loaded_type(self, dtype: DTypeLike) -> np.dtype[Any]:
        """Type of the voxels that are read from a file whose header says ``dtype`` (see ``NiftiGrid``)."""
        keeps = self.voxel_type is None or (self.keep_small_integers and np.dtype(dtype) in SMALL_INTEGERS)
        return np.dtype(dtype if keeps else self.voxel_type)

    def read(self, data: Any, **kwargs: Any) -> Any:
        """Read files whole.

        Args:
            data: File name, or several whose images are stacked as channels.
            kwargs: Not used; options of ``nibabel.load`` have no meaning here.

        Returns:
            nibabel's image with its voxels in memory, or a list of them.

        Raises:
            DataError: As :func:`medimg3d.data.fast_nifti.read_nifti`.
        """
        self.filenames = ensure_tuple(data)
        images = [self._read(name) for name in self.filenames]
        return images if len(images) > 1 else images[0]

    def _read(self, name: Any) -> Any:
        # C order: what LoadImage would otherwise copy it to, at five times the cost
        image, array = read_nifti_image(
            name, dtype=self.voxel_type, order="C", keep_small_integers=self.keep_small_integers
        )
        image = type(image)(array, image.affine, image.header)
        return correct_nifti_header_if_necessary(image)
