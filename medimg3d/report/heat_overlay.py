"""A picture of an image with a heat map: beside the plain image, so that the heat hides nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medimg3d.report.canvas import new_figure, save_png
from medimg3d.report.overlays import PLANES, _annotate, _grey_window, _section

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ALPHA = 0.55
AGAINST, FOR = "#2f9bff", "#ff4a1c"  # bright enough for the black of a film
CONTOUR_AT = 0.5
NOTE = "Research use only. Where a network looked is not why it decided."


@dataclass(frozen=True)
class HeatScale:
    """What the colours of a heat map mean.

    Args:
        label: Beside the colour bar, with the unit.
        signed: Negative values speak against the class, and get the cold end of the colours.
        least: The colours reach at least to this value, so that a map of next to nothing looks like it.
    """

    label: str
    signed: bool = False
    least: float = 0.0


SCALES = {
    "gradcampp": HeatScale("Grad-CAM++, share of the hottest point"),
    "occlusion": HeatScale("log-odds lost when hidden (+ for the class, − against)", signed=True, least=0.1),
}


def film_heat_figure(
    pixels: NDArray[Any],
    heat: NDArray[Any],
    *,
    path: Path,
    title: str,
    scale: HeatScale = SCALES["gradcampp"],
    spacing_mm: Sequence[float] | None = None,
) -> Path:
    """Draw a film twice: plain, and with the heat over it, a contour at half of its maximum, a colour bar.

    Args:
        pixels: Shape (rows, columns), the first row on top.
        heat: Same shape.
        path: PNG to write.
        title: Title of the picture; must not name a patient.
        scale: What the heat means.
        spacing_mm: Distance between rows and between columns, for the proportions; square pixels if None.

    Returns:
        ``path``.

    Raises:
        ValueError: The shapes differ, or are not 2D.
    """
    pixels, heat = np.asarray(pixels), np.asarray(heat)
    _check_shapes(pixels, heat, 2)
    row_mm, column_mm = spacing_mm or (1.0, 1.0)
    height, width = pixels.shape[0] * row_mm, pixels.shape[1] * column_mm
    extent = (0.0, width, height, 0.0)
    panel = min(5.0, 5.0 * width / height)
    figure = new_figure(width=2 * panel + 1.2, height=panel * height / width + 0.8)
    plain, warm = figure.subplots(1, 2)
    for axes in (plain, warm):
        _grey(axes, pixels, _grey_window(pixels), extent, "upper")
    rows = (np.arange(pixels.shape[0]) + 0.5) * row_mm
    columns = (np.arange(pixels.shape[1]) + 0.5) * column_mm
    peak = _peak(heat, scale)
    _heat(warm, heat, peak, scale, extent, "upper")
    _contour(warm, columns, rows, heat, peak)
    _finish(figure, [warm], peak, scale, title)
    return save_png(figure, path)


def volume_heat_figure(
    image: NDArray[Any],
    heat: NDArray[Any],
    affine: NDArray[np.float64],
    *,
    path: Path,
    title: str,
    scale: HeatScale = SCALES["gradcampp"],
) -> Path:
    """Draw the slice with the most heat in each of three planes: plain above, with the heat below.

    Args:
        image: Shape (I, J, K), axes in any order and direction; turned to the nearest RAS order, not resampled.
        heat: Same shape.
        affine: RAS affine of both, in mm, shape (4, 4).
        path: PNG to write.
        title: Title of the picture; must not name a patient.
        scale: What the heat means.

    Returns:
        ``path``.

    Raises:
        ValueError: The shapes differ, or are not 3D.
    """
    from nibabel.orientations import apply_orientation, io_orientation

    image, heat = np.asarray(image), np.asarray(heat)
    _check_shapes(image, heat, 3)
    turn = io_orientation(affine)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)[np.argsort(turn[:, 0])]
    image, heat = apply_orientation(image, turn), apply_orientation(heat, turn)
    size_mm = np.array(image.shape) * spacing
    window, peak = _grey_window(image), _peak(heat, scale)
    widths = [float(size_mm[plane.across]) for plane in PLANES]
    figure = new_figure(width=11, height=7.4)
    grid = figure.subplots(2, 3, width_ratios=widths)
    for plane, plain, warm in zip(PLANES, grid[0], grid[1], strict=True):
        index = hottest_slice(heat, plane.through)
        extent = (0.0, float(size_mm[plane.across]), 0.0, float(size_mm[plane.up]))
        for axes in (plain, warm):
            _grey(axes, _section(image, plane, index), window, extent, "lower")
        section = _section(heat, plane, index)
        across, up = (
            (np.arange(count) + 0.5) * spacing[axis]
            for count, axis in zip(section.shape[::-1], (plane.across, plane.up), strict=True)
        )
        _heat(warm, section, peak, scale, extent, "lower")
        _contour(warm, across, up, section, peak)
        for axes in (plain, warm):
            _annotate(axes, plane, f"{plane.name}, slice {index}")
        warm.set_title("")
    _finish(figure, list(grid.ravel()), peak, scale, title)
    return save_png(figure, path)


def hottest_slice(heat: NDArray[Any], axis: int) -> int:
    """Index of the slice with the most heat along an axis; the middle one where there is none."""
    others = tuple(other for other in range(heat.ndim) if other != axis)
    sums = np.clip(heat, 0, None).sum(axis=others)
    return int(np.argmax(sums)) if sums.max() > 0 else heat.shape[axis] // 2


def _check_shapes(image: NDArray[Any], heat: NDArray[Any], axes: int) -> None:
    if image.ndim != axes or image.shape != heat.shape:
        raise ValueError(
            f"Found an image of shape {image.shape} and a heat map of {heat.shape}; "
            f"expected one {axes}D shape for both."
        )


def _peak(heat: NDArray[Any], scale: HeatScale) -> float:
    """Value at the end of the colours; 1 for a map without any heat."""
    peak = max(scale.least, float(np.abs(heat).max()))
    return peak if peak > 0 else 1.0


def _grey(axes: Axes, pixels: NDArray[Any], window: tuple[float, float], extent: Any, origin: Any) -> None:
    axes.imshow(pixels, cmap="gray", vmin=window[0], vmax=window[1], origin=origin, extent=extent)
    axes.set_axis_off()


def _heat(axes: Axes, heat: NDArray[Any], peak: float, scale: HeatScale, extent: Any, origin: Any) -> None:
    """The heat, the more opaque the stronger: where there is none, the image shows."""
    share = np.clip(heat / peak, -1, 1)
    # Signed: the pure end colour, since the mixed ones are pale; the opacity says how much.
    rgba = _colors(scale)((np.sign(share) + 1) / 2 if scale.signed else share)
    rgba[..., 3] = ALPHA * np.abs(share)
    axes.imshow(rgba, origin=origin, extent=extent, interpolation="nearest")


def _contour(axes: Axes, across: NDArray[Any], up: NDArray[Any], heat: NDArray[Any], peak: float) -> None:
    level = CONTOUR_AT * peak
    if min(heat.shape) > 1 and float(heat.min()) < level < float(heat.max()):
        axes.contour(across, up, heat, levels=[level], colors=["white"], linewidths=1.2)


def _finish(figure: Figure, axes: list[Axes], peak: float, scale: HeatScale, title: str) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    mappable = ScalarMappable(Normalize(-peak if scale.signed else 0, peak), _colors(scale))
    bar = figure.colorbar(mappable, ax=axes, fraction=0.04, pad=0.02, aspect=30)
    bar.set_label(f"{scale.label}; contour at half", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    figure.suptitle(title, fontsize=11)
    figure.supxlabel(NOTE, fontsize=8, color="0.35")


def _colors(scale: HeatScale) -> Any:
    from matplotlib import colormaps
    from matplotlib.colors import LinearSegmentedColormap

    if scale.signed:
        return LinearSegmentedColormap.from_list("for and against", [AGAINST, "0.6", FOR])
    return colormaps["plasma"]
