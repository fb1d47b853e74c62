"""MONAI's Spacing, sampled axis by axis in float32: the same grid and values, several times as fast."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Any

import numpy as np
import torch
from monai.config import DtypeLike, KeysCollection
from monai.data import MetaTensor, get_track_meta
from monai.data.utils import AFFINE_TOL, to_affine_nd
from monai.networks.layers import AffineTransform
from monai.transforms import Spacing, Spacingd, SpatialResample
from monai.transforms.inverse import TraceableTransform
from monai.utils import TraceKeys, convert_to_tensor
from monai.utils.type_conversion import get_torch_dtype_from_string

from medimg3d.geometry.axis_map import TOLERANCE_VOXELS
from medimg3d.geometry.linear_sampling import AxisSamples, resample

MODES = ("bilinear", "nearest")
PADDING_MODES = ("border",)


class SeparableSpacing(Spacing):
    """Drop-in for ``monai.transforms.Spacing``.

    Output size and affine are MONAI's own. Linear values differ from MONAI's float64 sampling by rounding, at most
    1e-6 of the image's range (1e-4 where an affine's axes are off the right angle by that much of a voxel). Nearest
    values are the same; halfway between two voxels both take MONAI's choice: the even voxel number, or the side
    that the rounding of float64 falls to. (In an oblique affine that rounding can differ from voxel to voxel of a
    plane; only such ties can differ.) Sheared affines, and images that are neither 2D nor 3D, are sampled by MONAI.

    The resampling is recorded as MONAI's is, so that ``Invertd`` inverts it, axis by axis as well.

    Args:
        pixdim: Spacing wanted, as in MONAI, as all other arguments.
        diagonal: Must be False.
        mode: ``"bilinear"`` or ``"nearest"``.
        padding_mode: Must be ``"border"``.
        align_corners: As in MONAI; without effect on values but on axes that end with one voxel.
        dtype: Of MONAI's own sampling, where that is used; the sampling here is in float32.
        scale_extent: As in MONAI.
        recompute_affine: As in MONAI.
        min_pixdim: As in MONAI.
        max_pixdim: As in MONAI.

    Raises:
        ValueError: ``diagonal``, ``mode`` or ``padding_mode`` is another.

    Source: Project-MONAI/MONAI 1.6.1, ``monai/transforms/spatial/functional.py``.
    """

    def __init__(
        self,
        pixdim: Sequence[float] | float | np.ndarray,
        diagonal: bool = False,
        mode: str = "bilinear",
        padding_mode: str = "border",
        align_corners: bool = False,
        dtype: DtypeLike = np.float64,
        scale_extent: bool = False,
        recompute_affine: bool = False,
        min_pixdim: Sequence[float] | float | np.ndarray | None = None,
        max_pixdim: Sequence[float] | float | np.ndarray | None = None,
    ) -> None:
        if diagonal:
            raise ValueError("diagonal must be False: axes are kept, not turned; use MONAI's Spacing for it.")
        super().__init__(
            pixdim,
            scale_extent=scale_extent,
            recompute_affine=recompute_affine,
            min_pixdim=min_pixdim,
            max_pixdim=max_pixdim,
        )
        self.sp_resample = SeparableResample(
            _checked("mode", mode, MODES),
            _checked("padding_mode", padding_mode, PADDING_MODES),
            align_corners=align_corners,
            dtype=dtype,
        )


class SeparableSpacingd(Spacingd):
    """Dictionary version of :class:`SeparableSpacing`; drop-in for ``monai.transforms.Spacingd``.

    Args:
        keys: Images and label maps of one case.
        pixdim: As for :class:`SeparableSpacing`.
        diagonal: Must be False.
        mode: One, or one a key: ``"bilinear"`` for images, ``"nearest"`` for label maps.
        padding_mode: One, or one a key; must be ``"border"``.
        align_corners: One, or one a key.
        dtype: One, or one a key.
        scale_extent: One, or one a key.
        recompute_affine: As for :class:`SeparableSpacing`.
        min_pixdim: As for :class:`SeparableSpacing`.
        max_pixdim: As for :class:`SeparableSpacing`.
        ensure_same_shape: As in MONAI: keys of one size and spacing keep one size.
        allow_missing_keys: Pass over keys that a case lacks.

    Raises:
        ValueError: ``diagonal``, a ``mode`` or a ``padding_mode`` is another.
    """

    def __init__(
        self,
        keys: KeysCollection,
        pixdim: Sequence[float] | float,
        diagonal: bool = False,
        mode: Sequence[str] | str = "bilinear",
        padding_mode: Sequence[str] | str = "border",
        align_corners: Sequence[bool] | bool = False,
        dtype: Sequence[DtypeLike] | DtypeLike = np.float64,
        scale_extent: bool = False,
        recompute_affine: bool = False,
        min_pixdim: Sequence[float] | float | None = None,
        max_pixdim: Sequence[float] | float | None = None,
        ensure_same_shape: bool = True,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(
            keys,
            pixdim,
            mode=mode,
            padding_mode=padding_mode,
            align_corners=align_corners,
            dtype=dtype,
            scale_extent=scale_extent,
            ensure_same_shape=ensure_same_shape,
            allow_missing_keys=allow_missing_keys,
        )
        self.mode = tuple(_checked("mode", one, MODES) for one in self.mode)
        self.padding_mode = tuple(_checked("padding_mode", one, PADDING_MODES) for one in self.padding_mode)
        self.spacing_transform = SeparableSpacing(
            pixdim,
            diagonal=diagonal,
            recompute_affine=recompute_affine,
            min_pixdim=min_pixdim,
            max_pixdim=max_pixdim,
        )


class SeparableResample(SpatialResample):
    """``monai.transforms.SpatialResample`` that samples axis by axis where the two grids' axes are the same.

    Any other request goes to MONAI's own: other modes, turned or sheared grids, lazy calls.
    """

    def __call__(
        self,
        img: torch.Tensor,
        dst_affine: torch.Tensor | None = None,
        spatial_size: Sequence[int] | torch.Tensor | int | None = None,
        mode: str | int | None = None,
        padding_mode: str | None = None,
        align_corners: bool | None = None,
        dtype: DtypeLike = None,
        lazy: bool | None = None,
    ) -> torch.Tensor:
        """Sample an image, shape (channels, *spatial), on the grid of ``dst_affine`` and ``spatial_size``."""
        how = {
            "mode": _plain(self.mode if mode is None else mode),
            "padding_mode": _plain(self.padding_mode if padding_mode is None else padding_mode),
            "align_corners": self.align_corners if align_corners is None else align_corners,
        }
        matrix = None
        if not (self.lazy if lazy is None else lazy) and not _is_pending(img):
            matrix = _separable_matrix(img, dst_affine, spatial_size, how)
        if matrix is None:
            return super().__call__(img, dst_affine, spatial_size, dtype=dtype, lazy=lazy, **how)
        size: Any = spatial_size
        return self._sample(img, matrix, [int(one) for one in size], how)

    def inverse(self, data: torch.Tensor) -> torch.Tensor:
        """Sample the image on the grid it came from."""
        done = self.pop_transform(data)
        how = dict(done[TraceKeys.EXTRA_INFO])
        corners, dtype = how["align_corners"], get_torch_dtype_from_string(how["dtype"])
        with self.trace_transform(False):
            return self(
                data,
                dst_affine=how["src_affine"],
                spatial_size=done[TraceKeys.ORIG_SIZE],
                mode=how["mode"],
                padding_mode=how["padding_mode"],
                align_corners=False if corners == TraceKeys.NONE else corners,
                dtype=dtype,  # type: ignore[arg-type]
            )

    def _sample(
        self, img: torch.Tensor, matrix: np.ndarray, size: list[int], how: dict[str, Any]
    ) -> torch.Tensor:
        """Sample where new voxels are old voxels by ``matrix``, and record it as MONAI does."""
        img = convert_to_tensor(img, track_meta=get_track_meta())
        source = to_affine_nd(img.ndim - 1, _affine(img)).to(torch.float64)
        before = list(img.shape[1:])
        # As in MONAI: a step that changes next to nothing is none.
        is_same = size == before and bool(
            np.allclose(source, source.numpy() @ matrix, atol=AFFINE_TOL)
            or np.allclose(matrix, np.eye(len(matrix)), atol=AFFINE_TOL)
        )
        meta = TraceableTransform.track_transform_meta(
            img,
            sp_size=size,
            affine=None if is_same else torch.from_numpy(matrix),
            extra_info={"dtype": "float32", "src_affine": source, **how},
            orig_size=tuple(before),
            transform_info=self.get_transform_info(),
            lazy=False,
        )
        values = img.as_tensor() if isinstance(img, MetaTensor) else img
        if is_same:
            values = values.to(torch.float32)
        else:
            values = resample(values, _samples(matrix, before, size, how["mode"], how["align_corners"]))
        if not get_track_meta():
            return values
        return MetaTensor(values).copy_meta_from(meta)


def _separable_matrix(img: Any, dst_affine: Any, size: Any, how: dict[str, Any]) -> np.ndarray | None:
    """New voxels to old ones if each axis goes to itself; None if MONAI must sample."""
    axes = img.ndim - 1
    if axes not in (2, 3) or dst_affine is None or np.ndim(size) != 1 or len(size) != axes:
        return None
    if how["mode"] not in MODES or how["padding_mode"] not in PADDING_MODES or min(size) < 1:
        return None
    source = to_affine_nd(axes, _affine(img)).numpy().astype(np.float64)
    target = np.asarray(to_affine_nd(axes, torch.as_tensor(dst_affine)), dtype=np.float64)
    try:
        matrix: np.ndarray = np.linalg.solve(source, target)
    except np.linalg.LinAlgError:
        return None  # MONAI says what is wrong
    apart = np.abs(matrix[:axes, :axes])
    np.fill_diagonal(apart, 0)
    is_parallel = (apart @ (np.asarray([int(one) for one in size]) - 1)).max() <= TOLERANCE_VOXELS
    return matrix if is_parallel else None


def _samples(
    matrix: np.ndarray, before: list[int], after: list[int], mode: str, align_corners: bool
) -> list[AxisSamples]:
    """Where the new voxels lie along every axis, as MONAI's own sampler sees them.

    It is given a line of voxel numbers along each axis, so that its coordinates, its handling of the border and its
    rounding halfway between two voxels are the ones that count.
    """
    axes = len(before)
    sampler = AffineTransform(
        normalized=False, mode=mode, padding_mode="border", align_corners=align_corners, reverse_indexing=True
    )
    samples = []
    for axis in range(axes):
        shape = [before[axis] if along == axis else 2 for along in range(axes)]
        new = [after[axis] if along == axis else 2 for along in range(axes)]
        view = [-1 if along == axis else 1 for along in range(axes)]
        line = torch.arange(before[axis], dtype=torch.float64).view(view).expand(shape)[None, None]
        theta = torch.eye(axes + 1, dtype=torch.float64)
        theta[axis, axis], theta[axis, -1] = float(matrix[axis, axis]), float(matrix[axis, -1])
        places = sampler(line, theta=theta, spatial_size=new)[0, 0].movedim(axis, -1).flatten(0, -2)[0]
        samples.append(AxisSamples.at(places.numpy(), before[axis]))
    return samples


def _affine(img: Any) -> torch.Tensor:
    affine: torch.Tensor = img.affine if isinstance(img, MetaTensor) else torch.eye(4)
    return affine.cpu()


def _is_pending(img: Any) -> bool:
    return isinstance(img, MetaTensor) and bool(img.pending_operations)


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else value


def _checked(name: str, value: Any, allowed: tuple[str, ...]) -> str:
    value = _plain(value)
    if value not in allowed:
        raise ValueError(
            f"{name} must be {' or '.join(allowed)}, got {value!r}; use MONAI's Spacing for others."
        )
    return str(value)
