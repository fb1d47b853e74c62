"""Decisions that follow from the data alone: task, modalities, voxel size, intensities, folds, mirroring."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from medimg3d.errors import DataError, UsageError
from medimg3d.planning.data_facts import ChannelFacts, DataFacts
from medimg3d.planning.decision import Decision, asked_for, times
from medimg3d.planning.label_scheme import LabelScheme, names_a_side
from medimg3d.planning.settings import PlanSettings

ANISOTROPY = 3.0
"""Voxels this much longer than wide are strongly anisotropic (nnU-Net's threshold)."""

MASKED_SHARE = 0.25
"""An image with more zeros than this has empty surroundings that should not count in its mean."""

FEW_SLICES = 5
"""Volumes with fewer slices are taken slice by slice."""

AIR_HU = -300.0
"""Values below this are air in Hounsfield units; other modalities have no negative values of this size."""

FIXED_UNITS = {"ct": "Hounsfield units", "pet": "uptake values"}
"""Modalities whose values mean the same in every image, and what they are."""

NARROWEST_WINDOW = 1.0
NARROWEST_SHARE = 0.01
"""Labelled structures whose values differ by less than both, the second as a share of the images' own range, are of one
value (filled by hand, metal): a window from them would leave nothing of the image."""

WINDOW_DEVIATIONS = (1.0, 100.0)
"""A window of fewer or more deviations of the data is scaled by itself: scores would be far from 0 ± 1."""

Scheme = dict[str, float | bool | str]

_WORDS = (
    ("pet", ("pet", "pt", "suv", "fdg")),
    ("ct", ("ct", "cbct", "hu")),
    ("mri", ("mr", "mri", "t1", "t2", "t1w", "t2w", "t1c", "t1gd", "flair", "dwi", "adc", "pd", "cine")),
    ("film", ("xr", "xray", "x", "cr", "dx", "film", "radiograph", "cxr")),
)


def decide_task(facts: DataFacts, settings: PlanSettings) -> Decision:
    """Segmentation where cases have label maps, classification where they have classes.

    Raises:
        DataError: Neither, or not every training case has what the task needs.
    """
    labelled, classed = facts.num_labelled, sum(facts.class_counts.values())
    by_rule = "segmentation" if labelled else "classification" if classed else ""
    task = settings.task or by_rule
    if not task:
        raise DataError(
            'No training case has a label map or a class; expected "label" or "class_label" in each.'
        )
    have, what = (labelled, "label maps") if task == "segmentation" else (classed, "classes")
    if have < facts.num_cases:
        raise DataError(
            f"{facts.num_cases - have} of {facts.num_cases} training cases have no {what}, which {task} needs; "
            'expected one each. Leave them out of the datalist, or under "test".'
        )
    if by_rule != task:
        what, have = "label maps", labelled
    also = " Their classes are left aside." if task == "segmentation" and classed else ""
    number = f"All {have}" if have == facts.num_cases else f"{have} of {facts.num_cases}"
    rule = Decision("task", by_rule, f"{number} training cases have {what}.{also}", "--task")
    return asked_for(task, rule)


def decide_modalities(facts: DataFacts, settings: PlanSettings) -> Decision:
    """``ct``, ``mri``, ``pet``, ``film`` or ``other`` for each channel.

    Raises:
        UsageError: Another number of modalities was given than there are channels.
    """
    found = [_modality(channel) for channel in facts.channels]
    reason = " ".join(
        f"{channel.name}: {why}." for channel, (_, why) in zip(facts.channels, found, strict=True)
    )
    rule = Decision("modality", [kind for kind, _ in found], reason, "--modality")
    given = settings.modality
    if given is None:
        return rule
    kinds = [given] * len(facts.channels) if isinstance(given, str) else list(given)
    if len(kinds) != len(facts.channels):
        raise UsageError(
            f"{len(kinds)} modalities were given; expected one for each of {len(facts.channels)} channels."
        )
    return asked_for(kinds, rule, words=", ".join(rule.value))


def _modality(channel: ChannelFacts) -> tuple[str, str]:
    if channel.is_picture:
        return "film", "the files are pictures or single films"
    for text, where in ((channel.modality, "the datalist calls it"), (channel.name, "its name is")):
        words = text.lower().replace("_", " ").replace("-", " ").split()
        kind = next((kind for kind, known in _WORDS if any(word in known for word in words)), None)
        if kind:
            return kind, f'{where} "{text}"'
    if channel.percentiles[0] < AIR_HU:
        return "ct", f"values reach {channel.percentiles[0]:.0f}, as air in Hounsfield units does"
    return (
        "mri",
        "no name is known and no value looks like Hounsfield units, so each image is scaled by itself",
    )


def decide_spacing(facts: DataFacts, settings: PlanSettings) -> Decision:
    """Voxel size of the network's images: the median; on a thick axis the 10th percentile; None to keep the voxels.

    Source: Isensee et al. 2021, doi:10.1038/s41592-020-01008-z (nnU-Net's rule).

    Raises:
        UsageError: As many numbers were asked for as the images have no axes.
    """
    rule, asked = _spacing_by_rule(facts), settings.spacing_mm
    if asked is None:
        return rule
    if len(asked) != facts.num_axes:
        raise UsageError(f"--spacing has {len(asked)} numbers; expected {facts.num_axes}.")
    return asked_for(list(asked), rule, words="none" if rule.value is None else times(rule.value))


def _spacing_by_rule(facts: DataFacts) -> Decision:
    known = facts.known_spacings
    if not known or all(channel.is_picture for channel in facts.channels):
        why = "No voxel size is known" if not known else "The images are pictures"
        return Decision(
            "voxel size", None, f"{why}: voxels are taken as they are, and no figure is in mm.", "--spacing"
        )
    table = np.array(known)
    target = np.median(table, axis=0)
    shape = np.median(np.array(facts.shapes), axis=0)
    thick = int(np.argmax(target))
    others = [axis for axis in range(len(target)) if axis != thick]
    note = "The median of the cases, as most of them then keep their own voxels."
    if target[thick] > ANISOTROPY * max(target[others]) and shape[thick] * ANISOTROPY < min(shape[others]):
        tenth = float(np.percentile(table[:, thick], 10))
        target[thick] = max(tenth, float(max(target[others])))
        note = (
            "The median in the plane; along the thick axis the 10th percentile, so that thin slices are not thrown "
            "away (nnU-Net's rule)."
        )
    unknown, num_cases = len(facts.spacings_mm) - len(known), len(facts.spacings_mm)
    alike = len({tuple(np.round(row, 3)) for row in table}) == 1
    if unknown:
        note = "All cases that state their voxel size have it already." if alike else note
        note += (
            f" No voxel size is stated in {unknown} of {num_cases} cases: their voxels count as 1 mm, so check what "
            "comes out of them."
        )
    elif alike:
        note = "All cases have it already: nothing is resampled."
    return Decision("voxel size", [round(float(size), 6) for size in target], note, "--spacing")


def decide_slices(
    facts: DataFacts, spacing_mm: Sequence[float] | None, settings: PlanSettings, divisor: int
) -> tuple[Decision, int | None]:
    """Whether a network sees volumes or slices.

    Args:
        facts: The data.
        spacing_mm: Target voxel size; None if not known.
        settings: ``dimension`` decides.
        divisor: What each axis of a patch must be a multiple of, for networks that halve all axes alike; 1 for
            those that leave a short axis alone.

    Returns:
        The decision, and the axis that slices are cut across; None for a network of the images' own axes.

    Raises:
        UsageError: 3D was asked for, and the images have two axes.
    """
    change = "--dimension"
    if facts.num_axes == 2:
        if settings.dimension == "3d":
            raise UsageError("The images have 2 axes; expected --dimension 2d.")
        return Decision("dimension", "2D", "The images have two axes, and so has the network.", change), None
    shape = np.median(facts.shapes_at(spacing_mm), axis=0)
    axis = _slice_axis(facts, shape)
    across = f"2D, slices across axis {axis}"
    slices = f"Volumes have {shape[axis]:g} slices (median)"
    by_slices = "a 2D network goes through them slice by slice."
    if shape[axis] < FEW_SLICES:
        rule = Decision("dimension", across, f"{slices}, too few for 3D: {by_slices}", change)
    elif shape[axis] < divisor / 2:
        why = f"{slices}, and this network needs multiples of {divisor} along every axis: {by_slices}"
        rule = Decision("dimension", across, why, change)
    else:
        rule = Decision("dimension", "3D", f"{slices}: the network sees what lies above and below.", change)
    asked = {None: rule.value, "2d": across, "3d": "3D"}[settings.dimension]
    return asked_for(asked, rule), axis if asked == across else None


def _slice_axis(facts: DataFacts, shape: np.ndarray) -> int:
    """The axis with the longest voxels; where all are alike or not known, the shortest one."""
    known = facts.known_spacings
    median = np.median(known, axis=0) if known else np.ones(len(shape))
    return int(np.argmax(median)) if np.ptp(median) > 0.01 else int(np.argmin(shape))


def intensity_scheme(
    channel: ChannelFacts, kind: str, *, window: tuple[float, float] | None = None
) -> tuple[Scheme, str]:
    """How the values of one channel are brought to a common scale, and why.

    Args:
        channel: Its facts.
        kind: Its modality.
        window: Lower and upper bound that were asked for; of CT and PET alone.

    Returns:
        ``{"scheme": "fixed", "low", "high", "mean", "std"}``, ``{"scheme": "own", "nonzero"}`` or
        ``{"scheme": "film"}``, and the reason.
    """
    if kind == "film":
        return {"scheme": "film"}, "clipped at its own 0.5 and 99.5 percentiles, scaled to 0-1, z-scored"
    if kind in FIXED_UNITS:
        return _fixed_scheme(channel, kind, window)
    masked = channel.zero_share > MASKED_SHARE
    why = "no unit: each image is clipped at its 0.5 and 99.5 percentiles and z-scored"
    if masked:
        why += f", counting only values other than 0, since {channel.zero_share:.0%} are 0"
    return {"scheme": "own", "nonzero": masked}, why


def _fixed_scheme(channel: ChannelFacts, kind: str, window: tuple[float, float] | None) -> tuple[Scheme, str]:
    inside = {name: round(float(value), 4) for name, value in channel.inside.items()}
    if kind == "pet":
        inside["low"] = max(0.0, inside["low"])
    inside["std"] = max(inside["std"], 1e-3)
    where = "the labelled structures" if channel.inside_is_labelled else "the images"
    clipped = f"{FIXED_UNITS[kind]} mean the same in every image: clipped to"
    found = f"{inside['low']:g} … {inside['high']:g}"
    percentiles = f"0.5 and 99.5 percentiles in {where} of all cases"
    if window is not None:
        low, high = (float(bound) for bound in window)
        mean, std, words = _scale_of_window(inside, low, high, where)
        asked = f"{low:g} … {high:g} as asked for ({percentiles}: {found})"
        scheme: Scheme = {"scheme": "fixed", "low": low, "high": high, "mean": mean, "std": std}
        return scheme, f"{clipped} {asked}, then z-scored with {words}"
    if _is_one_value(channel, inside):
        return _whole_image_scheme(channel, clipped, f"{where} have one value, {found}")
    inside["high"] = max(inside["high"], inside["low"] + 1e-3)
    why = f"{clipped} {found} ({percentiles}), then z-scored with their mean and deviation"
    return {"scheme": "fixed", **inside}, why


def _is_one_value(channel: ChannelFacts, inside: Mapping[str, float]) -> bool:
    whole = channel.percentiles[-1] - channel.percentiles[0]
    return inside["high"] - inside["low"] < min(NARROWEST_WINDOW, NARROWEST_SHARE * whole)


def _whole_image_scheme(channel: ChannelFacts, clipped: str, reason: str) -> tuple[Scheme, str]:
    """Window and scale of the images as wholes, where those of the labelled structures say nothing."""
    low, high = (float(f"{channel.percentiles[place]:.6g}") for place in (0, -1))
    mean, std = _own_scale(low, high)
    why = (
        f"{clipped} {low:g} … {high:g} (0.5 and 99.5 percentiles of whole images, median of the cases, since {reason}"
        "), then z-scored with its middle and the deviation of values spread evenly over it"
    )
    return {"scheme": "fixed", "low": low, "high": high, "mean": mean, "std": std}, why


def _own_scale(low: float, high: float) -> tuple[float, float]:
    """Middle of a window, and the deviation of values spread evenly over it."""
    return float(f"{(low + high) / 2:.6g}"), float(f"{(high - low) / math.sqrt(12):.6g}")


def _scale_of_window(
    inside: Mapping[str, float], low: float, high: float, where: str
) -> tuple[float, float, str]:
    """Mean and deviation of a window that was asked for, and in words: those of the data, where they fit it."""
    mean, std = inside["mean"], inside["std"]
    fewest, most = WINDOW_DEVIATIONS
    if low < mean < high and fewest <= (high - low) / std <= most:
        return mean, std, f"the mean and deviation in {where}"
    words = (
        f"its middle and the deviation of values spread evenly over it, since mean and deviation in {where} "
        f"({mean:g}, {std:g}) do not fit it"
    )
    return *_own_scale(low, high), words


def decide_intensities(
    facts: DataFacts, kinds: Sequence[str], settings: PlanSettings = PlanSettings()
) -> Decision:
    """The scheme of each channel.

    Raises:
        UsageError: A window was asked for, and no channel is CT or PET.
    """
    window, has_units = settings.window, any(kind in FIXED_UNITS for kind in kinds)
    if window is not None and not has_units:
        raise UsageError(
            f"--window is given, but the modality is {', '.join(kinds)}; expected a channel that is ct or pet. Leave "
            "it away (where --resume kept it: --set window=null), or say --modality ct."
        )
    found = [
        intensity_scheme(channel, kind, window=window)
        for channel, kind in zip(facts.channels, kinds, strict=True)
    ]
    several = len(found) > 1
    reason = "; ".join(
        f"{channel.name}: {why}" if several else why[0].upper() + why[1:]
        for channel, (_, why) in zip(facts.channels, found, strict=True)
    )
    change = "--modality, --window" if has_units else "--modality"
    return Decision("intensities", [scheme for scheme, _ in found], f"{reason}.", change)


def decide_mirroring(
    facts: DataFacts, scheme: LabelScheme | None, settings: PlanSettings, *, slice_axis: int | None = None
) -> Decision:
    """Axes that are mirrored in training and prediction, of the images in RAS order.

    Args:
        facts: The data.
        scheme: Meaning of the label values; None for classification.
        settings: ``mirror_axes`` decides.
        slice_axis: Axis that slices are cut across, which a network of slices cannot mirror; None without.

    Raises:
        UsageError: An axis was asked for that the images do not have.
    """
    rule = Decision("mirroring", *_mirroring_by_rule(facts, scheme, slice_axis), "--mirror")
    asked = settings.mirror_axes
    if asked is None:
        return rule
    if any(axis >= facts.num_axes for axis in asked):
        raise UsageError(f"--mirror names axis {max(asked)}; expected 0 to {facts.num_axes - 1}.")
    words = ", ".join(f"axis {axis}" for axis in rule.value) or "none"
    kept = [axis for axis in asked if axis != slice_axis]
    decision = asked_for(kept, rule, words=words)
    if len(kept) == len(asked):
        return decision
    return replace(
        decision,
        reason=f"{decision.reason} Axis {slice_axis} was asked for, too, but slices are cut across it.",
    )


def _mirroring_by_rule(
    facts: DataFacts, scheme: LabelScheme | None, slice_axis: int | None
) -> tuple[list[int], str]:
    if scheme.names_a_side if scheme is not None else names_a_side(map(str, facts.class_counts)):
        what = "structure" if scheme is not None else "class"
        return [], f"A {what} is named left or right: a mirrored image would teach the wrong one."
    if any(channel.is_picture for channel in facts.channels):
        return [], "The sides of a film differ (heart, stomach), and marks are burnt in."
    if slice_axis == 0:
        return (
            [],
            "Slices are cut across the axis from left to right: nothing is mirrored from one to another.",
        )
    return [0], "Left to right only: bodies occur neither upside down nor back to front."


def decide_folds(facts: DataFacts, settings: PlanSettings) -> Decision:
    """Number of folds and, unless the datalist gives each case its fold, the seed that deals them.

    Raises:
        UsageError: Another number was asked for than the datalist has, or another seed than that of given folds.
        DataError: Fewer patients or cases than folds.
    """
    by = "patient" if facts.num_patients is not None else "case"
    units = facts.num_patients if facts.num_patients is not None else facts.num_cases
    seed = fold_seed_of(facts, settings)
    number = _number_of_folds(facts, settings, units)
    if facts.folds:
        reason = f"The datalist gives each case its fold, which is kept (split by {by})."
    else:
        reason = f"Dealt out by {by} over {units} {by}s; the same names and seed always give the same folds."
        if by == "case":
            reason += " No patients are named: cases of one patient may lie on both sides of a split."
    if number < 2 or units < 2:
        raise DataError(
            f"Found {units} {by}s in training, for {number} folds; expected at least 2 of each, to hold some out. "
            "Add cases, or ask for more --folds."
        )
    if units < number and not facts.folds:
        raise DataError(
            f"Found {units} {by}s in training, for {number} folds; expected at least one a fold. "
            + _cure_of_few(facts, units)
        )
    if facts.folds:
        return Decision(
            "folds", {"num_folds": number, "by": by}, reason, '"fold" of the cases in the datalist'
        )
    own = _folds_of_datalist(facts)
    change = '"split" of the datalist, `--set fold_seed=N`' if own else "--folds, --set fold_seed=N"
    by_rule = {"num_folds": own or min(5, units), "fold_seed": _own_seed(facts), "by": by}
    words = f"{by_rule['num_folds']} folds, seed {by_rule['fold_seed']}"
    asked = {"num_folds": number, "fold_seed": seed, "by": by}
    return asked_for(asked, Decision("folds", by_rule, reason, change), words=words)


def fold_seed_of(facts: DataFacts, settings: PlanSettings) -> int:
    """The seed that deals the folds; the datalist's, where each of its cases has its fold.

    Raises:
        UsageError: Another one was asked for than that of given folds.
    """
    own, asked = _own_seed(facts), settings.fold_seed
    if facts.folds and asked not in (None, own):
        raise UsageError(
            f"fold_seed is {asked}, but the datalist gives each case its fold. Leave it away (where --resume kept it: "
            "--set fold_seed=null), or make the datalist anew with `medimg3d datalist`."
        )
    return own if asked is None else asked


def _own_seed(facts: DataFacts) -> int:
    return int(facts.split.get("seed", 0))


def _number_of_folds(facts: DataFacts, settings: PlanSettings, units: int) -> int:
    own, asked = _folds_of_datalist(facts), settings.num_folds
    if own and asked and asked != own:
        raise UsageError(
            f"--folds is {asked}, but the datalist has {own} folds; expected {own}. Leave --folds away (where --resume "
            f"kept it: --folds {own}), or make the datalist anew: `medimg3d datalist FOLDER --out FILE --num-folds "
            f"{asked}`."
        )
    return own or min(5, units) if asked is None else asked


def _folds_of_datalist(facts: DataFacts) -> int:
    """As many as its cases carry, else as its ``split`` says; 0 where it says nothing."""
    return max(facts.folds) + 1 if facts.folds else int(facts.split.get("num_folds") or 0)


def _cure_of_few(facts: DataFacts, units: int) -> str:
    if _folds_of_datalist(facts):
        again = f"`medimg3d datalist FOLDER --out FILE --num-folds {units}`"
        return f"Make the datalist anew: {again}."
    return f"Give --folds {units}, or fewer, or add cases."
