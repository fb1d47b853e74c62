"""Reads one image of any supported kind and keeps what a check needs: shape, grid, content, label values.

NIfTI is read with nibabel, NRRD, MHA and DICOM with SimpleITK, PNG, JPEG, BMP and TIFF with Pillow. Axes are
always I, J, K as in NIfTI (columns first), affines RAS in mm.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medimg3d.errors import DataError, GeometryError

NIFTI_ENDINGS = (".nii.gz", ".nii")
ITK_ENDINGS = (".nrrd", ".nhdr", ".mha", ".mhd", ".dcm")
PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
IMAGE_ENDINGS = NIFTI_ENDINGS + ITK_ENDINGS + PICTURE_ENDINGS
SLICE_GAP_TOLERANCE_MM = 0.01
SHEAR_TOLERANCE_MM = 0.1

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True, eq=False)
class ImageFacts:
    """What was found in one image file.

    Attributes:
        shape: Voxels along I, J (, K (, T)); axes of length one at the end are dropped, down to two.
        channels: Colour channels, 1 for grey.
        affine: RAS affine in mm, shape (4, 4); None for pictures, which have none.
        digest: Hash of the decoded voxels and their shape, whatever the compression.
        finite: No NaN and no infinity.
        label_values: Distinct values, ascending; empty unless it was read as a label.
        box: First voxel and the one after the last along each of up to three axes, of what is not background:
            in a label 0, in an image the value of its first voxel. None if there is nothing else.
    """

    shape: tuple[int, ...]
    channels: int
    affine: np.ndarray | None
    digest: str
    finite: bool
    label_values: tuple[float, ...] = ()
    box: tuple[tuple[int, int], ...] | None = None

    @property
    def orientation(self) -> str:
        """Where the axes I, J, K run, ``"RAS"``; empty without an affine."""
        if self.affine is None:
            return ""
        import nibabel

        return "".join(nibabel.aff2axcodes(self.affine))

    @property
    def spacing_mm(self) -> tuple[float, ...] | None:
        """Voxel size along the axes nearest to R, A, S, whatever their order in the file; None in 2D."""
        if self.affine is None or len(self.shape) < 3:
            return None
        import nibabel

        axes = nibabel.io_orientation(self.affine)[:, 0]
        sizes = np.linalg.norm(self.affine[:3, :3], axis=0)
        return tuple(float(sizes[axis]) for axis in np.argsort(axes))

    def as_json(self) -> dict[str, Any]:
        """The facts as plain values, for :meth:`from_json`."""
        return asdict(self) | {"affine": None if self.affine is None else self.affine.tolist()}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> ImageFacts:
        """The facts of :meth:`as_json`."""
        affine, box = content["affine"], content["box"]
        return cls(
            shape=tuple(content["shape"]),
            channels=int(content["channels"]),
            affine=None if affine is None else np.array(affine, float),
            digest=str(content["digest"]),
            finite=bool(content["finite"]),
            label_values=tuple(float(value) for value in content["label_values"]),
            box=None if box is None else tuple((int(start), int(stop)) for start, stop in box),
        )


@dataclass(frozen=True, eq=False)
class _Decoded:
    array: np.ndarray  # I, J (, K (, T)), channels apart in the last axis if channels > 1
    channels: int
    affine: np.ndarray | None


def image_ending(path: Path) -> str:
    """The known ending of a file name (``.nii.gz``), lower case; empty if it is none."""
    name = path.name.lower()
    return next((ending for ending in IMAGE_ENDINGS if name.endswith(ending)), "")


def is_dicom_folder(path: Path) -> bool:
    """Whether a folder directly holds DICOM files (by ``.dcm``, or by the DICM mark at byte 128)."""
    if not path.is_dir():
        return False
    files = sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
    return any(file.suffix.lower() == ".dcm" for file in files) or (bool(files) and _has_dicom_mark(files[0]))


def read_facts(path: Path, *, as_label: bool = False) -> ImageFacts:
    """Read one image, or one folder with one DICOM series, once.

    Args:
        path: File or folder.
        as_label: Also collect the distinct values.

    Returns:
        The facts; the voxels are let go.

    Raises:
        DataError: The file is missing, unreadable, truncated or of an unknown kind. The message starts with a
            verb ("is missing ...") and holds no path.
        GeometryError: A DICOM series with unequal slice distances or a gantry tilt, or an affine that is no
            grid.
    """
    if not path.exists():
        raise DataError("is missing; expected a file or a DICOM folder at the path in the datalist")
    decoded = _decode(path)
    if decoded.array.size == 0:
        raise DataError(f"is empty (shape {decoded.array.shape})")
    if decoded.affine is not None:
        _check_affine(decoded.affine)
    array = np.ascontiguousarray(decoded.array)
    shape = _spatial_shape(array.shape[:-1] if decoded.channels > 1 else array.shape)
    return ImageFacts(
        shape=shape,
        channels=decoded.channels,
        affine=decoded.affine,
        digest=_digest(array),
        finite=bool(np.isfinite(array).all()) if array.dtype.kind in "fc" else True,
        label_values=_distinct(array) if as_label else (),
        box=_content_box(array, shape[:3], empty=0 if as_label else array.flat[0]),
    )


def corner_distance_mm(first: ImageFacts, second: ImageFacts) -> float:
    """How far apart two grids place their corner voxels, at most, in mm; 0 if either has no geometry.

    The grids must have the same shape.
    """
    if first.affine is None or second.affine is None:
        return 0.0
    size = [*first.shape[:3], 1, 1, 1][:3]
    corners = np.array(
        [[i, j, k, 1] for i in (0, size[0] - 1) for j in (0, size[1] - 1) for k in (0, size[2] - 1)]
    )
    apart = corners @ (first.affine - second.affine).T
    return float(np.linalg.norm(apart[:, :3], axis=1).max())


def _decode(path: Path) -> _Decoded:
    readers: dict[tuple[str, ...], Callable[[Path], _Decoded]] = {
        NIFTI_ENDINGS: _read_nifti,
        ITK_ENDINGS: _read_itk,
        PICTURE_ENDINGS: _read_picture,
    }
    ending = image_ending(path)
    reader = next((read for endings, read in readers.items() if ending in endings), None)
    if path.is_dir():
        reader = _read_dicom_folder
    if reader is None:
        raise DataError(
            f"is of an unknown kind ({path.suffix or 'no ending'}); expected {', '.join(IMAGE_ENDINGS)}"
        )
    try:
        return reader(path)
    except (DataError, GeometryError):
        raise
    except Exception as err:  # each reader has its own zoo of errors; none may stop the rest
        # The readers' own words are left out: they hold paths, DICOM ones also header values.
        raise DataError(
            f"cannot be read ({type(err).__name__}): truncated, damaged or not what its ending says"
        ) from err


def _read_nifti(path: Path) -> _Decoded:
    import nibabel

    image: Any = nibabel.load(path)
    if image.get_data_dtype().fields:
        raise DataError("is a colour image (RGB voxels); expected one number a voxel")
    array, channels = np.asanyarray(image.dataobj), 1
    if array.ndim == 5 and array.shape[3] == 1:  # the standard's place for the components of a vector
        channels = array.shape[4]
        array = array[..., 0, :] if channels > 1 else array[..., 0, 0]
    return _Decoded(array, channels, np.asarray(image.affine, float))


def _read_picture(path: Path) -> _Decoded:
    from PIL import Image

    with Image.open(path) as picture:
        array = np.asarray(picture)
    if array.dtype == bool:
        array = array.astype(np.uint8)
    return _Decoded(array.swapaxes(0, 1), array.shape[2] if array.ndim == 3 else 1, None)


def _read_itk(path: Path) -> _Decoded:
    import SimpleITK as sitk  # noqa: N813 - the name everyone uses

    return _from_itk(sitk.ReadImage(str(path)))


def _read_dicom_folder(path: Path) -> _Decoded:
    import SimpleITK as sitk  # noqa: N813

    with _quiet_itk():
        return _read_one_series(path, sitk)


def _read_one_series(path: Path, sitk: Any) -> _Decoded:
    series = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(path))
    if len(series) != 1:
        raise DataError(
            f"is a folder with {len(series)} DICOM series; expected exactly one. Give each its own folder"
        )
    files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(path), series[0])
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(files)
    reader.MetaDataDictionaryArrayUpdateOn()
    image = reader.Execute()
    if len(files) > 1:
        _check_slice_gaps(
            np.array([_numbers(reader.GetMetaData(n, "0020|0032")) for n in range(len(files))]),
            np.array(_numbers(reader.GetMetaData(0, "0020|0037"))),
        )
    return _from_itk(image)


@contextmanager
def _quiet_itk() -> Iterator[None]:
    """Keep ITK's console remarks back; what they say of slice gaps is checked here."""
    import SimpleITK as sitk  # noqa: N813

    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)


