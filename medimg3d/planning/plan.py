"""A whole plan: every value that a bundle's configs are written from, and the decisions behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from medimg3d.planning.asked_settings import WINDOWS_PER_BATCH
from medimg3d.planning.data_facts import DataFacts
from medimg3d.planning.decision import Decision
from medimg3d.planning.estimate import BASE_GB, inverted_image_gb, whole_image_gb
from medimg3d.planning.field_of_view import FieldOfView
from medimg3d.planning.finder import Finder
from medimg3d.planning.label_scheme import LabelScheme
from medimg3d.planning.networks import has_heads, slice_topology
from medimg3d.planning.settings import PlanSettings
from medimg3d.planning.topology import Topology

SAME_SPACING_MM = 1e-3
"""Voxels that differ by less are not resampled (MONAI's ``AFFINE_TOL``)."""


@dataclass(frozen=True)
class Plan:
    """What a bundle is written from.

    Attributes:
        facts: The data.
        settings: What the user set.
        task: ``segmentation`` or ``classification``.
        modalities: Of each channel.
        spacing_mm: Voxel size of the network's images; None to keep the voxels.
        field_of_view: What images of unknown voxel size are brought to; None where they keep their voxels.
        slice_axis: Axis that slices are cut across for a 2D network; None where it has the images' own axes.
        intensities: Scheme of each channel.
        scheme: Meaning of the label values; None for classification.
        network: Its name.
        topology: Its levels and patch, on the network's own axes; for classification the image size alone.
        width: Filters of its first level.
        batch_size: Patches (images) of a step.
        mirror_axes: Mirrored axes, of the images in RAS order.
        num_folds: Number of folds.
        fold_seed: Seed that deals them.
        split_by: ``patient`` or ``case``.
        iterations_per_epoch: Steps of an epoch.
        epochs: Length of a training.
        learning_rate: First learning rate of AdamW.
        weight_decay: Of AdamW.
        windows_per_batch: Windows that prediction takes at once.
        finder: What finds the region, at low resolution, that the network then sees; None where it sees whole images.
        decisions: In the order of the plan.
        notes: What a person should know besides.
        measured: What trials measured, in their order.
        given: What the user asked for, now or in an earlier plan.
    """

    facts: DataFacts
    settings: PlanSettings
    task: str
    modalities: tuple[str, ...]
    spacing_mm: tuple[float, ...] | None
    slice_axis: int | None
    intensities: tuple[Mapping[str, Any], ...]
    scheme: LabelScheme | None
    network: str
    topology: Topology
    width: int
    batch_size: int
    mirror_axes: tuple[int, ...]
    num_folds: int
    fold_seed: int
    split_by: str
    iterations_per_epoch: int = 1
    epochs: int = 1
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    windows_per_batch: int = WINDOWS_PER_BATCH
    finder: Finder | None = None
    field_of_view: FieldOfView | None = None
    decisions: tuple[Decision, ...] = ()
    notes: tuple[str, ...] = ()
    measured: tuple[Mapping[str, Any], ...] = field(default_factory=tuple)
    given: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_segmentation(self) -> bool:
        """Whether label maps come out."""
        return self.task == "segmentation"

    @property
    def network_axes(self) -> int:
        """Axes of what the network sees."""
        return len(self.topology.patch)

    @property
    def patch_size(self) -> tuple[int, ...]:
        """The patch on the images' own axes."""
        return slice_topology(self.topology, self.slice_axis)

    @property
    def is_picture(self) -> bool:
        """Whether the images are films or photographs."""
        return all(channel.is_picture for channel in self.facts.channels)

    @property
    def deep_supervision(self) -> bool:
        """Whether the network is trained with further heads."""
        return has_heads(self.network, self.topology, wished=self.settings.deep_supervision)

    @property
    def output_names(self) -> list[str]:
        """Names of the network's output channels."""
        return self.scheme.output_names if self.scheme else list(self.facts.classes)

    @property
    def num_training(self) -> int:
        """Cases that one fold trains on, about."""
        return max(1, round(self.facts.num_cases * (self.num_folds - 1) / self.num_folds))

    @property
    def shapes(self) -> np.ndarray:
        """Shapes of what the network's patches are cut from, in its voxels: images, or the regions in them."""
        if self.finder is None:
            return self.facts.shapes_at(self.spacing_mm)
        return self.facts.regions_at(self.spacing_mm, self.finder.margin_mm)

    def decided(self, *decisions: Decision, **values: Any) -> Plan:
        """The plan with further values and decisions; a decision of a name that it has is replaced."""
        names = {decision.name for decision in decisions}
        kept = [decision for decision in self.decisions if decision.name not in names]
        return replace(self, decisions=(*kept, *decisions), **values)

    @property
    def largest_image_gb(self) -> float | None:
        """What a prediction that holds the whole of the largest image needs, in GB, estimated, on the network's grid.

        None where a region is found first, and for classifiers.
        """
        if self.finder is not None or not self.is_segmentation:
            return None
        return whole_image_gb(
            int(self.facts.shapes_at(self.spacing_mm).prod(axis=1).max()),
            channels=len(self.facts.channels),
            num_classes=len(self.output_names),
            mirrored=bool(self.mirror_axes),
        )

    @property
    def validated_image_gb(self) -> float:
        """What a validation holds of the largest image (region) beside the network's own, in GB, estimated."""
        if not self.is_segmentation:
            return 0.0
        needed = whole_image_gb(
            int(self.shapes.prod(axis=1).max()),
            channels=len(self.facts.channels),
            num_classes=len(self.output_names),
            mirrored=bool(self.mirror_axes),
        )
        return needed - BASE_GB

    @property
    def largest_inverted_gb(self) -> float | None:
        """The same, with the way back onto the voxels of the files that ``evaluate.json`` and ``inference.json`` go."""
        on_grid = self.largest_image_gb
        if on_grid is None or self.spacing_mm is None or self.is_picture:
            return on_grid
        inverted = [
            inverted_image_gb(int(np.prod(shape)), int(resampled), num_classes=len(self.output_names))
            for shape, spacing, resampled in zip(
                self.facts.shapes,
                self.facts.spacings_mm,
                self.facts.shapes_at(self.spacing_mm).prod(axis=1),
                strict=True,
            )
            if spacing is None or not np.allclose(spacing, self.spacing_mm, rtol=0, atol=SAME_SPACING_MM)
        ]
        return max(on_grid, *inverted) if inverted else on_grid

    def noted(self, *notes: str) -> Plan:
        """The plan with further notes."""
        return replace(self, notes=(*self.notes, *notes))

    def spacing_for_shape(self) -> Sequence[float]:
        """Voxel size along the network's axes whose ratios shape patch and kernels.

        Where the files state none, voxels count as cubes, but for a short axis: slices lie further apart than
        pixels.
        """
        spacing = list(self.spacing_mm or self._unknown_spacing())
        if self.slice_axis is not None:
            del spacing[self.slice_axis]
        return spacing

    def _unknown_spacing(self) -> list[float]:
        if self.facts.known_spacings and not self.is_picture:
            return [float(size) for size in self.facts.known_spacings[0]]
        shape = self.facts.median_shape
        return [
            4.0 if size * 4 < min(s for a, s in enumerate(shape) if a != axis) else 1.0
            for axis, size in enumerate(shape)
        ]
