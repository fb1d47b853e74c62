"""Reads a volume with its grid from any format, for what MONAI's readers do not tell."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medimg3d.data.fast_nifti import read_nifti
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


def read_volume(path: Path) -> Volume:
    """Read NIfTI with nibabel's headers, NRRD and MetaImage with SimpleITK.

    Raises:
        DataError: Unreadable, truncated, not what the ending says, colour or complex voxels, or no voxel.
            Messages start with a verb and hold no path.
        GeometryError: The affine is not finite or flattens the volume, or lengths are not in mm.
    """
    reader = _read_nifti if path.name.lower().endswith(NIFTI_ENDINGS) else _read_itk
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


def write_volume(volume: Volume, path: Path) -> Path:
    """Write a volume as NIfTI in its own data type, for readers that know no other format."""
    import nibabel

    own = volume.header.copy()
    own.set_data_dtype(volume.array.dtype)
    nibabel.save(nibabel.Nifti1Image(volume.array, None, own), path)
    return path


def _read_nifti(path: Path) -> Volume:
    stored = read_nifti(path, dtype=None)
    if stored.array.dtype.kind == "c":
        raise DataError("has complex voxels; expected one real number a voxel. Take the magnitude")
    unit = stored.header.get_xyzt_units()[0]
    if unit in ("meter", "micron"):
        raise GeometryError(f"gives its lengths in {unit}; expected mm. Mend the units of the header")
    _check_affine(stored.affine)
    array = _without_last_ones(stored.array)
    has_codes = bool(int(stored.header["sform_code"]) or int(stored.header["qform_code"]))
    is_known = has_codes or unit == "mm"
    header = geometry_of(stored.header, array.shape[:3], unit="mm" if is_known else "unknown")
    return Volume(array, stored.affine, header, has_known_size=is_known)


def _read_itk(path: Path) -> Volume:
    import SimpleITK as sitk  # noqa: N813 - the name everyone uses

    image = sitk.ReadImage(str(path))
    if image.GetNumberOfComponentsPerPixel() > 1:
        raise DataError("has several numbers a voxel (colour or vectors); expected one")
    array = np.ascontiguousarray(sitk.GetArrayFromImage(image).T)  # K, J, I → I, J, K
    array = array.astype(np.int32) if array.dtype == np.int64 else array
    lps = np.eye(4)
    if image.GetDimension() == 3:
        lps[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
        lps[:3, 3] = image.GetOrigin()
    affine = _LPS_TO_RAS @ lps
    _check_affine(affine)
    return Volume(array, affine, geometry_header(array.shape[:3], affine), has_known_size=True)


def _check_affine(affine: NDArray[np.float64]) -> None:
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise GeometryError(
            "has an affine that is no grid (not finite, or with an axis of length zero); save it anew"
        )


def _without_last_ones(array: NDArray[Any]) -> NDArray[Any]:
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    return array
