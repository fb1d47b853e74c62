"""A picture of an image with its label map: three planes through the biggest cross-section."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medimg3d.report.canvas import new_figure, save_png
from medimg3d.report.colors import class_color

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WINDOW_PERCENTILES = (0.5, 99.5)
FILL = 0.35


@dataclass(frozen=True)
class Plane:
    """How a plane of a volume in RAS order is laid on the page, the radiological way.

    The page's left shows the high end of ``across``: the patient's right is on the left of the page (seen
    from the feet or from the front), and the nose is at the left of a sagittal plane.

    Args:
        name: Name of the plane.
        through: Axis that the plane cuts (0 to the right, 1 to the front, 2 to the head).
        across: Axis along the width of the page.
        up: Axis that runs from bottom to top of the page.
        letters: What lies at left, right, top and bottom of the page.
    """

    name: str
    through: int
    across: int
    up: int
    letters: tuple[str, str, str, str]


PLANES = (
    Plane("axial", 2, 0, 1, ("R", "L", "A", "P")),
    Plane("coronal", 1, 0, 2, ("R", "L", "S", "I")),
    Plane("sagittal", 0, 1, 2, ("A", "P", "S", "I")),
)


def overlay_figure(
    image: NDArray[Any],
    label: NDArray[Any],
    *,
    spacing_mm: Sequence[float],
    class_names: Mapping[int, str],
    path: Path,
    truth: NDArray[Any] | None = None,
    title: str = "",
) -> Path:
    """Draw the three planes that cut the most labelled voxels: image in grey, classes filled and outlined.

    An image that is one voxel thick is drawn as the one plane that it is.

    Args:
        image: Image, shape (I, J, K), axes in RAS order (``nibabel.as_closest_canonical``); drawn between
            its 0.5th and 99.5th percentile.
        label: Label map, same shape; 0 is background.
        spacing_mm: Voxel size along I, J, K, in mm; gives the pictures their proportions.
        class_names: Label → name, for the legend; a label without a name is not drawn.
        path: PNG to write.
        truth: Label map drawn as dashed outlines, same shape.
        title: Title of the picture; must not name a patient.

    Returns:
        ``path``.

    Raises:
        ValueError: The shapes differ, or the image is not 3D.
    """
    image, label = np.asarray(image), np.asarray(label)
    truth = None if truth is None else np.asarray(truth)
    _check_shapes(image, label, truth)
    marked = label != 0 if truth is None else (label != 0) | (truth != 0)
    spacing = np.asarray(spacing_mm, dtype=np.float64)
    size_mm = np.array(image.shape) * spacing
    window = _grey_window(image)
    planes = _planes(image.shape)
    figure = new_figure(width=11 if len(planes) > 1 else 5, height=4.4)
    widths = [float(size_mm[plane.across]) for plane in planes]
    columns = figure.subplots(1, len(planes), width_ratios=widths, squeeze=False)[0]
    for plane, axes in zip(planes, columns, strict=True):
        index = _biggest_section(marked, plane.through)
        extent = (0.0, float(size_mm[plane.across]), 0.0, float(size_mm[plane.up]))
        grey = _section(image, plane, index)
        axes.imshow(grey, cmap="gray", vmin=window[0], vmax=window[1], origin="lower", extent=extent)
        _fill(axes, _section(label, plane, index), class_names, extent)
        _outline(axes, plane, _section(label, plane, index), class_names, spacing)
        if truth is not None:
            _outline(axes, plane, _section(truth, plane, index), class_names, spacing, dashed=True)
        _annotate(axes, plane, f"{plane.name}, slice {index}" if len(planes) > 1 else plane.name)
    _legend(figure, class_names, with_truth=truth is not None)
    if title:
        figure.suptitle(title, fontsize=11)
    return save_png(figure, path)


def _planes(shape: tuple[int, ...]) -> tuple[Plane, ...]:
    """The planes to draw: all, or the one in which an image lies that is one voxel thick."""
    flat = tuple(plane for plane in PLANES if shape[plane.through] == 1)
    return flat[:1] or PLANES


def _check_shapes(image: NDArray[Any], label: NDArray[Any], truth: NDArray[Any] | None) -> None:
    shapes = [array.shape for array in (image, label, truth) if array is not None]
    if image.ndim != 3 or len(set(shapes)) != 1:
        raise ValueError(
            f"Found arrays of shapes {', '.join(map(str, shapes))}; expected one 3D shape (I, J, K) for all."
        )


def _grey_window(image: NDArray[Any]) -> tuple[float, float]:
    finite = image[np.isfinite(image)]
    if not finite.size:
        return 0.0, 1.0
    low, high = np.percentile(finite, WINDOW_PERCENTILES)
    return float(low), float(high if high > low else low + 1)


def _biggest_section(label: NDArray[Any], axis: int) -> int:
    """Index of the plane with the most labelled voxels; the middle one if several (or none) are equal."""
    others = tuple(other for other in range(3) if other != axis)
    counts = np.count_nonzero(label, axis=others)
    best = np.flatnonzero(counts == counts.max())
    return int(best[len(best) // 2])


def _section(volume: NDArray[Any], plane: Plane, index: int) -> NDArray[Any]:
    """The plane as rows from bottom to top of the page; columns still run along ``across``."""
    section = np.take(volume, index, axis=plane.through)
    return section if plane.across > plane.up else section.T


def _fill(
    axes: Axes,
    section: NDArray[Any],
    class_names: Mapping[int, str],
    extent: tuple[float, float, float, float],
) -> None:
    from matplotlib.colors import to_rgba

    rgba = np.zeros((*section.shape, 4))
    for position, label in enumerate(class_names):
        rgba[section == label] = to_rgba(class_color(position), FILL)
    axes.imshow(rgba, origin="lower", extent=extent, interpolation="nearest")


def _outline(
    axes: Axes,
    plane: Plane,
    section: NDArray[Any],
    class_names: Mapping[int, str],
    spacing: NDArray[np.float64],
    *,
    dashed: bool = False,
) -> None:
    """Contours through the voxels' edges; the plane is padded so that a shape at the border is closed."""
    x, y = (
        (np.arange(-1, count + 1) + 0.5) * spacing[axis]
        for count, axis in zip(section.shape[::-1], (plane.across, plane.up), strict=True)
    )
    for position, label in enumerate(class_names):
        mask = np.pad(section == label, 1)
        if mask.any():
            axes.contour(
                x,
                y,
                mask.astype(float),
                levels=[0.5],
                colors=["white" if dashed else class_color(position)],
                linewidths=1.4,
                linestyles="dashed" if dashed else "solid",
            )


