"""The deterministic part of what a network sees, as MONAI config blocks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medimg3d.planning.plan import Plan

Block = dict[str, Any]

_CLIP_NONZERO = "PACKAGE.nonzero_clip.ClipNonzeroPercentiles"


def preprocessing_block(plan: Plan) -> Block:
    """From a path to an image, ready for the network: one definition for training, evaluation and inference."""
    return compose(
        [
            *image_on_axes(plan),
            *_crop(plan, "image"),
            *_spacing(plan, "image", "bilinear"),
            *_resize(plan),
            *intensity_blocks(plan),
            typed("image", "float32"),
        ]
    )


def label_preprocessing_block(plan: Plan) -> Block:
    """The same grid for the label map, whose values stay whole numbers; with a finder, from the loaded label map on."""
    return compose(
        [
            *(label_on_axes(plan) if plan.finder is None else _crop(plan, "label")),
            *_spacing(plan, "label", "nearest"),
            typed("label", "uint8"),
        ]
    )


def image_on_axes(plan: Plan) -> list[Block]:
    """The image as it stands in its file, channel first, its axes in RAS order, at the scale of the others."""
    first = {"_target_": "EnsureChannelFirstd", "keys": "image"}
    return [
        _load(plan),
        first,
        *flat(plan, "image"),
        *_axes(plan, "image"),
        *_field(plan, "image", "bilinear"),
    ]


def label_on_axes(plan: Plan) -> list[Block]:
    """The label map likewise."""
    return [*load_label(), *flat(plan, "label"), *_axes(plan, "label"), *_field(plan, "label", "nearest")]


def typed(key: str, dtype: str) -> Block:
    """The last step: ``float32`` or ``uint8``."""
    return {"_target_": "EnsureTyped", "keys": key, "dtype": f"$torch.{dtype}"}


def load_label() -> list[Block]:
    """The label map as it stands in its file, channel first."""
    return [
        {"_target_": "LoadImaged", "keys": "label"},
        {"_target_": "EnsureChannelFirstd", "keys": "label"},
    ]


def flat(plan: Plan, key: str) -> list[Block]:
    """2D images may be stored as volumes of one slice."""
    if plan.is_picture or plan.facts.num_axes == 3:
        return []
    return [{"_target_": "PACKAGE.flat_axis.DropFlatAxisd", "keys": key}]


def compose(transforms: list[Block] | list[Any]) -> Block:
    """A ``Compose`` of the transforms."""
    return {"_target_": "Compose", "transforms": transforms}


def _load(plan: Plan) -> Block:
    if not plan.is_picture:
        return {"_target_": "LoadImaged", "keys": "image"}
    reader: Block = {"_target_": "PACKAGE.film_reader.FilmReader", "window": "voi"}
    if plan.is_segmentation:  # the axes of its label map and of the picture that is written: columns, rows
        reader = {"_target_": "PILReader", "converter": "$lambda picture: picture.convert('F')"}
    return {"_target_": "LoadImaged", "keys": "image", "reader": reader}


def _axes(plan: Plan, key: str) -> list[Block]:
    if plan.is_picture:
        return []
    codes = "RAS" if plan.facts.num_axes == 3 else "RA"
    return [{"_target_": "Orientationd", "keys": key, "axcodes": codes, "labels": None}]


def _field(plan: Plan, key: str, mode: str) -> list[Block]:
    """Where no voxel size is known, the number of voxels across an image stands for it."""
    field = plan.field_of_view
    if field is None:
        return []
    target = "PACKAGE.field_of_view.CommonFieldOfViewd"
    return [{"_target_": target, "keys": key, "edge": field.edge, "axes": list(field.axes), "mode": mode}]


def _crop(plan: Plan, key: str) -> list[Block]:
    """To the region, in the voxels of the file: what is not looked at is not resampled either."""
    if plan.finder is None:
        return []
    return [{"_target_": "PACKAGE.found_region.CropToRegiond", "keys": key, "region": "@region"}]


def _spacing(plan: Plan, key: str, mode: str) -> list[Block]:
    if plan.is_picture or plan.spacing_mm is None or not plan.is_segmentation:
        return []
    return [{"_target_": "Spacingd", "keys": key, "pixdim": list(plan.spacing_mm), "mode": mode}]


def _resize(plan: Plan) -> list[Block]:
    if plan.is_segmentation:
        return []
    return [{"_target_": "Resized", "keys": "image", "spatial_size": "@image_size", "mode": "area"}]


def intensity_blocks(plan: Plan) -> list[Block]:
    """What brings the values of every channel to a common scale."""
    schemes = [dict(scheme) for scheme in plan.intensities]
    if all(scheme == schemes[0] for scheme in schemes):
        channel_wise = {"channel_wise": True} if len(schemes) > 1 else {}
        return [
            {
                "_target_": f"{block.pop('_target_')}d",
                "keys": "image",
                **block,
                **_if_takes(name, channel_wise),
            }
            for name, block in ((block["_target_"], block) for block in _steps(schemes[0]))
        ]
    transforms = [compose(_steps(scheme)) for scheme in schemes]
    return [
        {
            "_target_": "PACKAGE.channel_transforms.ChannelTransformsd",
            "keys": "image",
            "transforms": transforms,
        }
    ]


def _if_takes(name: str, channel_wise: Block) -> Block:
    """A fixed window has no statistics of a channel, and the clipping at nonzero percentiles always goes by channel."""
    return {} if name in ("ScaleIntensityRange", _CLIP_NONZERO) else channel_wise


def _steps(scheme: Mapping[str, Any]) -> list[Block]:
    """Array transforms of one scheme (see ``data_decisions.intensity_scheme``)."""
    if scheme["scheme"] == "fixed":
        low, high = scheme["low"], scheme["high"]
        clip = {"a_min": low, "a_max": high, "b_min": low, "b_max": high, "clip": True}
        return [
            {"_target_": "ScaleIntensityRange", **clip},
            {"_target_": "NormalizeIntensity", "subtrahend": scheme["mean"], "divisor": scheme["std"]},
        ]
    if scheme["scheme"] == "film":
        scale = {"lower": 0.5, "upper": 99.5, "b_min": 0.0, "b_max": 1.0, "clip": True}
        return [{"_target_": "ScaleIntensityRangePercentiles", **scale}, {"_target_": "NormalizeIntensity"}]
    bounds = {"lower": 0.5, "upper": 99.5}
    if scheme["nonzero"]:  # over all voxels, the upper percentile would lie in the midst of the tissue
        return [{"_target_": _CLIP_NONZERO, **bounds}, {"_target_": "NormalizeIntensity", "nonzero": True}]
    return [{"_target_": "ClipIntensityPercentiles", **bounds}, {"_target_": "NormalizeIntensity"}]
