"""Brings a heat map from the network's grid back onto the input's own, by undoing the bundle's preprocessing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medimg3d.errors import BundleError

_LINEAR = {2: "bilinear", 3: "trilinear"}


def on_input_grid(
    heat: NDArray[np.float32], image: Any, preprocessing: Callable[..., Any]
) -> NDArray[np.float32]:
    """Undo resizing, resampling, turning, cropping and padding; where the network saw nothing, the heat is 0.

    Args:
        heat: Heat map on the network's grid, shape (*spatial).
        image: What ``preprocessing`` made of the input: ``MetaTensor``, shape (C, *spatial), with the record of
            what was done to it.
        preprocessing: MONAI's ``Compose`` that made it.

    Returns:
        Heat map on the grid on which the image was loaded, between the lowest and highest values of ``heat``.

    Raises:
        BundleError: The preprocessing keeps no record, or cannot be undone.
    """
    import torch
    from monai.data import MetaTensor
    from monai.transforms import Invertd, InvertibleTransform

    if not isinstance(image, MetaTensor):
        raise BundleError(
            "The bundle's preprocessing gives no MetaTensor, so the heat map cannot be put back onto the image; "
            "load the image with LoadImaged and keep its metadata."
        )
    tracked = MetaTensor(torch.zeros(1), meta=image.meta)
    tracked.applied_operations = _smooth(image.applied_operations, image.ndim - 1)
    try:
        if not isinstance(preprocessing, InvertibleTransform):
            raise TypeError("not a Compose")
        invert = Invertd(keys="heat", transform=preprocessing, orig_keys="image", nearest_interp=False)
        back = invert({"image": tracked, "heat": MetaTensor(torch.from_numpy(heat)[None].float())})["heat"]
    except Exception as err:
        raise BundleError(
            f"The bundle's preprocessing cannot be undone ({type(err).__name__}), so the heat map cannot be put "
            "back onto the image; expected a Compose of MONAI's own transforms."
        ) from err
    # Cubic interpolation overshoots, and padding brings zeros that no heat map lacks.
    low, high = min(0.0, float(heat.min())), max(0.0, float(heat.max()))
    own: NDArray[np.float32] = np.clip(back.cpu().numpy()[0], low, high).astype(np.float32)
    return own


def _smooth(record: Any, axes: int) -> Any:
    """The record with linear instead of area interpolation, which would enlarge the heat map into blocks."""
    if isinstance(record, Mapping):
        kept = {key: _smooth(value, axes) for key, value in record.items()}
        return kept | {"mode": _LINEAR[axes]} if kept.get("mode") == "area" else kept
    if isinstance(record, list | tuple):
        return [_smooth(value, axes) for value in record]
    return record
