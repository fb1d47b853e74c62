"""What a user may set of a plan; everything that is left open is decided from the data."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from medimg3d.errors import UsageError

NETWORKS = ("auto", "dynunet", "unet", "segresnet", "mednext", "swinunetr", "densenet")
MODALITIES = ("ct", "mri", "pet", "film", "other")


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
        for field_ in fields(self):
            value = getattr(self, field_.name)
            if isinstance(value, list):
                object.__setattr__(self, field_.name, tuple(value))
        self._check_choice("network", NETWORKS)
        self._check_choice("task", ("segmentation", "classification"))
        self._check_choice("dimension", ("2d", "3d"))
        self._check_choice("device", ("cpu", "cuda"))
        self._check_choice("loss", ("dice_ce", "dice_focal"))
        self._check_choice("augmentation", ("full", "none"))
        self._check_finder()
        self._check_window()
        kinds = (self.modality,) if isinstance(self.modality, str) else self.modality or ()
        for kind in kinds:
            if kind not in MODALITIES:
                raise UsageError(f"modality is {kind!r}; expected one of {', '.join(MODALITIES)}.")
        for name in ("patch_size", "image_size", "spacing_mm"):
            sizes = getattr(self, name)
            if sizes is not None and (len(sizes) not in (2, 3) or any(size <= 0 for size in sizes)):
                raise UsageError(f"{name} is {list(sizes)}; expected two or three numbers above 0.")
        for name in ("memory_gb", "batch_size", "width", "epochs", "iterations_per_epoch", "learning_rate"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise UsageError(f"{name} is {value}; expected a number above 0.")
        if not 0 < self.foreground_share <= 1:
            raise UsageError(f"foreground_share is {self.foreground_share}; expected above 0, at most 1.")
        if not 0 <= self.window_overlap < 1:
            raise UsageError(f"window_overlap is {self.window_overlap}; expected 0 or more, below 1.")

    def _check_finder(self) -> None:
        if isinstance(self.finder, bool):  # YAML's yes and no
            object.__setattr__(self, "finder", "yes" if self.finder else "no")
        self._check_choice("finder", ("auto", "yes", "no"))
        for name in ("finder_margin_mm", "finder_epochs"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise UsageError(f"{name} is {value}; expected a number above 0.")

    def _check_window(self) -> None:
        window = self.window
        if window is None:
            return
        is_pair = isinstance(window, tuple) and len(window) == 2
        is_pair = is_pair and all(isinstance(bound, (int, float)) for bound in window)
        if not is_pair or not -math.inf < window[0] < window[1] < math.inf:
            shown = list(window) if isinstance(window, tuple) else window
            raise UsageError(
                f"window is {shown}; expected two numbers, the lower before the higher, such as [-100, 400]."
            )

    def _check_choice(self, name: str, choices: tuple[str, ...]) -> None:
        value = getattr(self, name)
        if value is not None and value not in choices:
            raise UsageError(f"{name} is {value!r}; expected one of {', '.join(choices)}.")

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
    try:
        return replace(settings, **values)
    except TypeError as err:
        raise UsageError(f"The settings {', '.join(values)} hold a value of the wrong kind ({err}).") from err


def _known(name: str) -> bool:
    names = [field_.name for field_ in fields(PlanSettings)]
    if name in names:
        return True
    near = difflib.get_close_matches(str(name), names, n=1)
    hint = f"Did you mean {near[0]}?" if near else f"Known are: {', '.join(names)}."
    raise UsageError(f"Unknown setting {name}. {hint}")
