"""A real head that comes with an installed package: the MNI152 T1 template inside nilearn."""

from __future__ import annotations

import numpy as np

from medimg3d.data.nifti_header import geometry_header
from medimg3d.data.volume_file import Volume
from medimg3d.errors import MissingExtraError


def mni152_t1() -> Volume:
    """The MNI ICBM 152 nonlinear T1 template at 1 mm, skull removed; the mean of 152 adults' heads.

    Nothing is downloaded: nilearn carries the file.

    Returns:
        The template, float32, shape (197, 233, 189), axes RAS.

    Raises:
        MissingExtraError: nilearn is not installed.

    Source: Fonov et al. 2011, doi:10.1016/j.neuroimage.2010.07.033.
    """
    try:
        from nilearn.datasets import load_mni152_template
    except ImportError as err:
        raise MissingExtraError("nilearn", "demo") from err
    image = load_mni152_template(resolution=1)
    array = np.asarray(image.dataobj, dtype=np.float32)
    affine = np.asarray(image.affine, dtype=np.float64)
    return Volume(array, affine, geometry_header(array.shape, affine, code="mni"), has_known_size=True)