def _annotate(axes: Axes, plane: Plane, title: str) -> None:
    axes.invert_xaxis()
    axes.set_axis_off()
    axes.set_title(title, fontsize=9)
    places = (
        (0.02, 0.5, "left", "center"),
        (0.98, 0.5, "right", "center"),
        (0.5, 0.98, "center", "top"),
        (0.5, 0.02, "center", "bottom"),
    )
    for letter, (x, y, across, up) in zip(plane.letters, places, strict=True):
        axes.text(
            x,
            y,
            letter,
            transform=axes.transAxes,
            color="white",
            fontsize=10,
            ha=across,
            va=up,
            bbox={"facecolor": "black", "alpha": 0.45, "pad": 1.5, "edgecolor": "none"},
        )


def _legend(figure: Figure, class_names: Mapping[int, str], *, with_truth: bool) -> None:
    from matplotlib.colors import to_rgba
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = [
        Patch(facecolor=to_rgba(class_color(position), FILL), edgecolor=class_color(position), label=name)
        for position, name in enumerate(class_names.values())
    ]
    if with_truth:
        handles.append(Line2D([], [], color="white", linestyle="dashed", label="reference (outline)"))
    if handles:
        legend = figure.legend(
            handles=handles,
            loc="outside lower center",
            ncols=min(len(handles), 6),
            fontsize=9,
            facecolor="0.35",
        )
        for text in legend.get_texts():
            text.set_color("white")