def _from_itk(image: Any) -> _Decoded:
    import SimpleITK as sitk  # noqa: N813

    channels = int(image.GetNumberOfComponentsPerPixel())
    array = sitk.GetArrayFromImage(image)  # K, J, I (, channel)
    axes = range(array.ndim - (channels > 1))
    array = array.transpose(*reversed(axes), *([array.ndim - 1] if channels > 1 else []))
    return _Decoded(array, channels, _itk_affine(image) if image.GetDimension() == 3 else None)


def _itk_affine(image: Any) -> np.ndarray:
    lps = np.eye(4)
    lps[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    lps[:3, 3] = image.GetOrigin()
    return _LPS_TO_RAS @ lps


def _check_slice_gaps(positions_mm: np.ndarray, orientation: np.ndarray) -> None:
    """Refuse a series with a missing or doubled slice or a gantry tilt, which readers accept in silence.

    Args:
        positions_mm: ImagePositionPatient of each slice, shape (slices, 3), in reading order.
        orientation: ImageOrientationPatient, shape (6,).
    """
    normal = np.cross(orientation[:3], orientation[3:])
    steps_mm = np.diff(positions_mm, axis=0)
    gaps = np.abs(steps_mm @ normal)
    shift_mm = float(np.linalg.norm(steps_mm - np.outer(steps_mm @ normal, normal), axis=1).max())
    if gaps.max() - gaps.min() > 2 * SLICE_GAP_TOLERANCE_MM or gaps.min() < SLICE_GAP_TOLERANCE_MM:
        raise GeometryError(
            f"has slice gaps from {gaps.min():.2f} to {gaps.max():.2f} mm; expected one gap "
            f"(±{SLICE_GAP_TOLERANCE_MM} mm). A slice may be missing or doubled: check the series"
        )
    if shift_mm > SHEAR_TOLERANCE_MM:
        raise GeometryError(
            f"has slices that shift by {shift_mm:.2f} mm within their plane (gantry tilt); expected a "
            "straight stack. Straighten it first, with dcm2niix or the scanner's software"
        )


def _check_affine(affine: np.ndarray) -> None:
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise GeometryError(
            "has an affine that is no grid (not finite, or with an axis of length zero); save it anew"
        )


def _spatial_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    sizes = list(shape)
    while len(sizes) > 2 and sizes[-1] == 1:
        sizes.pop()
    return tuple(int(size) for size in sizes)


def _content_box(
    array: np.ndarray, space: tuple[int, ...], *, empty: Any
) -> tuple[tuple[int, int], ...] | None:
    """Bounds of what differs from ``empty``, over all channels and times."""
    filled = (array != empty).reshape(*space, -1)
    filled = filled[..., 0] if filled.shape[-1] == 1 else filled.any(axis=-1)
    bounds = []
    for axis in range(len(space)):
        along = np.flatnonzero(filled.any(axis=tuple(other for other in range(len(space)) if other != axis)))
        if not along.size:
            return None
        bounds.append((int(along[0]), int(along[-1]) + 1))
    return tuple(bounds)


def _digest(array: np.ndarray) -> str:
    hasher = hashlib.blake2b(f"{array.shape} {array.dtype.kind}".encode(), digest_size=16)
    hasher.update(array.data.cast("B") if array.dtype.isnative else array.tobytes())
    return hasher.hexdigest()


def _distinct(array: np.ndarray) -> tuple[float, ...]:
    """Distinct values, ascending; counting instead of sorting where the values are small whole numbers."""
    if array.dtype.kind in "ui" and int(array.min()) >= 0 and int(array.max()) < 65536:
        return tuple(float(value) for value in np.flatnonzero(np.bincount(array.ravel())))
    return tuple(float(value) for value in np.unique(array))


def _numbers(text: str) -> list[float]:
    return [float(part) for part in text.split("\\")]


def _has_dicom_mark(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"
