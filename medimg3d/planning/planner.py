"""From facts and settings to a plan, before its memory was measured."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from medimg3d.data.datalist import Datalist
from medimg3d.errors import UsageError
from medimg3d.planning.asked_settings import refuse_idle_settings
from medimg3d.planning.data_decisions import (
    decide_folds,
    decide_intensities,
    decide_mirroring,
    decide_modalities,
    decide_slices,
    decide_spacing,
    decide_task,
    fold_seed_of,
)
from medimg3d.planning.data_facts import DataFacts
from medimg3d.planning.decision import Decision, asked_for, times
from medimg3d.planning.field_of_view import decide_field_of_view
from medimg3d.planning.file_readers import refuse_unreadable
from medimg3d.planning.finder import (
    FAR_LARGER,
    LEAST_VOXELS,
    MOST_CASES,
    SMALL_PART,
    VOXELS,
    Finder,
    decide_finder,
    plan_finder,
    region_shares,
)
from medimg3d.planning.label_scheme import LabelScheme, read_label_scheme
from medimg3d.planning.networks import (
    divisor_of,
    first_width,
    has_own_depth,
    learning_rate_of,
    topology_of,
    voxels_of,
)
from medimg3d.planning.plan import Plan
from medimg3d.planning.settings import PlanSettings
from medimg3d.planning.topology import Topology, at_least_16_somewhere, first_patch
from medimg3d.planning.trainable import refuse_several_channels

MOST_VOXELS = {"cpu": 96**3, "cuda": 160**3}
"""Voxels of a patch without a figure for the memory; on a CPU a larger one would take minutes a step."""

STEP_VOXELS = {"cpu": 360_000, "cuda": 4_000_000}
"""Voxels that a step should see over its whole batch, without a figure for the memory."""

ITERATIONS = {"cpu": 4_000, "cuda": 25_000}
"""Steps of a training: about an hour or two on two cores for small volumes, half a day on a GPU."""

EPOCH_STEPS = (10, 250)
"""Fewest and most steps of an epoch."""

MOST_PATCHES = 8
"""Patches of a case in an epoch, at most."""

SMALLEST_IMAGE = 32
"""Voxels along each axis of an image that a DenseNet can take: it halves them five times."""

WEIGHT_DECAY = {"segmentation": 0.01, "classification": 0.05}

FEWEST_LEVELS = 3


def draft_plan(facts: DataFacts, datalist: Datalist, settings: PlanSettings) -> Plan:
    """Every decision but those that depend on measured memory.

    Args:
        facts: The data.
        datalist: Its regions and its ignored label count.
        settings: What the user set.

    Returns:
        A plan with the largest patch that is worth trying, or the one asked for.

    Raises:
        DataError: The data do not allow a plan.
        UsageError: Settings that contradict each other or the data.
    """
    task = decide_task(facts, settings)
    refuse_idle_settings(settings, task.value, facts)
    refuse_unreadable(facts)
    if task.value == "classification":
        refuse_several_channels(facts)
    modalities = decide_modalities(facts, settings)
    intensities = decide_intensities(facts, modalities.value, settings)
    scheme = read_label_scheme(datalist, facts.labels) if task.value == "segmentation" else None
    folds = decide_folds(facts, settings)
    network = _decide_network(task.value, settings)
    spacing = (
        decide_spacing(facts, settings)
        if scheme
        else Decision("voxel size", None, "Images are brought to one size.")
    )
    field, field_of_view = decide_field_of_view(facts, spacing.value, settings) if scheme else (None, None)
    slices, slice_axis = decide_slices(facts, spacing.value, settings, divisor_of(network.value))
    if task.value == "classification" and facts.num_axes == 3:
        if settings.dimension == "2d":
            raise UsageError(
                "--dimension 2d goes through volumes slice by slice, and a classifier takes the whole image; leave it "
                "away (where --resume kept it: --set dimension=null)."
            )
        slices, slice_axis = replace(slices, value="3D", reason="A classifier takes the whole image."), None
    mirroring = decide_mirroring(facts, scheme, settings, slice_axis=slice_axis)
    size = settings.patch_size if scheme else settings.image_size
    if size is not None and len(size) not in (facts.num_axes, facts.num_axes - (slice_axis is not None)):
        flag = "--patch" if scheme else "--image-size"
        raise UsageError(f"{flag} has {len(size)} numbers; expected {facts.num_axes}.")
    decisions = [
        task,
        modalities,
        slices,
        network,
        *([spacing] if scheme else []),
        *([field] if field else []),
        intensities,
        folds,
        mirroring,
    ]
    if scheme is not None:
        decisions.insert(1, _describe_scheme(scheme, facts))
    plan = Plan(
        facts=facts,
        settings=settings,
        task=task.value,
        modalities=tuple(modalities.value),
        spacing_mm=None if spacing.value is None else tuple(spacing.value),
        field_of_view=field_of_view,
        slice_axis=slice_axis,
        intensities=tuple(intensities.value),
        scheme=scheme,
        network=network.value,
        topology=Topology((1,), ((1,),), ((3,),)),
        width=_given(settings.width, first_width(network.value, settings.device)),
        batch_size=1,
        mirror_axes=tuple(mirroring.value),
        num_folds=folds.value["num_folds"],
        fold_seed=fold_seed_of(facts, settings),
        split_by=folds.value["by"],
        decisions=tuple(decisions),
        weight_decay=_given(settings.weight_decay, WEIGHT_DECAY[task.value]),
        learning_rate=_given(settings.learning_rate, learning_rate_of(network.value)),
    )
    return _with_patch(plan) if scheme else _with_image_size(plan)


def finish_plan(plan: Plan) -> Plan:
    """The decisions that follow from patch and batch: length, prediction, what is not built."""
    settings = plan.settings
    steps_rule = _steps_by_rule(plan)
    steps = _given(settings.iterations_per_epoch, int(steps_rule.value))
    total = ITERATIONS[settings.device]
    by_rule = max(1, round(total / steps))
    if not plan.is_segmentation:
        by_rule = max(8, min(60, round(total / 4 / steps)))
    epochs = _given(settings.epochs, by_rule)
    why_epochs = (
        f"{by_rule * steps} steps in all. The length is fixed beforehand and validation chooses nothing; `medimg3d "
        "train --minutes` fits it to your time."
    )
    if epochs != by_rule:
        why_epochs += f" {epochs} epochs are {epochs * steps} steps."
    plan = plan.decided(
        asked_for(steps, steps_rule),
        asked_for(epochs, Decision("epochs", by_rule, why_epochs, "--epochs")),
        _explain_optimizer(plan),
        _loss(plan),
        *_augmentation(plan),
        iterations_per_epoch=steps,
        epochs=epochs,
    )
    return _note_large_volumes(plan) if plan.is_segmentation else plan


def _steps_by_rule(plan: Plan) -> Decision:
    fewest, most = EPOCH_STEPS
    cover = _patches_per_case(plan)
    seen = min(MOST_PATCHES, cover)
    steps = int(np.clip(math.ceil(plan.num_training * seen / plan.batch_size), fewest, most))
    what = f"{plan.num_training} images"
    if plan.is_segmentation:
        what = f"{seen:.3g} patch{'es' if seen > 1 else ''} of each of {plan.num_training} cases"
        if cover > seen:
            whole = "an image" if plan.finder is None else "a region"
            what += f" ({whole} is {cover:.3g} times the patch, of which {MOST_PATCHES} count)"
    why = f"An epoch sees {what}, {plan.batch_size} at once; at least {fewest} steps, at most {most}."
    return Decision("steps of an epoch", steps, why, "--set iterations_per_epoch=N")


def _explain_optimizer(plan: Plan) -> Decision:
    rate, decay = learning_rate_of(plan.network), WEIGHT_DECAY[plan.task]
    why = "The learning rate falls to zero over the run; the weights kept are a moving average."
    change = "--set learning_rate=X, --set weight_decay=X"

    def words(rate: float, decay: float) -> str:
        return f"AdamW, {rate:g}, weight decay {decay:g}"

    rule = Decision("optimizer", words(rate, decay), why, change)
    return asked_for(words(plan.learning_rate, plan.weight_decay), rule)


def may_have_finder(plan: Plan) -> bool:
    """Whether a region finder comes into question: labelled volumes, and structures in a small part of most."""
    if plan.settings.finder == "yes":
        return True
    if plan.settings.finder == "no" or not _has_boxes(plan):
        return False
    small = region_shares(plan.facts, (0.0,) * plan.facts.num_axes) <= SMALL_PART
    return bool(small.mean() >= MOST_CASES)


def choose_finder(draft: Plan, sized: Plan, *, fits: Callable[[Plan], bool]) -> Plan:
    """The draft with the decision on a region finder; with one, patch and batch are those of the regions.

    Args:
        draft: Without a finder.
        sized: The same, with the patch that fits the memory.
        fits: Whether the finder of a plan fits it, too; else its voxels become larger.

    Raises:
        UsageError: One was asked for, and there are no labelled volumes.
    """
    settings = draft.settings
    if not _has_boxes(draft):
        if settings.finder == "yes":
            raise UsageError("--finder yes is for volumes with label maps; leave it away.")
        return draft
    voxels = VOXELS[settings.device]
    finder = _finder_of(draft, voxels)
    if settings.finder != "no":
        while voxels > LEAST_VOXELS and not fits(replace(draft, finder=finder)):
            voxels //= 2
            finder = _finder_of(draft, voxels)
    decision = decide_finder(
        draft.facts,
        finder,
        times_patch=_times_patch(sized),
        wish=settings.finder,
        slices=draft.slice_axis is not None,
    )
    if decision.value == "no":
        return draft.decided(decision)
    return _with_patch(draft.decided(decision, finder=finder))


def _finder_of(plan: Plan, most_voxels: int) -> Finder:
    return plan_finder(
        plan.facts,
        device=plan.settings.device,
        num_training=plan.num_training,
        most_voxels=most_voxels,
        margin_mm=plan.settings.finder_margin_mm,
        epochs=plan.settings.finder_epochs,
    )


def _has_boxes(plan: Plan) -> bool:
    return plan.is_segmentation and plan.facts.num_axes == 3 and any(plan.facts.boxes)


def _times_patch(plan: Plan) -> float:
    """Voxels of the median image, as a multiple of the patch."""
    shape = np.median(plan.facts.shapes_at(plan.spacing_mm), axis=0)
    return float(np.prod(shape) / voxels_of(plan.patch_size))


def most_batch(plan: Plan) -> int:
    """Most patches of a step: 5 % of all voxels of the data set (nnU-Net's rule), 2 to 64."""
    share = 0.05 * float(plan.shapes.prod(axis=1).sum()) / voxels_of(plan.topology.patch)
    return int(np.clip(share, 2, 64))


def median_shape(plan: Plan) -> list[float]:
    """Median image (region, with a finder) on the network's axes, in its voxels."""
    shape = [float(size) for size in np.median(plan.shapes, axis=0)]
    if plan.slice_axis is not None:
        del shape[plan.slice_axis]
    return shape


def with_topology(plan: Plan, patch: tuple[int, ...]) -> Plan:
    """The plan with a patch on the network's axes, widened to what the network can take.

    Raises:
        UsageError: The patch that was asked for is too small to be halved twice.
    """
    topology = topology_of(
        plan.network, patch, plan.spacing_for_shape(), max_poolings=plan.settings.max_poolings
    )
    if topology.num_levels < FEWEST_LEVELS:
        raise UsageError(
            f"A patch of {times(patch)} voxels is too small for the {FEWEST_LEVELS} levels of a network; expected at "
            "least 16 along some axis. Give a larger --patch, or leave it away."
        )
    return replace(plan, topology=topology)


def _decide_network(task: str, settings: PlanSettings) -> Decision:
    name = settings.network
    if task == "classification":
        if name not in ("auto", "densenet"):
            raise UsageError(f"--network {name} segments; expected densenet for a data set of classes.")
        why = "Dense connections do well on few images; the project's own classifiers use it."
        return Decision("network", "densenet", why, "--network")
    if name == "densenet":
        raise UsageError(
            "--network densenet classifies whole images; expected dynunet, unet, segresnet, mednext or swinunetr."
        )
    if name == "auto":
        why = (
            "A plain U-Net with nnU-Net's rules is as good as anything newer where both are trained with the same care "
            "(nnU-Net Revisited, arXiv:2404.09556)."
        )
        return Decision("network", "dynunet", why, "--network")
    return asked_for(name, _decide_network(task, replace(settings, network="auto")))


def _describe_scheme(scheme: LabelScheme, facts: DataFacts) -> Decision:
    rare = [scheme.labels[v] for v in scheme.labels if v and facts.label_cases.get(v, 0) < facts.num_cases]
    reason = "The values of the label maps" + (f"; not in every case: {', '.join(rare)}." if rare else ".")
    if scheme.regions:
        reason = (
            "Overlapping regions: each has its own sigmoid output. Label maps that come out name the last region "
            "that a voxel belongs to."
        )
    if scheme.ignore_label is not None:
        reason += f" Voxels of value {scheme.ignore_label} are left out of loss, patch centres and scores" + (
            f": {facts.labelled_slices:.0%} of the slices are labelled (median)."
            if facts.labelled_slices < 1
            else "."
        )
    return Decision(
        "outputs", scheme.output_names, reason, '"labels", "regions", "ignore_label" of the datalist'
    )


def _with_patch(plan: Plan) -> Plan:
    settings, shape = plan.settings, median_shape(plan)
    most = float(MOST_VOXELS[settings.device]) if settings.memory_gb is None else 256.0**3
    patch = at_least_16_somewhere(first_patch(shape, plan.spacing_for_shape(), most_voxels=most))
    ruled = with_topology(plan, patch)
    rule = _explain_patch(ruled, shape)
    if settings.patch_size is None:
        plan = ruled.decided(rule)
    else:
        asked = list(settings.patch_size)
        if plan.slice_axis is not None and len(asked) == plan.facts.num_axes:
            del asked[plan.slice_axis]
        plan = with_topology(plan, tuple(asked))
        decision = asked_for(list(plan.patch_size), rule, words=f"at most {times(rule.value)}")
        note = "" if plan.patch_size == ruled.patch_size else f" This one sees {_cover(plan, shape):.0%}."
        if list(plan.topology.patch) != asked:
            note += f" {times(settings.patch_size)} was asked for, widened to what {plan.network} can halve."
        decision = replace(decision, reason=decision.reason + note)
        plan = plan.decided(decision)
    batch = _given(settings.batch_size, first_batch(plan))
    return plan.decided(explain_batch(plan, batch), _explain_levels(plan), batch_size=batch)


def first_batch(plan: Plan) -> int:
    """Patches of a step where no figure for the memory is given."""
    return int(
        np.clip(
            round(STEP_VOXELS[plan.settings.device] / voxels_of(plan.topology.patch)),
            2,
            min(16, most_batch(plan)),
        )
    )


def explain_batch(plan: Plan, batch: int) -> Decision:
    """The decision on the batch."""
    asked, memory_gb = plan.settings.batch_size, plan.settings.memory_gb
    by_rule = batch
    if asked is not None:
        by_rule = first_batch(plan) if plan.is_segmentation else _first_image_batch(plan)
    why = f"A step sees {by_rule} images; at most 4, or a quarter of those in training where that is more."
    if plan.is_segmentation:
        why = f"A step sees {by_rule} patches; at least 2, at most 5 % of all voxels."
    words = str(by_rule) if memory_gb is None else f"{by_rule}, or more where the memory has room"
    return asked_for(batch, Decision("batch", by_rule, why, "--batch"), words=words)


def explain_size(plan: Plan) -> list[Decision]:
    """The decisions on patch, levels and batch, anew after the plan was fitted to the memory."""
    if not plan.is_segmentation:
        return [explain_batch(plan, plan.batch_size)]
    patch = [] if plan.settings.patch_size is not None else [_explain_patch(plan, median_shape(plan))]
    return [*patch, _explain_levels(plan), explain_batch(plan, plan.batch_size)]


def _explain_patch(plan: Plan, shape: list[float]) -> Decision:
    whole = " x ".join(f"{size:.0f}" for size in shape)
    what = "image" if plan.finder is None else "region"
    unit = "in mm " if plan.spacing_mm else ""
    why = (
        f"The median {what} is {whole} voxels, of which a patch sees {_cover(plan, shape):.0%}; as long {unit}"
        "along every axis as it can be, and a multiple of what the network divides it by."
    )
    return Decision("patch", list(plan.patch_size), why, "--patch")


def _cover(plan: Plan, shape: list[float]) -> float:
    """Share of an image that a patch sees."""
    return float(np.prod(np.minimum(1.0, np.array(plan.topology.patch) / np.array(shape))))


def _explain_levels(plan: Plan) -> Decision:
    topology, settings = plan.topology, plan.settings
    divisors = ", ".join(str(divisor) for divisor in topology.divisors)
    why = f"{topology.num_levels} levels; the axes are divided by {divisors}"
    if any(1 in kernel for kernel in topology.kernels):
        why += ", and kernels have 1 voxel along the thick axis until voxels are about cubes"
    if settings.max_poolings != PlanSettings.max_poolings:
        why += f" (at most {settings.max_poolings} halvings as asked for; by the rule {PlanSettings.max_poolings})"
    why += f". The first level has {plan.width} filters{_asked_width(plan)}."
    if plan.deep_supervision:
        why += " Lower levels are trained on the label, too (deep supervision)."
    elif not settings.deep_supervision and plan.network == "dynunet":
        why += " Lower levels are not trained on the label, as asked for."
    value = {"levels": topology.num_levels, "filters": plan.width}
    own_depth = has_own_depth(plan.network)
    change = "--set width=N" if own_depth else "--set width=N, --set max_poolings=N"
    return Decision("depth and width", value, why, change)


def _asked_width(plan: Plan) -> str:
    settings, by_rule = plan.settings, first_width(plan.network, plan.settings.device)
    if settings.width in (None, by_rule):
        return ""
    more = ", or more where the memory has room" if settings.memory_gb is not None else ""
    return f" as asked for; by the rule {by_rule}{more}"


def _with_image_size(plan: Plan) -> Plan:
    settings, shape = plan.settings, plan.facts.median_shape
    axes = plan.facts.num_axes
    longest, step = (
        ({"cpu": 128, "cuda": 224} if axes == 2 else {"cpu": 64, "cuda": 96})[settings.device],
        32 if axes == 2 else 8,
    )
    ratio = min(1.0, longest / max(shape))
    size = [int(max(SMALLEST_IMAGE, round(own * ratio / step) * step)) for own in shape]
    why = (
        f"The longest side of {longest} is enough for what a film or crop shows as a whole; the sides keep about "
        f"the ratio of the median image ({' x '.join(f'{own:.0f}' for own in shape)}), with at least "
        f"{SMALLEST_IMAGE}, which the network halves five times."
    )
    size = size[::-1] if plan.is_picture else size  # films are read as rows, columns
    decision = Decision(
        "image size", size, why + (" Rows, columns." if plan.is_picture else ""), "--image-size"
    )
    if settings.image_size is not None:
        size = list(settings.image_size)
        if min(size) < SMALLEST_IMAGE:
            raise UsageError(
                f"--image-size is {times(size)}; expected at least {SMALLEST_IMAGE} along each axis, which the network "
                "halves five times. Give a larger one, or leave it away."
            )
        decision = asked_for(size, decision, words=times(decision.value))
    ones = ((1,) * axes,)
    plan = replace(plan, topology=Topology(tuple(size), ones, ones))
    batch = _given(settings.batch_size, _first_image_batch(plan))
    return plan.decided(decision, explain_batch(plan, batch), batch_size=batch)


def _first_image_batch(plan: Plan) -> int:
    most = max(4, min(32, plan.num_training // 4))
    return int(np.clip(524_288 // voxels_of(plan.topology.patch), 4, most))


def _given(asked: Any, by_rule: Any) -> Any:
    """What was asked for, be it 0; else what the rule says."""
    return by_rule if asked is None else asked


def _patches_per_case(plan: Plan) -> float:
    if not plan.is_segmentation:
        return 1.0
    shape = np.median(plan.shapes, axis=0)
    return float(max(1.0, np.prod(shape) / voxels_of(plan.patch_size)))


def _loss(plan: Plan) -> Decision:
    if not plan.is_segmentation:
        counts = ", ".join(f"{name} {count}" for name, count in plan.facts.class_counts.items())
        return Decision(
            "loss",
            "cross-entropy, weighted",
            f"Every class counts alike however many cases it has ({counts}); labels are smoothed by 0.1.",
            "`train#loss` in configs/train.json",
        )
    assert plan.scheme is not None
    change = "--set loss=dice_ce|dice_focal"
    names = {"dice_ce": "Dice + cross-entropy", "dice_focal": "Dice + focal"}
    where = " over the labelled voxels" if plan.scheme.ignore_label is not None else ""
    why = f"Dice over the whole batch, without the background{where}."
    if plan.scheme.regions:
        names = {"dice_ce": "Dice + binary cross-entropy", "dice_focal": "Dice + binary focal"}
        why = f"Regions overlap: each is its own yes or no{where}."
    rule = Decision("loss", names["dice_ce"], why, change)
    return asked_for(names[plan.settings.loss], rule)


def _augmentation(plan: Plan) -> list[Decision]:
    settings, kind = plan.settings, "full"
    why = "Shifts, turns, scaling, contrast, brightness, noise, blur, covered spots: the films of another machine."
    if plan.is_segmentation:
        why = "nnU-Net's list: rotation, scaling, noise, blur, brightness, contrast, low resolution, gamma."
    rule = Decision("augmentation", kind, why, "--set augmentation=full|none")
    decision = asked_for(settings.augmentation, rule)
    if not plan.is_segmentation:
        return [decision]
    by_rule = f"{PlanSettings.foreground_share:.0%} on a structure"
    centres = Decision(
        "patch centres", by_rule, "The others lie anywhere (nnU-Net's rule).", "--set foreground_share=X"
    )
    return [asked_for(f"{settings.foreground_share:.0%} on a structure", centres), decision]


def _note_large_volumes(plan: Plan) -> Plan:
    cover = float(np.prod(median_shape(plan)) / voxels_of(plan.topology.patch))
    if cover <= FAR_LARGER:
        return plan
    return plan.noted(
        f"{'An image' if plan.finder is None else 'A region'} is {cover:.1f} times the patch, so that the network "
        "sees each place without much of its surroundings. nnU-Net then adds a cascade (a network at low resolution "
        "before this one), which is not built. What helps: more --memory-gb (larger patches)"
        f"{' or' if plan.finder else ','} a coarser --spacing"
        f"{'' if plan.finder else ', or --finder yes where the structures lie close together'}."
    )
