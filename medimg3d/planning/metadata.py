"""The metadata of a planned bundle: what goes in, what comes out, which versions."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from medimg3d.planning.file_readers import reading_packages
from medimg3d.planning.networks import smallest_input
from medimg3d.planning.plan import Plan

SCHEMA = (
    "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
)
_PARTS = {"itk": ("itk-io",)}
"""Parts of a package that are enough by themselves and have its version."""
_CODES = {"ct": "CT", "mri": "MR", "pet": "PT", "film": "XR", "other": "n/a"}
_WORDS = {"ct": "CT", "mri": "MRI", "pet": "PET", "film": "X-ray film", "other": "image"}


def metadata(plan: Plan) -> dict[str, Any]:
    """Content of ``configs/metadata.json``."""
    names = plan.output_names
    shown = names if not plan.is_segmentation or plan.scheme is None or plan.scheme.regions else names[1:]
    kind = "Segmentation of" if plan.is_segmentation else "Classification as"
    images = image_words(plan)
    task = f"{kind} {', '.join(shown)} in {images}"
    facts = plan.facts
    needs = ["nibabel", *reading_packages(facts)] if not plan.is_picture else ["pillow", "pydicom"]
    values = plan.scheme.labels if plan.scheme else dict(enumerate(names))
    return {
        "schema": SCHEMA,
        "version": "0.1.0",
        "changelog": {"0.1.0": f"Planned by medimg3d from {facts.num_cases} cases; no weights yet"},
        "monai_version": _version("monai"),
        "pytorch_version": _version("torch"),
        "numpy_version": _version("numpy"),
        "required_packages_version": {
            name: _version(name) for name in (*needs, "pytorch-ignite", "tensorboard", *_extras(plan))
        },
        "supported_apps": {},
        "name": task,
        "task": task,
        "description": f"{plan.network}, planned from the data by medimg3d",
        "authors": "Planned by medimg3d; put your names here",
        "copyright": "Put the holder of the copyright here",
        "data_source": facts.name or "Put the source of the data here",
        "data_type": "picture" if plan.is_picture else "nibabel",
        "image_classes": f"{len(facts.channels)} channel(s): {images}",
        "label_classes": ", ".join(f"{value} {name}" for value, name in values.items()),
        "pred_classes": f"{len(names)} {'channels' if plan.is_segmentation else 'scores'}: {', '.join(names)}",
        **({"regions": _regions(plan)} if plan.scheme and plan.scheme.regions else {}),
        "intended_use": "Research; not for diagnosis",
        "network_data_format": {
            "inputs": {"image": _image(plan)},
            "outputs": {"pred": _pred(plan)},
        },
    }


def image_words(plan: Plan) -> str:
    """The images in words: ``3D CT``, ``ct (CT), pet (PET)``."""
    if len(plan.modalities) == 1:
        return f"{plan.facts.num_axes}D {_WORDS[plan.modalities[0]]}"
    pairs = zip(plan.facts.channels, plan.modalities, strict=True)
    channels = ", ".join(f"{channel.name} ({_WORDS[kind]})" for channel, kind in pairs)
    return f"{plan.facts.num_axes}D images of {channels}"


def _regions(plan: Plan) -> dict[str, list[int]]:
    """Region to the label values that it unites: the outputs of a network of overlapping regions."""
    assert plan.scheme is not None
    return {name: list(values) for name, values in plan.scheme.regions.items()}


def _image(plan: Plan) -> dict[str, Any]:
    channels = plan.facts.channels
    kinds = {_CODES[kind] for kind in plan.modalities}
    size = smallest_input(plan.topology) if plan.is_segmentation else list(plan.topology.patch)
    return {
        "type": "image",
        "format": "magnitude",
        "modality": kinds.pop() if len(kinds) == 1 else "n/a",
        "num_channels": len(channels),
        "spatial_shape": size,
        "dtype": "float32",
        "value_range": [],
        "is_patch_data": plan.is_segmentation,
        "channel_def": {str(number): channel.name for number, channel in enumerate(channels)},
    }


def _pred(plan: Plan) -> dict[str, Any]:
    names = plan.output_names
    if not plan.is_segmentation:
        return {
            "type": "probabilities",
            "format": "classes",
            "num_channels": len(names),
            "spatial_shape": [],
            "dtype": "float32",
            "value_range": [],
            "is_patch_data": False,
            "channel_def": {str(number): name for number, name in enumerate(names)},
        }
    assert plan.scheme is not None
    return {
        "type": "image",
        "format": "segmentation",
        "num_channels": len(names),
        "spatial_shape": smallest_input(plan.topology),
        "dtype": "float32",
        "value_range": [],
        "is_patch_data": True,
        # of label maps, which also have a background where the channels are regions
        "channel_def": {str(value): name for value, name in plan.scheme.map_names.items()},
    }


def _extras(plan: Plan) -> tuple[str, ...]:
    return ("scipy", *(("einops",) if plan.network == "swinunetr" else ()))


def _version(package: str) -> str:
    """Without what names a build (``2.13.0+cpu``): the bundle runs with any."""
    for name in (package, *_PARTS.get(package, ())):
        try:
            return version(name).split("+")[0]
        except PackageNotFoundError:
            continue
    return "0.0.0"
