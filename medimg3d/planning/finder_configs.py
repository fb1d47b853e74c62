"""The configs of a region finder: its training, and its blocks in the configs of the network that it serves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from medimg3d.planning.label_scheme import LabelScheme
from medimg3d.planning.networks import learning_rate_of, network_block
from medimg3d.planning.plan import Plan
from medimg3d.planning.preprocessing import (
    compose,
    image_on_axes,
    intensity_blocks,
    label_on_axes,
    typed,
)

Config = dict[str, Any]

CLASSES = 2
"""Background and structures."""

_MODULE = "PACKAGE.found_region"


def finder_plan(plan: Plan) -> Plan:
    """The finder as a plan of its own: whole images in coarse voxels, structures against background."""
    finder, scheme = plan.finder, plan.scheme
    assert finder is not None
    assert scheme is not None
    return replace(
        plan,
        finder=None,
        settings=replace(plan.settings, deep_supervision=False, loss="dice_ce"),
        scheme=LabelScheme({0: "background", 1: "structures"}, ignore_label=scheme.ignore_label),
        slice_axis=None,
        network="dynunet",
        topology=finder.topology,
        width=finder.width,
        batch_size=finder.batch_size,
        iterations_per_epoch=finder.iterations_per_epoch,
        epochs=finder.epochs,
        learning_rate=learning_rate_of("dynunet"),
        weight_decay=0.01,
    )


def finder_network(plan: Plan) -> Config:
    """Its network, with the number of classes written out."""
    assert plan.finder is not None
    block = network_block(
        "dynunet",
        plan.finder.topology,
        width=plan.finder.width,
        in_channels=len(plan.facts.channels),
        deep_supervision=False,
    )
    return {**block, "out_channels": CLASSES}


def finder_inferer(plan: Plan) -> Config:
    """Its windows: one, where an image is not larger than the median."""
    assert plan.finder is not None
    return {
        "_target_": "SlidingWindowInferer",
        "roi_size": list(plan.finder.topology.patch),
        "sw_batch_size": 1,
        "overlap": 0.5,
        "mode": "gaussian",
    }


def finder_preprocessing(plan: Plan) -> Config:
    """From the loaded image in RAS order to what the finder sees."""
    return compose([_coarse(plan, "image"), *intensity_blocks(plan), typed("image", "float32")])


def found_region(plan: Plan) -> Config:
    """Blocks of ``evaluate.json`` and ``inference.json``: the region is what the finder finds."""
    assert plan.finder is not None
    return {
        "finder_checkpoint": "$os.path.join(@bundle_root, 'models', 'finder.pt')",
        "finder_preprocessing": finder_preprocessing(plan),
        "finder_inferer": finder_inferer(plan),
        "finder_network_def": finder_network(plan),
        "region": {
            "_target_": f"{_MODULE}.FoundRegion",
            "network": "@finder_network_def",
            "weights": "@finder_checkpoint",
            "preprocessing": "@finder_preprocessing",
            "inferer": "@finder_inferer",
            "margin_mm": list(plan.finder.margin_mm),
            "device": "@device",
        },
    }


def reference_region(plan: Plan) -> Config:
    """Block of ``train.json``: the region is that of the label map."""
    assert plan.finder is not None
    return {
        "region": {
            "_target_": f"{_MODULE}.ReferenceRegion",
            "voxel_mm": list(plan.finder.voxel_mm),
            "margin_mm": list(plan.finder.margin_mm),
            "jitter_mm": list(plan.finder.jitter_mm),
            **_ignored(plan),
        }
    }


def finder_training(plan: Plan, config: Config) -> Config:
    """``train_finder.json``, from the training config that :func:`finder_plan` gives.

    Args:
        plan: The plan that the finder belongs to.
        config: That config.
    """
    for key in ("num_classes", "window_overlap", "windows_per_batch"):
        del config[key]
    config["output_dir"] = "$os.path.join(@bundle_root, 'training_finder')"
    config["preprocessing"] = compose([*image_on_axes(plan), "@finder_preprocessing"])
    config["label_preprocessing"] = compose(
        [*label_on_axes(plan), _coarse(plan, "label"), typed("label", "uint8")]
    )
    config["inferer"] = finder_inferer(plan)
    config["network_def"] = finder_network(plan)
    saver = next(
        handler
        for handler in config["train"]["handlers"]
        if isinstance(handler, dict) and handler["_target_"] == "CheckpointSaver"
    )
    saver["final_filename"] = "finder.pt"
    return _with_classes(config)


def _with_classes(config: Config) -> Config:
    """``@num_classes`` as the number: the classes of the data, which may be renamed, are not the finder's."""

    def replaced(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: replaced(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [replaced(inner) for inner in value]
        return CLASSES if value == "@num_classes" else value

    filled: Config = replaced(config)
    return filled


def _coarse(plan: Plan, key: str) -> Config:
    assert plan.finder is not None
    of_labels = {"labels": True, **_ignored(plan)} if key == "label" else {}
    return {
        "_target_": f"{_MODULE}.Coarsend",
        "keys": key,
        "voxel_mm": list(plan.finder.voxel_mm),
        **of_labels,
    }


def _ignored(plan: Plan) -> Config:
    value = None if plan.scheme is None else plan.scheme.ignore_label
    return {} if value is None else {"ignore_label": value}
