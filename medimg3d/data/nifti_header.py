"""NIfTI headers that hold where a volume lies and nothing else: descriptions and extensions can name a patient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_GEOMETRY_FIELDS = (
    *("qform_code", "sform_code", "srow_x", "srow_y", "srow_z"),
    *("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
)


def geometry_header(
    shape: Sequence[int], affine: NDArray[np.float64], *, code: str = "scanner", unit: str = "mm"
) -> Any:
    """A header with an affine as sform and qform.

    Args:
        shape: Voxels along I, J, K.
        affine: RAS affine, shape (4, 4).
        code: nibabel's name of the space.
        unit: Unit of length.
    """
    import nibabel

    header = nibabel.Nifti1Header()
    header.set_data_shape(tuple(shape))
    header.set_qform(affine, code, strip_shears=True)
    header.set_sform(affine, code)
    header.set_xyzt_units(unit)
    return header


def geometry_of(source: Any, shape: Sequence[int], *, unit: str | None = None) -> Any:
    """The geometry of another header, to the bit.

    Args:
        source: Header of a NIfTI-1 or NIfTI-2 file, of either byte order.
        shape: Voxels along I, J, K.
        unit: Unit of length; the source's own if None.
    """
    import nibabel

    header = nibabel.Nifti1Header()
    header.set_data_shape(tuple(shape))
    for name in _GEOMETRY_FIELDS:
        header[name] = source[name]
    header["pixdim"][:4] = source["pixdim"][:4]
    header.set_xyzt_units(source.get_xyzt_units()[0] if unit is None else unit)
    return header
