"""The random transforms of a training, as MONAI config blocks.

Source of the list for segmentation: Isensee et al. 2021, doi:10.1038/s41592-020-01008-z (nnU-Net); rotation and
scaling share one resampling, as in the hippocampus bundle.
"""

from __future__ import annotations

from typing import Any

from medimg3d.planning.plan import Plan
from medimg3d.planning.template import PACKAGE

Block = dict[str, Any]

ROTATION = 0.5
"""Radians, either way."""

SCALING = 0.3

_BOTH = ["image", "label"]
_TYPED = {"_target_": "EnsureTyped", "keys": _BOTH, "track_meta": False}


def segmentation_transforms(plan: Plan) -> list[Block]:
    """A patch of image and label, and its variations."""
    single = {"_target_": "CastToTyped", "keys": "image", "dtype": "$torch.float32"}
    blocks = [_crop(plan), {"_target_": "SelectItemsd", "keys": _BOTH}, single]
    if plan.slice_axis is not None:
        blocks.append({"_target_": "SqueezeDimd", "keys": _BOTH, "dim": plan.slice_axis + 1})
    if plan.settings.augmentation == "none":
        return [*blocks, _TYPED]
    on_image = {"keys": "image"}
    contrast = {"_target_": "RandAdjustContrastd", "gamma": [0.7, 1.5], "retain_stats": True}
    fixed_mean = {
        "_target_": "RandScaleIntensityFixedMeand",
        "prob": 0.15,
        "factors": 0.25,
        "preserve_range": True,
    }
    blur = {f"sigma_{axis}": [0.5, 1.0] for axis in "xyz"[: plan.network_axes]}
    return [
        *blocks,
        _affine(plan),
        *_flips(plan, _BOTH),
        {"_target_": "RandGaussianNoised", **on_image, "prob": 0.1, "std": 0.1},
        {"_target_": "RandGaussianSmoothd", **on_image, "prob": 0.1, **blur},
        *_of_each_channel(plan, {"_target_": "RandScaleIntensityd", "prob": 0.15, "factors": 0.25}),
        *_of_each_channel(plan, fixed_mean),
        _low_resolution(plan),
        *_of_each_channel(plan, {**contrast, "prob": 0.1, "invert_image": True}),
        *_of_each_channel(plan, {**contrast, "prob": 0.3}),
        _TYPED,
    ]


def _of_each_channel(plan: Plan, block: Block) -> list[Block]:
    """A transform of intensities; where there are several channels, each draws its own and keeps its own scale."""
    if len(plan.facts.channels) == 1:
        return [{"_target_": block["_target_"], "keys": "image", **block}]
    alone = block | {"_target_": block["_target_"].removesuffix("d")}
    return [{"_target_": f"{PACKAGE}.each_channel.RandEachChanneld", "keys": "image", "transform": alone}]


def _low_resolution(plan: Plan) -> Block:
    """Fewer voxels and back; MONAI's own way back is for three axes only."""
    block: Block = {"_target_": "RandSimulateLowResolutiond", "keys": "image", "prob": 0.125}
    if plan.network_axes == 2:
        block["upsample_mode"] = "bilinear"
    return block | {"zoom_range": [0.5, 1.0]}


def _crop(plan: Plan) -> Block:
    share = plan.settings.foreground_share
    return {
        "_target_": "RandCropByPosNegLabeld",
        "keys": _BOTH,
        "label_key": "label",
        "spatial_size": "@patch_size" if plan.slice_axis is None else "@crop_size",
        "pos": round(share, 4),
        "neg": round(1 - share, 4),
        "num_samples": 1,
        "fg_indices_key": "label_fg_indices",
        "bg_indices_key": "label_bg_indices",
    }


