"""Reads the values of any image that a datalist can name: a film, a picture, a volume, a DICOM series."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medimg3d.data.image_facts import IMAGE_ENDINGS, PICTURE_ENDINGS, image_ending, read_facts
from medimg3d.data.volume_file import read_volume
from medimg3d.errors import DataError


@dataclass(frozen=True, eq=False)
class Pixels:
    """The values of an image and their grid.

    Attributes:
        array: Shape (I, J), (I, J, K) or (I, J, K, T); I runs along the columns of a picture. A volume with a
            single slice has two axes.
        spacing_mm: Distance of the values along I, J (, K), in mm; None where the file does not state it.
        affine: RAS affine in mm, shape (4, 4); None for pictures and films.
    """

    array: NDArray[Any]
    spacing_mm: tuple[float, ...] | None
    affine: NDArray[np.float64] | None

    @property
    def voxel_ml(self) -> float | None:
        """Volume of one voxel in mL; None for two axes, and where the spacing is not known."""
        if self.array.ndim < 3 or self.spacing_mm is None or self.affine is None:
            return None
        return abs(float(np.linalg.det(self.affine[:3, :3]))) / 1000


def read_pixels(path: Path, *, as_label: bool = False) -> Pixels:
    """Read one image, or one folder with one DICOM series.

    Films and pictures are grey, bright is dense (see :mod:`medimg3d.data.film_reader`).

    Args:
        path: File or folder.
        as_label: Take a picture's values as they stand in the file.

    Raises:
        DataError: Missing, unreadable, empty or of an unknown kind. The message starts with a verb and holds
            no path.
        GeometryError: An affine that is no grid, or a DICOM series with unequal slice distances or a tilt.
    """
    if not path.exists():
        raise DataError("is missing; expected a file or a DICOM folder at the path in the datalist")
    if path.is_dir():
        return _read_series(path)
    ending = image_ending(path)
    if not ending:
        raise DataError(
            f"is of an unknown kind ({path.suffix or 'no ending'}); expected {', '.join(IMAGE_ENDINGS)}"
        )
    if ending in PICTURE_ENDINGS:
        return _read_label_picture(path) if as_label else _read_film(path)
    if ending == ".dcm" and not as_label:
        return _read_dicom_file(path)
    return _read_volume(path)


def _read_film(path: Path) -> Pixels:
    from medimg3d.data.film_reader import read_film

    try:
        film = read_film(path)
    except ValueError as err:
        raise DataError(str(err)) from err
    spacing_mm = None if film.spacing_mm is None else (film.spacing_mm[1], film.spacing_mm[0])
    return Pixels(film.pixels.T, spacing_mm, None)  # rows, columns → I, J


def _read_dicom_file(path: Path) -> Pixels:
    """One film or slice; else one file with several frames, as a volume."""
    try:
        return _read_film(path)
    except DataError as reason:
        try:
            return _read_volume(path)
        except DataError:
            raise reason from None


def _read_label_picture(path: Path) -> Pixels:
    from PIL import Image

    try:
        with Image.open(path) as picture:
            array = np.asarray(picture)
    except Exception as err:  # Pillow has its own zoo of errors
        raise DataError(f"cannot be decoded as a picture ({type(err).__name__}); it may be damaged") from err
    if array.ndim != 2:
        raise DataError(f"has {array.shape[-1]} colour channels; expected one number a pixel")
    return Pixels(array.T, None, None)


def _read_volume(path: Path) -> Pixels:
    volume = read_volume(path)
    array = _without_last_ones(volume.array)
    spacing_mm = volume.spacing_mm[: min(array.ndim, 3)] if volume.has_known_size else None
    return Pixels(array, spacing_mm, volume.affine)


def _read_series(path: Path) -> Pixels:
    import SimpleITK as sitk  # noqa: N813 - the name everyone uses

    affine = read_facts(path).affine  # refuses what is not one straight, complete series
    assert affine is not None  # a series always has one
    series = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(path))[0]
    files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(path), series)
    array = _without_last_ones(sitk.GetArrayFromImage(sitk.ReadImage(files)).T)
    spacing_mm = np.linalg.norm(affine[:3, :3], axis=0)[: min(array.ndim, 3)]
    return Pixels(array, tuple(float(size) for size in spacing_mm), affine)


def _without_last_ones(array: NDArray[Any]) -> NDArray[Any]:
    while array.ndim > 2 and array.shape[-1] == 1:
        array = array[..., 0]
    return array
