"""The overlay of a case whose axes run any way: turned to RAS order first, as the drawing expects it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medimg3d.report.overlays import overlay_figure


def case_overlay(
    image: NDArray[Any],
    labels: NDArray[Any],
    affine: NDArray[np.float64],
    *,
    class_names: Mapping[int, str],
    title: str,
    path: Path,
    truth: NDArray[Any] | None = None,
) -> Path:
    """Draw an image with its label map after turning both to the nearest RAS order; nothing is resampled.

    Args:
        image: Image, shape (I, J, K), axes in any order and direction; or (I, J), drawn as one picture.
        labels: Label map, same shape.
        affine: RAS affine of both, in mm, shape (4, 4).
        class_names: Label → name.
        title: Title of the picture; must not name a patient.
        path: PNG to write.
        truth: Reference label map, drawn as dashed outlines; same shape.

    Returns:
        ``path``.
    """
    from nibabel.orientations import apply_orientation, io_orientation

    if image.ndim == 2:
        image, labels = image[..., None], labels[..., None]
        truth = None if truth is None else truth[..., None]
    turn = io_orientation(affine)
    spacing_mm = np.linalg.norm(affine[:3, :3], axis=0)[np.argsort(turn[:, 0])]
    return overlay_figure(
        apply_orientation(image, turn),
        apply_orientation(labels, turn),
        spacing_mm=[float(size) for size in spacing_mm],
        class_names=class_names,
        title=title,
        path=path,
        truth=None if truth is None else apply_orientation(truth, turn),
    )
