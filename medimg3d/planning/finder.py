"""The coarse region finder: a small network that sees whole images at low resolution and says where to look.

It spares windows, and lets the network at full resolution learn from the surroundings of the structures alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from medimg3d.planning.data_facts import DataFacts
from medimg3d.planning.decision import Decision, asked_for
from medimg3d.planning.topology import Topology, at_least_16_somewhere, fit_topology

FAR_LARGER = 4.0
"""A volume this many times the patch is one that a network sees too little of (nnU-Net's threshold)."""

SMALL_PART = 1 / 3
"""A region up to this share of the image is worth finding."""

MOST_CASES = 0.75
"""Share of the cases whose region is small, from which a finder is planned."""

VOXELS = {"cpu": 64**3, "cuda": 96**3}
"""Voxels that the whole median image is brought to, at most."""

LEAST_VOXELS = 16**3
"""Where even this does not fit the memory, nothing does."""

LEAST_COARSENING = 8.0
"""A finder sees at most this part of an image's voxels."""

WIDTH = {"cpu": 8, "cuda": 16}
"""Filters of the finder's first level."""

MOST_POOLINGS = 4
LEAST_MARGIN_MM = 10.0
MARGIN_VOXELS = 2.0
"""Margin around what was found, in coarse voxels: what a finder is off by, and some surroundings."""

JITTER_VOXELS = 1.0
ITERATIONS = {"cpu": 1_000, "cuda": 5_000}
EPOCH_STEPS = (10, 100)
STEP_VOXELS = {"cpu": 524_288, "cuda": 4_000_000}

CHANGE = "--finder yes|no|auto"


@dataclass(frozen=True)
class Finder:
    """A planned finder.

    Attributes:
        voxel_mm: Size of its voxels along each axis in RAS order; 1 mm stands for a voxel of unknown size.
        topology: Levels and patch of its network.
        width: Filters of the first level.
        batch_size: Patches of a step.
        margin_mm: What is left around what it finds, along each axis.
        jitter_mm: By how much that margin varies from case to case in the training of the fine network.
        iterations_per_epoch: Steps of an epoch.
        epochs: Length of its training.
        train_gb: What its training was measured to need, in GB; None where it was not.
    """

    voxel_mm: tuple[float, ...]
    topology: Topology
    width: int
    batch_size: int
    margin_mm: tuple[float, ...]
    jitter_mm: tuple[float, ...]
    iterations_per_epoch: int
    epochs: int
    train_gb: float | None = None


def plan_finder(
    facts: DataFacts,
    *,
    device: str,
    num_training: int,
    most_voxels: int,
    margin_mm: float | None,
    epochs: int | None,
) -> Finder:
    """A finder for a data set of volumes.

    Args:
        facts: The data.
        device: ``cpu`` or ``cuda``.
        num_training: Cases that one fold trains on.
        most_voxels: Voxels of the whole median image in its voxels, at most.
        margin_mm: Along every axis; decided if None.
        epochs: Likewise.
    """
    extent = np.median(facts.extents_mm(), axis=0)
    known = facts.known_spacings
    own = np.median(np.array(known), axis=0) if known else np.ones(len(extent))
    most = min(most_voxels, float(np.prod(extent / own)) / LEAST_COARSENING)
    voxel = coarse_voxel(extent.tolist(), own.tolist(), most_voxels=most)
    cells = [max(1, round(float(own))) for own in extent / voxel]
    topology = fit_topology(at_least_16_somewhere(cells), voxel, max_poolings=MOST_POOLINGS)
    size = int(np.prod(topology.patch))
    batch = int(np.clip(STEP_VOXELS[device] // size, 2, 8))
    steps = int(np.clip(num_training // batch, *EPOCH_STEPS))
    margin = [max(LEAST_MARGIN_MM, MARGIN_VOXELS * size_mm) for size_mm in voxel]
    margin = [float(margin_mm)] * len(voxel) if margin_mm is not None else margin
    jitter = [
        min(JITTER_VOXELS * size_mm, own_margin) for size_mm, own_margin in zip(voxel, margin, strict=True)
    ]
    return Finder(
        voxel_mm=_rounded(voxel),
        topology=topology,
        width=WIDTH[device],
        batch_size=batch,
        margin_mm=_rounded(margin),
        jitter_mm=_rounded(jitter),
        iterations_per_epoch=steps,
        epochs=max(1, round(ITERATIONS[device] / steps)) if epochs is None else epochs,
    )


def coarse_voxel(
    extent_mm: Sequence[float], own_mm: Sequence[float], *, most_voxels: float
) -> tuple[float, ...]:
    """Voxel size at which an image has at most so many voxels: cubes, but for axes whose own voxels are longer.

    Args:
        extent_mm: Length of the image along each axis.
        own_mm: Its voxel size.
        most_voxels: Product of the axes.
    """
    extent, own = np.array(extent_mm, dtype=float), np.array(own_mm, dtype=float)
    low, high = float(own.min()), float(max(extent.max(), own.max()))
    for _ in range(60):
        middle = (low + high) / 2
        number = np.prod(np.maximum(1.0, extent / np.maximum(own, middle)))
        low, high = (middle, high) if number > most_voxels else (low, middle)
    return tuple(float(size) for size in np.maximum(own, high))


def decide_finder(
    facts: DataFacts, finder: Finder, *, times_patch: float, wish: str, slices: bool
) -> Decision:
    """Whether a finder is worth it.

    Args:
        facts: The data.
        finder: What it would be.
        times_patch: Voxels of the median image as a multiple of the patch's.
        wish: ``yes``, ``no`` or ``auto``.
        slices: Whether the network sees slices, one by one.

    Returns:
        A decision whose value is ``yes`` or ``no``.
    """
    shares = region_shares(facts, finder.margin_mm)
    small = float(np.mean(shares <= SMALL_PART))
    begin = "The" if slices else f"An image is {times_patch:.3g} times the patch; its"
    found = (
        f"{begin} structures with a margin are {np.median(shares):.0%} of an image (median), at most a third in "
        f"{small:.0%} of the cases."
    )
    voxel = " x ".join(f"{size:.3g}" for size in finder.voxel_mm)
    margin = " x ".join(f"{size:.3g}" for size in finder.margin_mm)
    how = (
        f" A small network at {voxel} mm voxels says where they are; the network of this plan learns and predicts the "
        f"region alone, with a margin of {margin} mm (--set finder_margin_mm=N)."
    )
    wanted = not slices and times_patch > FAR_LARGER and small >= MOST_CASES
    why = "" if wanted else " It takes more than 4 times, and at most a third in 75 % of the cases."
    if slices:
        why = " The network goes slice by slice; the rule is for those that see volumes."
    decision = Decision("region finder", "yes" if wanted else "no", found + why, CHANGE)
    if wish != "auto":
        decision = asked_for(wish, decision)
    return replace(decision, reason=decision.reason + how) if decision.value == "yes" else decision


def region_shares(facts: DataFacts, margin_mm: Sequence[float]) -> np.ndarray:
    """Share of each image that its structures with a margin take up; 1 where nothing is labelled."""
    shares: np.ndarray = facts.regions_at(None, margin_mm).prod(axis=1) / facts.shapes_at(None).prod(axis=1)
    return shares


def _rounded(sizes: Sequence[float]) -> tuple[float, ...]:
    return tuple(round(float(size), 3) for size in sizes)
