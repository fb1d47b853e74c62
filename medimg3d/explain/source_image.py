"""The image that is explained, as its file has it: a film or a volume, its grid, and heat maps written on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medimg3d.atomic import atomic_file
from medimg3d.data.image_facts import NIFTI_ENDINGS
from medimg3d.data.input_checks import check_volume
from medimg3d.data.nifti_header import geometry_header
from medimg3d.data.volume_file import Volume, read_volume, write_volume
from medimg3d.errors import DataError, GeometryError


@dataclass(frozen=True, eq=False)
class SourceImage:
    """An image and where it lies.

    Attributes:
        path: Its file.
        array: Film: shape (rows, columns), bright is dense. Volume: shape (I, J, K), of its
            first channel if it has several.
        spacing_mm: Film: distance between rows and between columns, in mm, or None where the file does not
            say. Volume: voxel size along I, J, K.
        volume: The volume as read; None for a film.
    """

    path: Path
    array: NDArray[Any]
    spacing_mm: tuple[float, ...] | None
    volume: Volume | None = None

    @property
    def affine(self) -> NDArray[np.float64]:
        """RAS affine in mm, shape (4, 4), of the axes that a heat map is written with.

        A film's axes are then columns, rows and one slice; columns run to the left and rows to the back, as ITK
        takes a picture, so that 3D Slicer and ITK-SNAP show the map upright over the picture. In pixels where
        the spacing is not known.
        """
        if self.volume is not None:
            return self.volume.affine
        row_mm, column_mm = self.spacing_mm or (1.0, 1.0)
        return np.diag([-column_mm, -row_mm, 1.0, 1.0])

    def write_heat(self, heat: NDArray[np.float32], path: Path) -> Path:
        """Write a heat map as NIfTI (float32) with the image's geometry; whole or not at all.

        Args:
            heat: Shape of :attr:`array`.
            path: ``.nii.gz`` file to write.

        Raises:
            GeometryError: The heat map has another shape.
        """
        import nibabel

        self.check_shape(heat)
        values = heat if self.volume is not None else heat.T[..., None]
        if self.volume is not None:
            header = self.volume.header.copy()
            header.set_data_shape(values.shape)
        else:
            unit = "mm" if self.spacing_mm else "unknown"
            header = geometry_header(values.shape, self.affine, unit=unit)
        header.set_data_dtype(np.float32)
        with atomic_file(path) as temporary:
            nibabel.save(
                nibabel.Nifti1Image(np.ascontiguousarray(values, np.float32), None, header), temporary
            )
        return path

    def check_shape(self, heat: NDArray[np.float32]) -> None:
        """Refuse a heat map of another shape than the image's.

        Raises:
            GeometryError: The shapes differ.
        """
        if heat.shape != self.array.shape:
            raise GeometryError(
                f"got a heat map of shape {heat.shape}, expected {self.array.shape}: the bundle's preprocessing "
                "cannot be undone, or reads the file in another way than medimg3d"
            )

    @contextmanager
    def loadable(self) -> Iterator[Path]:
        """The file itself, or a copy as NIfTI where MONAI would need further packages to read it."""
        if self.volume is None or self.path.name.lower().endswith(NIFTI_ENDINGS):
            yield self.path
            return
        with TemporaryDirectory() as folder:
            yield write_volume(self.volume, Path(folder) / "image.nii")


def read_source(path: Path, *, num_spatial_dims: int, num_channels: int = 1) -> SourceImage:
    """Read an image that a classifier is to be asked about.

    Args:
        path: Film (JPEG, PNG, BMP, TIFF, DICOM) or volume (NIfTI, NRRD, MetaImage).
        num_spatial_dims: 2 for a film, 3 for a volume.
        num_channels: Channels that the network takes.

    Raises:
        DataError: It cannot be read, or a prediction on it would be nonsense. Messages start with a verb and
            hold no path.
        GeometryError: A volume's affine is no grid.
    """
    if num_spatial_dims == 2:
        return _read_film(path)
    volume = read_volume(path)
    check_volume(volume, num_channels=num_channels)
    array = volume.array if volume.array.ndim == 3 else volume.array[..., 0]
    return SourceImage(path, array, volume.spacing_mm, volume)


def _read_film(path: Path) -> SourceImage:
    from medimg3d.data.film_reader import read_film

    try:
        film = read_film(path)
    except ValueError as err:
        raise DataError(str(err)) from err
    if film.pixels.min() == film.pixels.max():
        raise DataError("has the same value in every pixel; expected an image")
    return SourceImage(path, film.pixels, film.spacing_mm)
