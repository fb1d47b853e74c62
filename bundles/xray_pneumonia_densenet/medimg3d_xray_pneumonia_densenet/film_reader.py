# Copied from medimg3d/data/film_reader.py; do not edit here.
# Source sha256: 110c07ead53ab1f0c02e36f19abfcc51f16908deb22d1056a59342c4941ccfe2
"""Reads one 2D X-ray film: JPEG, PNG, BMP, TIFF or DICOM, grey or colour, 8 to 16 bits.

Whatever the file, the pixels come out as float32, rows first, with bright meaning dense: a film stored as
MONOCHROME1, where low values are bright, is turned round. Bundles carry a copy of this file: it imports
nothing of medimg3d, and Pillow and pydicom only when a file needs them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import ImageReader

PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
DICOM_ENDINGS = (".dcm", ".dicom")
FILM_ENDINGS = PICTURE_ENDINGS + DICOM_ENDINGS
WINDOWS = ("voi", "none")

_DICOM_MARK_AT = 128  # PS3.10 7.1: preamble of 128 bytes, then "DICM"
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601


@dataclass(frozen=True, eq=False)
class Film:
    """A film as it is meant to be looked at.

    Attributes:
        pixels: Shape (rows, columns), float32, bright is dense; the scale is the file's own (a VOI window, if
            one was applied, sets both ends).
        spacing_mm: Distance between rows and between columns in mm, or None where the file does not say.
    """

    pixels: np.ndarray
    spacing_mm: tuple[float, float] | None = None


def read_film(path: str | Path, *, window: str = "voi") -> Film:
    """Read one film.

    Args:
        path: JPEG, PNG, BMP, TIFF or DICOM file; DICOM is known by its content, whatever the ending.
        window: ``"voi"`` applies the file's own VOI LUT or first window (DICOM PS3.3 C.11.2), so that what
            the radiographer shut out is shut out; ``"none"`` leaves the modality's values as they are.

    Returns:
        The film.

    Raises:
        ValueError: An unknown ``window``, or a file that holds no single film that can be decoded. The message
            starts with a verb and holds no path.
    """
    if window not in WINDOWS:
        raise ValueError(f"window must be one of {', '.join(WINDOWS)}, got {window!r}.")
    path = Path(path)
    if not path.is_file():
        raise ValueError("is missing; expected a file")
    film = _read_dicom(path, window) if is_dicom(path) else _read_picture(path)
    if min(film.pixels.shape) < 2:
        raise ValueError(f"has the shape {film.pixels.shape}; expected a film of at least 2 x 2 pixels")
    if not np.isfinite(film.pixels).all():
        raise ValueError("holds NaN or infinite values; expected numbers")
    return film


def is_dicom(path: str | Path) -> bool:
    """Whether a file is DICOM, by the mark at byte 128 or by its ending."""
    path = Path(path)
    if path.name.lower().endswith(DICOM_ENDINGS):
        return True
    with open(path, "rb") as file:
        file.seek(_DICOM_MARK_AT)
        return file.read(4) == b"DICM"


class FilmReader(ImageReader):
    """:func:`read_film` as a reader of MONAI's ``LoadImage``.

    Args:
        window: As for :func:`read_film`.
    """

    def __init__(self, window: str = "voi") -> None:
        super().__init__()
        if window not in WINDOWS:
            raise ValueError(f"window must be one of {', '.join(WINDOWS)}, got {window!r}.")
        self.window = window

    def verify_suffix(self, filename: Any) -> bool:
        """Whether every file has the ending of a film."""
        names = [filename] if isinstance(filename, (str, Path)) else list(filename)
        return all(str(name).lower().endswith(FILM_ENDINGS) for name in names)

    def read(self, data: Any, **kwargs: Any) -> Film | list[Film]:
        """Read one file, or several as channels."""
        if isinstance(data, (str, Path)):
            return read_film(data, window=self.window)
        return [read_film(name, window=self.window) for name in data]

    def get_data(self, img: Film | Sequence[Film]) -> tuple[np.ndarray, dict[str, Any]]:
        """The pixels, shape (rows, columns) or (films, rows, columns), and what MONAI wants to know of them."""
        films = [img] if isinstance(img, Film) else list(img)
        if len({film.pixels.shape for film in films}) > 1:
            raise ValueError("films of one case differ in shape; expected the same rows and columns")
        row_mm, column_mm = films[0].spacing_mm or (1.0, 1.0)
        affine = np.diag([row_mm, column_mm, 1.0, 1.0])
        single = isinstance(img, Film)
        meta = {
            "affine": affine,
            "original_affine": affine.copy(),
            "space": "RAS",
            "spatial_shape": np.asarray(films[0].pixels.shape),
            "original_channel_dim": float("nan") if single else 0,  # MONAI's "no channel"
        }
        return (films[0].pixels if single else np.stack([film.pixels for film in films])), meta


def _read_picture(path: Path) -> Film:
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as picture:
            if getattr(picture, "n_frames", 1) > 1:
                raise ValueError(f"holds {picture.n_frames} pictures; expected one film")
            picture.load()
            picture = ImageOps.exif_transpose(picture)
            if picture.mode in ("1", "P", "PA", "CMYK", "YCbCr", "LAB", "HSV"):
                picture = picture.convert("RGB")
            return Film(_grey(np.asarray(picture)))
    except ValueError:
        raise
    except Exception as err:
        # Pillow: UnidentifiedImageError, OSError (truncated), SyntaxError (broken PNG), DecompressionBombError
        raise ValueError(f"cannot be decoded as a picture ({type(err).__name__}); it may be damaged") from err


def _grey(array: np.ndarray) -> np.ndarray:
    """Rows x columns, float32, of grey, grey + alpha, RGB or RGBA; transparency is left aside."""
    pixels = array.astype(np.float32)
    if pixels.ndim == 2:
        return np.ascontiguousarray(pixels)
    if pixels.ndim != 3 or pixels.shape[2] > 4:
        raise ValueError(f"has the shape {array.shape}; expected rows, columns and up to four colours")
    if pixels.shape[2] <= 2:
        return np.ascontiguousarray(pixels[..., 0])
    if (array[..., 0] == array[..., 1]).all() and (array[..., 1] == array[..., 2]).all():
        return np.ascontiguousarray(pixels[..., 0])  # grey stored as colour: not a rounding error apart
    return pixels[..., :3] @ _LUMA


def _read_dicom(path: Path, window: str) -> Film:
    try:
        import pydicom
        from pydicom.errors import InvalidDicomError
    except ImportError as err:
        raise ValueError(
            "is DICOM, and pydicom is not installed; install it with: pip install pydicom"
        ) from err
    try:
        ds = pydicom.dcmread(path)
    except (InvalidDicomError, EOFError, OSError, ValueError) as err:
        raise ValueError("has the ending of DICOM but is none, or is damaged") from err
    if "PixelData" not in ds:
        raise ValueError("is DICOM without pixel data; expected an image")
    if int(ds.get("NumberOfFrames") or 1) > 1:
        raise ValueError(f"holds {ds.NumberOfFrames} frames; expected one film")
    return Film(_dicom_pixels(ds, path, window), _spacing_mm(ds))


def _dicom_pixels(ds: Any, path: Path, window: str) -> np.ndarray:
    from pydicom.pixels import apply_modality_lut, apply_voi_lut, pixel_array

    try:
        stored = pixel_array(ds)  # colours come as RGB
    except Exception as err:  # noqa: BLE001 - each decoder raises its own; the rest of JPEG needs GDCM
        stored = _decoded_by_itk(ds, path, err)
    if int(ds.get("SamplesPerPixel") or 1) > 1:
        return _grey(stored)
    padding = _is_padding(ds, stored)
    values = apply_modality_lut(stored, ds)
    if window == "voi":
        values = apply_voi_lut(values, ds, index=0)
    pixels = np.asarray(values, dtype=np.float32)
    inside = pixels if padding is None or padding.all() else pixels[~padding]
    low, high = float(inside.min()), float(inside.max())
    if str(ds.get("PhotometricInterpretation")) == "MONOCHROME1":  # PS3.3 C.7.6.3.1.2: the lowest is white
        pixels = low + high - pixels
    if padding is not None:
        pixels = np.where(padding, np.float32(low), pixels)  # no film there: black
    return np.ascontiguousarray(pixels)


def _decoded_by_itk(ds: Any, path: Path, cause: Exception) -> np.ndarray:
    """Stored values, by the GDCM inside SimpleITK, whose rescaling is undone.

    Raises:
        ValueError: It is not installed, or cannot decode the file either.
    """
    syntax = ds.file_meta.TransferSyntaxUID.name if "TransferSyntaxUID" in ds.file_meta else "unknown syntax"
    try:
        import SimpleITK as sitk  # noqa: N813
    except ImportError as err:
        raise ValueError(
            f"cannot be decoded ({syntax}); a decoder is missing: pip install SimpleITK"
        ) from err
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        values = np.asarray(sitk.GetArrayFromImage(sitk.ReadImage(str(path))).squeeze())
    except RuntimeError as err:
        raise ValueError(f"cannot be decoded ({syntax}; {type(cause).__name__}); it may be damaged") from err
    slope, intercept = float(ds.get("RescaleSlope") or 1), float(ds.get("RescaleIntercept") or 0)
    if values.ndim == 3 or (slope, intercept) == (1.0, 0.0):
        return values
    return np.rint((values.astype(np.float64) - intercept) / slope).astype(np.int32)


def _is_padding(ds: Any, stored: np.ndarray) -> np.ndarray | None:
    """Where the pixels are padding (PS3.3 C.7.5.1.1.2): a value, or a range with a limit."""
    value = ds.get("PixelPaddingValue")
    if value is None:
        return None
    limit = ds.get("PixelPaddingRangeLimit")
    ends = sorted((int(value), int(value if limit is None else limit)))
    return np.asarray((stored >= ends[0]) & (stored <= ends[1]))


def _spacing_mm(ds: Any) -> tuple[float, float] | None:
    for keyword in ("PixelSpacing", "ImagerPixelSpacing"):  # patient's plane first, then the detector's
        spacing = ds.get(keyword)
        if spacing is not None and len(spacing) == 2 and min(map(float, spacing)) > 0:
            return float(spacing[0]), float(spacing[1])
    return None
