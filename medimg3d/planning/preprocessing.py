"""The deterministic part of what a network sees, as MONAI config blocks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medimg3d.planning.plan import Plan

Block = dict[str, Any]


def preprocessing_block(plan: Plan) -> Block:
    """From a path to an image, ready for the network: one definition for training, evaluation and inference."""
    return compose(
        [
            _load(plan),
            {"_target_": "EnsureChannelFirstd", "keys": "image"},
            *_grid(plan, "image", "bilinear"),
            *_resize(plan),
            *_intensities(plan),
            {"_target_": "EnsureTyped", "keys": "image", "dtype": "$torch.float32"},
        ]
    )


def label_preprocessing_block(plan: Plan) -> Block:
    """The same grid for the label map, whose values stay whole numbers."""
    return compose(
        [
            *load_label(),
            *_grid(plan, "label", "nearest"),
            {"_target_": "EnsureTyped", "keys": "label", "dtype": "$torch.uint8"},
        ]
    )


def load_label() -> list[Block]:
    """The label map as it stands in its file, channel first."""
    return [
        {"_target_": "LoadImaged", "keys": "label"},
        {"_target_": "EnsureChannelFirstd", "keys": "label"},
    ]


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


def _grid(plan: Plan, key: str, mode: str) -> list[Block]:
    if plan.is_picture:
        return []
    codes = "RAS" if plan.facts.num_axes == 3 else "RA"
    blocks: list[Block] = [{"_target_": "Orientationd", "keys": key, "axcodes": codes, "labels": None}]
    if plan.spacing_mm is not None and plan.is_segmentation:
        blocks.append({"_target_": "Spacingd", "keys": key, "pixdim": list(plan.spacing_mm), "mode": mode})
    return blocks


def _resize(plan: Plan) -> list[Block]:
    if plan.is_segmentation:
        return []
    return [{"_target_": "Resized", "keys": "image", "spatial_size": "@image_size", "mode": "area"}]


def _intensities(plan: Plan) -> list[Block]:
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
    return {} if name == "ScaleIntensityRange" else channel_wise


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
    nonzero = {"nonzero": True} if scheme["nonzero"] else {}
    return [
        {"_target_": "ClipIntensityPercentiles", "lower": 0.5, "upper": 99.5},
        {"_target_": "NormalizeIntensity", **nonzero},
    ]
