"""Rules that clean a predicted label map: what each does, as a MONAI transform of a bundle's config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["together", "largest", "min_volume", "fill"]
KINDS: tuple[Kind, ...] = ("together", "min_volume", "largest", "fill")
ALL_LABELS = 0
"""Stands for all labels of a map but the background."""

_CLEANING = ("KeepLargestTogether", "KeepLargestConnectedComponent", "RemoveSmallComponents", "RemoveSmallObjects",
             "FillHoles")  # fmt: skip

MIN_VOLUMES = (10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)
"""Least volumes that are tried, in mm³: fixed before any case is seen."""


@dataclass(frozen=True)
class LabelRule:
    """One rule for one label, or for all of them taken together.

    Attributes:
        kind: ``"largest"`` keeps the largest connected component, ``"min_volume"`` removes smaller ones,
            ``"fill"`` fills what the label encloses, be it background or another label; ``"together"`` keeps the
            largest connected component of all labels as one.
        label: The label; with ``"together"`` :data:`ALL_LABELS`.
        min_volume: With ``"min_volume"``: least volume that stays, in mm³ (voxels where no size is known).

    Raises:
        ValueError: An unknown kind, the background, or a volume where none belongs.
    """

    kind: Kind
    label: int
    min_volume: float | None = None

    def __post_init__(self) -> None:
        if (
            self.kind not in KINDS
            or (self.label == ALL_LABELS) != (self.kind == "together")
            or self.label < 0
            or (self.min_volume is not None) != (self.kind == "min_volume")
        ):
            raise ValueError(
                f"got {self!r}; expected one of {', '.join(KINDS)}, a label from 1 (0 with together), its volume"
            )

    @property
    def key(self) -> str:
        """A short name, unique among the rules of one bundle."""
        volume = "" if self.min_volume is None else f":{self.min_volume:g}"
        return f"{self.label}:{self.kind}{volume}"

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        volume = {} if self.min_volume is None else {"min_volume": self.min_volume}
        return {"kind": self.kind, "label": self.label, **volume}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> LabelRule:
        """The rule of :meth:`as_json`."""
        return cls(**content)

    def describe(self, class_names: Mapping[int, str], *, has_voxel_size: bool = True) -> str:
        """What the rule does, in words.

        Args:
            class_names: Label → name.
            has_voxel_size: Whether the headers' voxel sizes are true.
        """
        unit = "mm³" if has_voxel_size else "mm³ by the headers' voxel size, which is not the true one"
        name = class_names.get(self.label, f"label {self.label}")
        return {
            "together": "all structures as one: keep the largest connected component",
            "largest": f"{name}: keep the largest connected component",
            "min_volume": f"{name}: remove components below {self.min_volume or 0:g} {unit}",
            "fill": f"{name}: fill what it encloses",
        }[self.kind]

    def config(self, package: str) -> dict[str, Any]:
        """The transform as a bundle's config names it.

        Args:
            package: The bundle's own package, which carries what MONAI lacks.
        """
        if self.kind == "together":
            return {"_target_": f"{package}.small_components.KeepLargestTogetherd", "keys": "pred"}
        if self.kind == "largest":
            return {
                "_target_": "KeepLargestConnectedComponentd",
                "keys": "pred",
                "applied_labels": [self.label],
                "is_onehot": False,
            }
        if self.kind == "fill":
            return {"_target_": "FillHolesd", "keys": "pred", "applied_labels": [self.label]}
        return {
            "_target_": f"{package}.small_components.RemoveSmallComponentsd",
            "keys": "pred",
            "label": self.label,
            "min_volume": self.min_volume,
        }

    @property
    def needs_skimage(self) -> bool:
        """Whether MONAI needs scikit-image for it."""
        return self.kind == "largest"

    @property
    def needs_own(self) -> bool:
        """Whether it is a transform that the bundle carries."""
        return self.kind in ("min_volume", "together")


def is_cleaning(step: Mapping[str, Any]) -> bool:
    """Whether a step of a postprocessing cleans label maps, as the rules do."""
    name = str(step.get("_target_", "")).rpartition(".")[2]
    return name.removesuffix("ict").removesuffix("D").removesuffix("d") in _CLEANING


def tried_rules(labels: Sequence[int]) -> list[LabelRule]:
    """Every rule that is tried for the labels; of all together where there are several."""
    together = [LabelRule("together", ALL_LABELS)] if len(labels) > 1 else []
    return together + [
        rule
        for label in labels
        for rule in (
            *(LabelRule("min_volume", label, volume) for volume in MIN_VOLUMES),
            LabelRule("largest", label),
            LabelRule("fill", label),
        )
    ]


def in_order(rules: Sequence[LabelRule]) -> tuple[LabelRule, ...]:
    """The rules in the order they are applied in: of all labels first, components before holes."""
    return tuple(sorted(rules, key=lambda rule: (KINDS.index(rule.kind), rule.label)))


def apply_rules(
    labels: NDArray[Any], rules: Sequence[LabelRule], *, spacing_mm: Sequence[float] | None = None
) -> NDArray[Any]:
    """Apply rules by the very transforms that a bundle's config names.

    Args:
        labels: Label map, shape (I, J[, K]).
        rules: Rules in order.
        spacing_mm: Voxel size; ``min_volume`` counts voxels if None.

    Returns:
        A new label map of the same shape and type; what lies outside the box around the labels is not looked at.
    """
    result = labels.copy()
    if not rules or not labels.any():
        return result
    box = _box(labels)
    result[box] = _transformed(labels[box], rules, spacing_mm)
    return result


def _box(labels: NDArray[Any]) -> tuple[slice, ...]:
    """The box around what is not 0, a voxel wider: what is open to the border stays so."""
    slices = []
    for axis in range(labels.ndim):
        others = tuple(other for other in range(labels.ndim) if other != axis)
        found = np.flatnonzero((labels != 0).any(axis=others))
        slices.append(slice(max(0, int(found[0]) - 1), int(found[-1]) + 2))
    return tuple(slices)


def _transformed(
    labels: NDArray[Any], rules: Sequence[LabelRule], spacing_mm: Sequence[float] | None
) -> NDArray[Any]:
    import torch
    from monai.data import MetaTensor
    from monai.transforms import Compose, FillHolesd, KeepLargestConnectedComponentd

    from medimg3d.transforms.small_components import KeepLargestTogetherd, RemoveSmallComponentsd

    kinds: dict[str, Any] = {
        "together": KeepLargestTogetherd,
        "largest": KeepLargestConnectedComponentd,
        "fill": FillHolesd,
        "min_volume": RemoveSmallComponentsd,
    }
    steps = []
    for rule in rules:
        config = {name: value for name, value in rule.config("").items() if name != "_target_"}
        steps.append(kinds[rule.kind](**config))
    sizes = np.ones(3)
    sizes[: labels.ndim] = np.ones(labels.ndim) if spacing_mm is None else spacing_mm[: labels.ndim]
    kind = np.uint8 if labels.dtype == np.uint8 else np.int32  # torch knows uint16 only by name
    tensor = torch.from_numpy(labels[None].astype(kind))
    image = MetaTensor(tensor, affine=torch.diag(torch.tensor([*sizes, 1.0])))
    cleaned = Compose(steps)({"pred": image})["pred"].as_tensor().numpy()[0]
    return np.asarray(cleaned, dtype=labels.dtype)
