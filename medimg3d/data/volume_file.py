"""Reads a volume with its grid from any format, for what MONAI's readers do not tell."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medimg3d.data.fast_nifti import NiftiGrid, read_nifti, read_nifti_grid
from medimg3d.data.image_facts import NIFTI_ENDINGS
from medimg3d.data.nifti_header import geometry_header, geometry_of
from medimg3d.errors import DataError, GeometryError

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True, eq=False)
class Volume:
    """A volume and where it lies.

    Attributes:
        array: Voxels, shape (I, J, K), or (I, J, K, channels); 2D images keep two axes.
        affine: RAS affine in mm, shape (4, 4).
        header: NIfTI header that holds the geometry and nothing else.
        has_known_size: Whether the file states a voxel size. It does not if the header has neither an sform
            nor a qform and names no unit: the numbers are then a program's defaults.
    """

    array: NDArray[Any]
    affine: NDArray[np.float64]
    header: Any
    has_known_size: bool

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel size along I, J, K, in mm; of no meaning where ``has_known_size`` is False."""
        i, j, k = (float(size) for size in np.linalg.norm(self.affine[:3, :3], axis=0))
        return i, j, k

    @property
    def voxel_ml(self) -> float | None:
        """Volume of one voxel in mL, shears included; None where the size is not known."""
        return abs(float(np.linalg.det(self.affine[:3, :3]))) / 1000 if self.has_known_size else None

    def without_voxels(self) -> Volume:
        """The same with zeros that take no memory in place of the voxels: for where only the grid counts."""
        return replace(self, array=_zeros(self.array.shape, self.array.dtype))

    def with_channels(self, count: int) -> Volume:
        """The same grid with so many channels behind it, without their voxels.

        Args:
            count: Number of channels.
        """
        return replace(self, array=_zeros((*self.array.shape, count), self.array.dtype))


def read_volume(path: Path) -> Volume:
    """Read NIfTI with nibabel's headers, NRRD and MetaImage with SimpleITK.

    Raises:
        DataError: Unreadable, truncated, not what the ending says, colour or complex voxels, or no voxel.
            Messages start with a verb and hold no path.
        GeometryError: The affine is not finite or flattens the volume, or lengths are not in mm.
    """
    reader = _read_nifti if path.name.lower().endswith(NIFTI_ENDINGS) else _read_itk
    return _read(reader, path)


def read_volume_grid(path: Path) -> Volume:
    """As :func:`read_volume`, but without the voxels: zeros that take no memory stand in for them.

    Raises:
        DataError: As :func:`read_volume`, as far as the header tells.
        GeometryError: As :func:`read_volume`.
    """
    reader = _nifti_grid if path.name.lower().endswith(NIFTI_ENDINGS) else _itk_grid
    return _read(reader, path)


def write_volume(volume: Volume, path: Path) -> Path:
    """Write a volume as NIfTI in its own data type, for readers that know no other format."""
    import nibabel

    own = volume.header.copy()
    own.set_data_dtype(volume.array.dtype)
    nibabel.save(nibabel.Nifti1Image(volume.array, None, own), path)
    return path


def _read(reader: Callable[[Path], Volume], path: Path) -> Volume:
    try:
        volume = reader(path)
    except (DataError, GeometryError):
        raise
    except Exception as err:  # each reader has its own zoo of errors, and their words hold paths
        raise DataError(
            f"cannot be read ({type(err).__name__}): truncated, damaged or not what its ending says"
        ) from err
    if volume.array.size == 0:
        raise DataError(f"is empty (shape {volume.array.shape})")
    return volume


def _read_nifti(path: Path) -> Volume:
    stored = read_nifti(path, dtype=None)
    return _nifti_volume(
        stored.array, NiftiGrid(stored.array.shape, stored.array.dtype, stored.affine, stored.header)
    )


def _nifti_grid(path: Path) -> Volume:
    grid = read_nifti_grid(path)
    return _nifti_volume(_zeros(grid.shape, grid.dtype), grid)


def _nifti_volume(array: NDArray[Any], grid: NiftiGrid) -> Volume:
    if grid.dtype.kind == "c":
        raise DataError("has complex voxels; expected one real number a voxel. Take the magnitude")
    unit = grid.header.get_xyzt_units()[0]
    if unit in ("meter", "micron"):
        raise GeometryError(f"gives its lengths in {unit}; expected mm. Mend the units of the header")
    array = _without_last_ones(array)
    affine = _with_normal(grid.affine) if array.ndim == 2 else grid.affine
    _check_affine(affine)
    has_codes = bool(int(grid.header["sform_code"]) or int(grid.header["qform_code"]))
    is_known = has_codes or unit == "mm"
    header = geometry_of(grid.header, array.shape[:3], unit="mm" if is_known else "unknown")
    return Volume(array, affine, header, has_known_size=is_known)


def _read_itk(path: Path) -> Volume:
    import SimpleITK as sitk  # noqa: N813 - the name everyone uses

    image = sitk.ReadImage(str(path))
    affine = _itk_affine(image)
    array = np.ascontiguousarray(sitk.GetArrayFromImage(image).T)  # K, J, I → I, J, K
    array = array.astype(np.int32) if array.dtype == np.int64 else array
    return Volume(array, affine, geometry_header(array.shape[:3], affine), has_known_size=True)


def _itk_grid(path: Path) -> Volume:
    import SimpleITK as sitk  # noqa: N813 - the name everyone uses

    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    affine = _itk_affine(reader)
    one = sitk.GetArrayFromImage(sitk.Image([1] * reader.GetDimension(), reader.GetPixelID()))
    array = _zeros(reader.GetSize(), one.dtype)
    return Volume(array, affine, geometry_header(array.shape[:3], affine), has_known_size=True)


def _itk_affine(image: Any) -> NDArray[np.float64]:
    """RAS affine of an image, or of a reader that has read its header."""
    is_reader = hasattr(image, "GetNumberOfComponents")
    if (image.GetNumberOfComponents() if is_reader else image.GetNumberOfComponentsPerPixel()) > 1:
        raise DataError("has several numbers a voxel (colour or vectors); expected one")
    lps = np.eye(4)
    axes = image.GetDimension()
    if axes in (2, 3):
        direction = np.array(image.GetDirection()).reshape(axes, axes)
        lps[:axes, :axes] = direction * np.array(image.GetSpacing())
        lps[:axes, 3] = image.GetOrigin()
    affine: NDArray[np.float64] = _LPS_TO_RAS @ lps
    _check_affine(affine)
    return affine


def _zeros(shape: Sequence[int], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Zeros that are all one number in memory; they cannot be written to."""
    return np.broadcast_to(np.zeros((), dtype), tuple(shape))


def _with_normal(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """The affine of a 2D image with an axis of 1 mm through it where the header gives that no length."""
    if np.any(affine[:3, 2]):
        return affine
    normal = np.cross(affine[:3, 0], affine[:3, 1])
    whole = affine.copy()
    whole[:3, 2] = normal / max(float(np.linalg.norm(normal)), 1e-12)
    return whole


def _check_affine(affine: NDArray[np.float64]) -> None:
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise GeometryError(
            "has an affine that is no grid (not finite, or with an axis of length zero); save it anew"
        )


def _without_last_ones(array: NDArray[Any]) -> NDArray[Any]:
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    return array
