"""Fits patch, batch and width of a plan to a figure for the memory, by measurement."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from medimg3d.errors import DataError
from medimg3d.planning.networks import classifier_block, network_block, widths_of
from medimg3d.planning.plan import Plan
from medimg3d.planning.planner import (
    explain_size,
    finish_plan,
    median_shape,
    most_batch,
    with_topology,
)
from medimg3d.planning.topology import SMALLEST, shrink
from medimg3d.planning.trial import Measured

LOW, HIGH = 0.8, 1.0
"""Where the measured peak should lie, as a share of the figure."""

AIM = 0.93
MOST_TRIALS = 6

Measure = Callable[[Plan], Measured]
Estimate = Callable[[Plan], float]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Rung:
    """One step of the ladder: a plan's size and what it is estimated to need."""

    plan: Plan
    estimate_gb: float


def ladder(plan: Plan, *, estimate: Estimate) -> list[Rung]:
    """Sizes of the plan, from small to large: first the patch grows, then the batch, then the width.

    Between two batches lie somewhat smaller patches, and between two patches of which one is far larger (those of a
    SwinUNETR are multiples of 32) larger batches of the smaller one. What the user set stays as it is.

    Args:
        plan: With the largest patch.
        estimate: Gives the memory of a plan in GB.
    """
    settings = plan.settings
    least = settings.batch_size or 2
    patches = [plan]
    if plan.is_segmentation and settings.patch_size is None:
        while True:
            last = patches[-1].topology
            smaller = shrink(last.patch, median_shape(plan), last.divisors)
            if smaller == last.patch or max(smaller) < 4 * SMALLEST or len(patches) > 60:
                break
            shrunk = with_topology(plan, smaller)
            if _voxels(shrunk) >= _voxels(patches[-1]):
                break
            patches.append(shrunk)
    rungs = [replace(one, batch_size=least) for one in reversed(patches)]
    if settings.batch_size is None:
        most = most_batch(plan) if plan.is_segmentation else max(4, min(64, plan.num_training // 4))
        for batch in range(least + 1, most + 1):
            between = [one for one in patches if _voxels(one) * batch > _voxels(plan) * (batch - 1)]
            rungs += [replace(one, batch_size=batch) for one in reversed(between)]
    if settings.width is None and (plan.is_segmentation or plan.network_axes == 3):
        wider = [width for width in widths_of(plan.network) if width > plan.width]
        rungs += [replace(rungs[-1], width=width) for width in wider]
    if settings.batch_size is None:
        for wide, narrow in pairwise(patches):
            between_them = math.ceil(least * _voxels(wide) / _voxels(narrow)) - 1
            fitting = range(least + 1, min(most_batch(narrow), between_them) + 1)
            rungs += [replace(narrow, batch_size=batch) for batch in fitting]
    found = [Rung(one, estimate(one)) for one in rungs]
    return sorted(found, key=lambda rung: rung.estimate_gb)


def fit(
    plan: Plan, *, limit_gb: float, estimate: Estimate, measure: Measure | None, fill: bool, say: Say
) -> Plan:
    """A plan whose training, validation and prediction stay within a limit.

    Args:
        plan: A draft.
        limit_gb: The limit.
        estimate: Gives the memory of a plan in GB, roughly.
        measure: Measures a plan; None goes by the estimate alone.
        fill: Grow towards the limit (a figure was asked for); else keep the draft's size where it fits.
        say: Told about each trial.

    Returns:
        The plan with its size and decisions, and what was measured; the last measurement is that of the plan.

    Raises:
        DataError: Even the smallest size needs more.
    """
    rungs = ladder(plan, estimate=estimate)
    place = _best(rungs, limit_gb * AIM)
    if not fill:
        asked = estimate(plan)
        if asked <= limit_gb * AIM or measure is not None:
            rungs, place = _up_to(rungs, plan, asked)
    chosen = rungs[max(place, 0)].plan
    records: list[dict[str, Any]] = []
    if measure is not None:
        chosen, records = _search(rungs, max(place, 0), limit_gb, measure, say)
    sized = replace(chosen, measured=tuple(records)).decided(*explain_size(chosen))
    return finish_plan(_fit_prediction(sized, limit_gb, measure, say))


def _search(
    rungs: Sequence[Rung], place: int, limit_gb: float, measure: Measure, say: Say
) -> tuple[Plan, list[dict[str, Any]]]:
    """Measure here and there on the ladder until a rung lies well under the limit.

    Each measurement corrects the estimates of the others.

    Returns:
        The highest rung that fits and all records, its own last.
    """
    fits: dict[int, dict[str, Any]] = {}
    records: dict[int, dict[str, Any]] = {}
    while place not in records and len(records) < MOST_TRIALS:
        found = measure(rungs[place].plan)
        records[place] = _record(rungs[place].plan, found)
        say(_words(records[place]))
        peak = found.train_gb
        if peak is None:  # no figure to correct the estimates by
            place = place // 2
            continue
        expected = _best(rungs, limit_gb * AIM / peak * max(rungs[place].estimate_gb, 1e-3))
        if peak > limit_gb * HIGH:
            place = max(0, min(place - 1, expected))
            continue
        fits[place] = records[place]
        if peak >= limit_gb * LOW or place == len(rungs) - 1:
            break
        place = max(place + 1, expected)
    if not fits:
        least = list(records.values())[-1]
        raise DataError(
            f"Even {_words(least)}, more than {limit_gb:.3g} GB; expected a plan that fits. "
            f"Give more --memory-gb, {_smaller(rungs[0].plan)}."
        )
    best = max(fits)
    return rungs[best].plan, [*(one for n, one in records.items() if n != best), records[best]]


def _smaller(plan: Plan) -> str:
    """What a user may ask for that needs less."""
    if not plan.is_segmentation:
        return "a smaller --image-size, or a smaller --batch"
    return "a smaller --patch" if plan.is_picture else "a smaller --patch, or a coarser --spacing"


def _up_to(rungs: list[Rung], plan: Plan, asked_gb: float) -> tuple[list[Rung], int]:
    """The ladder up to the draft's own size."""
    own = Rung(plan, asked_gb)
    kept = [rung for rung in rungs if rung.estimate_gb < asked_gb and rung.plan.width <= plan.width]
    return [*kept, own], len(kept)


def _best(rungs: Sequence[Rung], estimate_gb: float) -> int:
    """The highest rung whose estimate is at most this; -1 if none is."""
    fitting = [n for n, rung in enumerate(rungs) if rung.estimate_gb <= estimate_gb]
    return max(fitting, default=-1)


def _fit_prediction(plan: Plan, limit_gb: float, measure: Measure | None, say: Say) -> Plan:
    """Fewer windows at once until prediction and validation fit as well."""
    if plan.settings.windows_per_batch is not None:
        return replace(plan, windows_per_batch=plan.settings.windows_per_batch)
    names = ("predict_gb", "validate_gb") if plan.is_segmentation else ("predict_gb",)
    while measure is not None and plan.measured and plan.windows_per_batch > 1:
        needed = [plan.measured[-1][name] for name in names]
        if all(gb is not None and gb <= limit_gb for gb in needed):
            break
        plan = replace(plan, windows_per_batch=plan.windows_per_batch // 2)
        again = _record(plan, measure(plan))
        record = {**plan.measured[-1], **{name: again[name] for name in names}}
        say(_words(record))
        plan = replace(plan, measured=(*plan.measured[:-1], record))
    return plan


def network_of(plan: Plan) -> dict[str, Any]:
    """Config block of the plan's network."""
    channels = len(plan.facts.channels)
    if not plan.is_segmentation:
        return classifier_block(plan.network_axes, width=plan.width, in_channels=channels)
    return network_block(
        plan.network,
        plan.topology,
        width=plan.width,
        in_channels=channels,
        deep_supervision=plan.settings.deep_supervision,
    )


def _record(plan: Plan, found: Measured) -> dict[str, Any]:
    return {
        "patch": list(plan.patch_size),
        "batch": plan.batch_size,
        "width": plan.width,
        "train_gb": found.train_gb,
        "predict_gb": found.predict_gb,
        "validate_gb": None if found.validate_gb is None else found.validate_gb + plan.validated_image_gb,
        "base_gb": found.base_gb,
        "step_s": round(found.step_s, 3),
        **({"problem": found.problem} if found.train_gb is None else {}),
    }


def _words(record: dict[str, Any]) -> str:
    patch = " x ".join(map(str, record["patch"]))
    needs = record["problem"] if record["train_gb"] is None else f"{record['train_gb']:.2f} GB in training"
    return f"patch {patch}, batch {record['batch']}, {record['width']} filters: {needs}"


def _voxels(plan: Plan) -> int:
    size = 1
    for own in plan.topology.patch:
        size *= own
    return size
