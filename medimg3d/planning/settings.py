"""What a user may set of a plan; everything that is left open is decided from the data."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from medimg3d.errors import UsageError
from medimg3d.planning.networks import WIDTH_STEPS, has_own_depth

NETWORKS = ("auto", "dynunet", "unet", "segresnet", "mednext", "swinunetr", "densenet")
MODALITIES = ("ct", "mri", "pet", "film", "other")

_CHOICES = {
    "network": NETWORKS,
    "task": ("segmentation", "classification"),
    "dimension": ("2d", "3d"),
    "device": ("cpu", "cuda"),
    "loss": ("dice_ce", "dice_focal"),
    "augmentation": ("full", "none"),
    "finder": ("auto", "yes", "no"),
    "field_of_view": ("auto", "common", "own"),
}

_ABOVE_0 = ("memory_gb", "learning_rate", "finder_margin_mm")

_LEAST = {
    "batch_size": 1,
    "width": 1,
    "max_poolings": 2,  # a network has three levels
    "iterations_per_epoch": 1,
    "epochs": 1,
    "weight_decay": 0,
    "windows_per_batch": 1,
    "finder_epochs": 1,
    "num_folds": 2,
    "fold_seed": 0,
    "num_workers": 0,
}

_WINDOW = "two numbers, the lower before the higher, such as [-100, 400]"

_LISTS = {
    "spacing_mm": "two or three numbers above 0",
    "patch_size": "two or three whole numbers above 0",
    "image_size": "two or three whole numbers above 0",
    "mirror_axes": "different axes, each 0, 1 or 2, such as [0, 1]",
    "window": _WINDOW,
    "modality": f"one of {', '.join(MODALITIES)}",
}
"""What is expected of the settings that are lists."""

_KINDS: Mapping[Any, str] = {bool: "yes or no", int: "a whole number", float: "a number", str: "a word"}

_YES_NO = {"yes": True, "true": True, "on": True, "no": False, "false": False, "off": False}
"""YAML's words."""


@dataclass(frozen=True)
class PlanSettings:
    """Settings of a plan; None is "decide". ``configs/plan.yaml`` explains each.

    Raises:
        UsageError: A value that cannot be.
    """

    task: str | None = None
    modality: str | tuple[str, ...] | None = None
    dimension: str | None = None
    spacing_mm: tuple[float, ...] | None = None
    field_of_view: str = "auto"
    window: tuple[float, float] | None = None
    network: str = "auto"
    patch_size: tuple[int, ...] | None = None
    image_size: tuple[int, ...] | None = None
    batch_size: int | None = None
    width: int | None = None
    max_poolings: int = 5
    deep_supervision: bool = True
    memory_gb: float | None = None
    device: str = "cpu"
    trial: bool = True
    loss: str = "dice_ce"
    foreground_share: float = 1 / 3
    augmentation: str = "full"
    mirror_axes: tuple[int, ...] | None = None
    iterations_per_epoch: int | None = None
    epochs: int | None = None
    learning_rate: float | None = None
    weight_decay: float | None = None
    window_overlap: float = 0.5
    windows_per_batch: int | None = None
    finder: str = "auto"
    finder_margin_mm: float | None = None
    finder_epochs: int | None = None
    num_folds: int | None = None
    fold_seed: int | None = None
    num_workers: int = 2

    def __post_init__(self) -> None:
        hints = get_type_hints(PlanSettings)
        if isinstance(self.finder, bool):  # YAML's yes and no
            object.__setattr__(self, "finder", "yes" if self.finder else "no")
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value is not None and value not in choices:
                raise UsageError(f"{name} is {value!r}; expected one of {', '.join(choices)}.")
        for field_ in fields(self):
            value = getattr(self, field_.name)
            if value is None:  # leaves a setting open
                object.__setattr__(self, field_.name, field_.default)
                continue
            try:
                typed = _as_declared(value, hints[field_.name])
            except ValueError as err:
                raise _unexpected(field_.name, value, _LISTS.get(field_.name, str(err))) from err
            object.__setattr__(self, field_.name, typed)
        self._check_lists()
        self._check_numbers()
        self._check_network()

    def _check_lists(self) -> None:
        kinds = (self.modality,) if isinstance(self.modality, str) else self.modality or ()
        if any(kind not in MODALITIES for kind in kinds):
            raise _unexpected("modality", self.modality, _LISTS["modality"])
        for name in ("patch_size", "image_size", "spacing_mm"):
            sizes = getattr(self, name)
            if sizes is not None and (len(sizes) not in (2, 3) or any(size <= 0 for size in sizes)):
                raise _unexpected(name, sizes, _LISTS[name])
        axes = self.mirror_axes or ()
        if len(set(axes)) < len(axes) or not set(axes) <= {0, 1, 2}:
            raise _unexpected("mirror_axes", axes, _LISTS["mirror_axes"])
        if self.window is not None and (len(self.window) != 2 or not self.window[0] < self.window[1]):
            raise _unexpected("window", self.window, _WINDOW)

    def _check_numbers(self) -> None:
        for name in _ABOVE_0:
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise _unexpected(name, value, "a number above 0")
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and value < least:
                what = "a number" if name == "weight_decay" else "a whole number"
                raise _unexpected(name, value, f"{what} from {least}")
        if not 0 < self.foreground_share <= 1:
            raise _unexpected("foreground_share", self.foreground_share, "above 0, at most 1")
        if not 0 <= self.window_overlap < 1:
            raise _unexpected("window_overlap", self.window_overlap, "0 or more, below 1")

    def _check_network(self) -> None:
        """What a named network has no choice of."""
        step = WIDTH_STEPS.get(self.network, 1)
        if self.width is not None and self.width % step:
            raise _unexpected("width", self.width, f"a multiple of {step} for {self.network}")
        default = PlanSettings.max_poolings
        if self.max_poolings != default and has_own_depth(self.network):
            raise UsageError(
                f"max_poolings is {self.max_poolings}, but {self.network} has a depth of its own; expected dynunet or "
                "unet. Leave it away (where --resume kept it: --set max_poolings=null)."
            )

    def given(self) -> dict[str, Any]:
        """Those that differ from the defaults, as plain values."""
        default = PlanSettings()
        own = {field_.name: getattr(self, field_.name) for field_ in fields(self)}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in own.items()
            if value != getattr(default, name)
        }


