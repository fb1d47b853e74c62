"""Whether images of unknown voxel size are brought to one scale by the number of voxels across them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medimg3d.errors import UsageError
from medimg3d.planning.data_facts import DataFacts
from medimg3d.planning.decision import Decision, asked_for
from medimg3d.planning.settings import PlanSettings

TOLERANCE = 1.5
"""An image is far from the others if its longest edge is so many times theirs, or theirs its."""

MOST_FAR = 0.1
"""Where more of the images than this are far from the median, their sizes tell nothing of their voxels."""

STACK = 0.5
"""An axis with less than this share of the longest one's voxels counts slices."""


@dataclass(frozen=True)
class FieldOfView:
    """What images are brought to whose voxel size is not known.

    Attributes:
        edge: Voxels along the longest of ``axes``.
        axes: Those that are resampled, of the images in RAS order.
    """

    edge: int
    axes: tuple[int, ...]


def decide_field_of_view(
    facts: DataFacts, spacing_mm: Sequence[float] | None, settings: PlanSettings
) -> tuple[Decision | None, FieldOfView | None]:
    """The field of view that images of unknown voxel size are taken to share.

    Scans of one kind show about the same length of a body, so that an image of twice as many voxels has voxels of
    half the size. This is a guess, and made of the few images alone that lie far from all others.

    Args:
        facts: The data.
        spacing_mm: Voxel size that the plan resamples to; None where it keeps the voxels.
        settings: ``field_of_view`` decides.

    Returns:
        The decision, None where there is nothing to decide, since voxel sizes are known or the images are pictures;
        and what the images are brought to, None where they keep their voxels.

    Raises:
        UsageError: One was asked for, and there is nothing to decide.
    """
    asked = settings.field_of_view
    if facts.known_spacings or spacing_mm is not None or all(one.is_picture for one in facts.channels):
        if asked == "common":
            raise UsageError(
                "field_of_view is common, which is for volumes of unknown voxel size; leave it away (where --resume "
                "kept it: --set field_of_view=null)."
            )
        return None, None
    field = _usual_field(facts)
    edges = np.array(facts.shapes)[:, field.axes].max(axis=1) / field.edge
    far = int(((edges >= TOLERANCE) | (edges <= 1 / TOLERANCE)).sum())
    what = f"{far} of {facts.num_cases} images are at least {TOLERANCE:g} times as long or as short as the median"
    common = f"{field.edge} voxels"
    if far > MOST_FAR * facts.num_cases:
        why = f"{what}: too many to tell finer voxels from a larger part of the body."
        rule = Decision("field of view", "as it is", why, "--set field_of_view=common|own")
    else:
        why = (
            f"Images are taken to show about as much of the body as the median one, {field.edge} voxels along the "
            f"longest of axes {', '.join(map(str, field.axes))}. {what}: such an image is resampled to {field.edge}, "
            "and what is predicted brought back onto its own voxels."
        )
        rule = Decision("field of view", common, why, "--set field_of_view=common|own")
    decision = asked_for({"auto": rule.value, "common": common, "own": "as it is"}[asked], rule)
    return decision, field if decision.value == common else None


def _usual_field(facts: DataFacts) -> FieldOfView:
    shapes = np.array(facts.shapes)
    median = np.median(shapes, axis=0)
    short = int(np.argmin(median))
    is_stack = facts.num_axes == 3 and median[short] < STACK * median.max()
    axes = tuple(axis for axis in range(facts.num_axes) if not (is_stack and axis == short))
    return FieldOfView(round(float(np.median(shapes[:, axes].max(axis=1)))), axes)