def _affine(plan: Plan) -> Block:
    """Rotation and scaling; in the plane only, where a patch has few thick slices."""
    axes = plan.network_axes
    block: Block = {"_target_": "RandAffined", "keys": _BOTH, "prob": 0.4}
    if axes == 2:
        block |= {"rotate_range": ROTATION, "scale_range": [[-SCALING, SCALING]] * 2}
    else:
        thick = thick_axis(plan)
        turns = [ROTATION if thick in (None, axis) else 0.0 for axis in range(3)]
        scale = [[0.0, 0.0] if axis == thick else [-SCALING, SCALING] for axis in range(3)]
        block |= {"rotate_range": turns, "scale_range": scale}
    return {**block, "mode": ["bilinear", "nearest"], "padding_mode": "zeros"}


def thick_axis(plan: Plan) -> int | None:
    """The axis of a 3D patch that is not turned into others: at least 3 times shorter than the longest; else None."""
    patch = plan.topology.patch
    shortest = min(range(len(patch)), key=lambda axis: patch[axis])
    return shortest if max(patch) / patch[shortest] >= 3 else None


def _flips(plan: Plan, keys: list[str] | str) -> list[Block]:
    return [
        {"_target_": "RandFlipd", "keys": keys, "prob": 0.5, "spatial_axis": axis}
        for axis in network_mirror_axes(plan)
    ]


def network_mirror_axes(plan: Plan) -> list[int]:
    """The mirrored axes, counted on what the network sees."""
    if plan.is_picture and not plan.is_segmentation:  # read as rows, columns
        return [plan.facts.num_axes - 1 - axis for axis in plan.mirror_axes]
    kept = [axis for axis in range(plan.facts.num_axes) if axis != plan.slice_axis]
    return [kept.index(axis) for axis in plan.mirror_axes if axis in kept]


def classification_transforms(plan: Plan) -> list[Block]:
    """Variations of a whole image: those of the film bundle in 2D, those of the adrenal bundle in 3D."""
    on_image = {"keys": "image"}
    typed = {"_target_": "EnsureTyped", **on_image, "track_meta": False}
    if plan.settings.augmentation == "none":
        return [typed]
    size = plan.topology.patch
    flips = _flips(plan, "image")
    if len(size) == 3:
        moved = {
            "rotate_range": [0.4] * 3,
            "translate_range": [round(own / 12, 1) for own in size],
            "scale_range": [[-0.1, 0.1]] * 3,
        }
        frame = {"mode": "bilinear", "padding_mode": "border"}
        return [
            *flips,
            {"_target_": "RandAffined", **on_image, "prob": 0.8, **moved, **frame},
            *_grey(0.1),
            typed,
        ]
    moved = {
        "rotate_range": 0.2,
        "shear_range": 0.1,
        "translate_range": [round(own * 0.07, 1) for own in size],
        "scale_range": [[-0.2, 0.2]] * 2,
    }
    covered = {
        "_target_": "RandCoarseDropoutd",
        **on_image,
        "prob": 0.3,
        "holes": 1,
        "max_holes": 6,
        "spatial_size": [max(1, own // 14) for own in size],
        "max_spatial_size": [max(1, own * 3 // 14) for own in size],
        "fill_value": 0.0,
    }
    affine = {
        "_target_": "RandAffined",
        **on_image,
        "prob": 0.8,
        **moved,
        "mode": "bilinear",
        "padding_mode": "border",
    }
    blur = {
        "_target_": "RandGaussianSmoothd",
        **on_image,
        "prob": 0.2,
        "sigma_x": [0.5, 1.5],
        "sigma_y": [0.5, 1.5],
    }
    return [*flips, affine, *_grey(0.15), blur, covered, typed]


def _grey(noise: float) -> list[Block]:
    on_image = {"keys": "image"}
    contrast = {"_target_": "RandAdjustContrastd", **on_image, "gamma": [0.6, 1.6], "retain_stats": True}
    return [
        {**contrast, "prob": 0.5},
        {**contrast, "prob": 0.2, "invert_image": True},
        {"_target_": "RandScaleIntensityd", **on_image, "prob": 0.3, "factors": 0.25},
        {"_target_": "RandShiftIntensityd", **on_image, "prob": 0.3, "offsets": 0.25},
        {"_target_": "RandGaussianNoised", **on_image, "prob": 0.2, "std": noise},
    ]