def read_settings(path: Path) -> dict[str, Any]:
    """The settings of a YAML file; null leaves one open.

    Raises:
        UsageError: No such file, no YAML, or an unknown setting.
    """
    import yaml

    if not path.is_file():
        raise UsageError(
            f"Found no settings at {path}; expected a YAML file. Copy configs/plan.yaml and edit it."
        )
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as err:
        raise UsageError(
            f"{path.name} is no valid YAML ({' '.join(str(err).split())}); mend the file."
        ) from err
    if not isinstance(content, dict):
        raise UsageError(f"{path.name} holds no settings; expected lines such as 'network: dynunet'.")
    return {name: value for name, value in content.items() if _known(name) and value is not None}


def with_values(settings: PlanSettings, values: Mapping[str, Any]) -> PlanSettings:
    """The settings with other values.

    Raises:
        UsageError: An unknown setting, or a value of the wrong kind.
    """
    for name in values:
        _known(name)
    return replace(settings, **values)


def _as_declared(value: Any, hint: Any) -> Any:
    """A value as the annotation of its field has it: lists as tuples, YAML's words as yes and no.

    Raises:
        ValueError: It is of another kind; says what is expected.
    """
    options = [option for option in get_args(hint) or (hint,) if option is not type(None)]
    if get_origin(hint) is tuple:
        options = [hint]
    for option in options:
        if get_origin(option) is tuple:
            if option == tuple[int, ...] and isinstance(value, int):
                value = (value,)
            if isinstance(value, (list, tuple)):
                return tuple(_as_declared(one, get_args(option)[0]) for one in value)
        elif (found := _plain(value, option)) is not None:
            return found
    raise ValueError(" or ".join(_KINDS.get(option, "a list") for option in options))


def _plain(value: Any, kind: type) -> Any:
    """The value, where it is of a kind or can be read as one; else None."""
    if kind is bool:
        return _YES_NO.get(value.lower()) if isinstance(value, str) else _only(value, bool)
    if isinstance(value, bool):
        return None
    if kind is int:
        return int(value) if isinstance(value, float) and value.is_integer() else _only(value, int)
    if kind is float:
        try:
            number = (
                float(value) if isinstance(value, (int, float, str)) else math.nan
            )  # 1e-3 is text to YAML
        except ValueError:
            return None
        return None if not math.isfinite(number) else number if isinstance(value, str) else value
    return _only(value, kind)


def _only(value: Any, kind: type) -> Any:
    return value if isinstance(value, kind) else None


def _unexpected(name: str, value: Any, expected: str) -> UsageError:
    shown = list(value) if isinstance(value, tuple) else value
    return UsageError(f"{name} is {shown!r}; expected {expected}.")


def _known(name: str) -> bool:
    names = [field_.name for field_ in fields(PlanSettings)]
    if name in names:
        return True
    near = difflib.get_close_matches(str(name), names, n=1)
    hint = f"Did you mean {near[0]}?" if near else f"Known are: {', '.join(names)}."
    raise UsageError(f"Unknown setting {name}. {hint}")
