"""Settings that the task or the data have no place for: each is refused by name, none is passed over in silence."""

from __future__ import annotations

import math
from typing import Any

from medimg3d.errors import UsageError
from medimg3d.planning.data_facts import DataFacts
from medimg3d.planning.networks import first_width
from medimg3d.planning.settings import PlanSettings

_OF_LABEL_MAPS = (
    "spacing_mm",
    "field_of_view",
    "patch_size",
    "finder",
    "finder_margin_mm",
    "finder_epochs",
    "max_poolings",
    "deep_supervision",
    "loss",
    "foreground_share",
    "window_overlap",
    "windows_per_batch",
)
_OF_CLASSES = ("image_size",)
_FLAGS = {
    "spacing_mm": "--spacing",
    "patch_size": "--patch",
    "finder": "--finder",
    "image_size": "--image-size",
}

WINDOWS_PER_BATCH = 4
"""What a plan begins with."""


def refuse_idle_settings(settings: PlanSettings, task: str, facts: DataFacts) -> None:
    """Refuse what was asked for and would change nothing.

    What is as it would be anyway counts as left open: a copy of ``configs/plan.yaml`` gives every default.

    Args:
        settings: What the user set, now or in an earlier plan.
        task: ``segmentation`` or ``classification``.
        facts: The data.

    Raises:
        UsageError: Settings of the other task, or a voxel size for pictures, which have none.
    """
    if task == "classification":
        of_3d = () if facts.num_axes == 3 else ("width",)
        _refuse(settings, _OF_LABEL_MAPS, "for label maps, and the task is classification")
        _refuse(settings, of_3d, "for volumes, and the network of 2D images has one width (DenseNet121)")
        return
    _refuse(settings, _OF_CLASSES, "for classification, and the task is segmentation")
    if all(channel.is_picture for channel in facts.channels):
        _refuse(settings, ("spacing_mm",), "for volumes, and pictures are taken pixel by pixel")


def _refuse(settings: PlanSettings, names: tuple[str, ...], why: str) -> None:
    given = [name for name in names if _is_given(settings, name)]
    if not given:
        return
    shown = ", ".join(_FLAGS.get(name, name) for name in given)
    again = " ".join(f"--set {name}=null" for name in given)
    are, them = ("is", "it") if len(given) == 1 else ("are", "them")
    raise UsageError(f"{shown} {are} {why}. Leave {them} away (where --resume kept {them}: {again}).")


def _is_given(settings: PlanSettings, name: str) -> bool:
    value = getattr(settings, name)
    idle: dict[str, tuple[Any, ...]] = {
        "finder": ("auto", "no"),
        "width": (None, first_width("densenet", settings.device)),
        "windows_per_batch": (None, WINDOWS_PER_BATCH),
    }
    defaults = idle.get(name, (getattr(PlanSettings, name),))
    if isinstance(value, float) and isinstance(defaults[0], float):  # configs/plan.yaml rounds a third
        return not math.isclose(value, defaults[0], abs_tol=1e-3)
    return value not in defaults
