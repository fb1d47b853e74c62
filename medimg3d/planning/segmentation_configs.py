"""The configs of a segmentation bundle, written from a plan."""

from __future__ import annotations

from typing import Any

from medimg3d.planning.augmentation import segmentation_transforms
from medimg3d.planning.file_readers import volumes_below
from medimg3d.planning.finder_configs import (
    finder_plan,
    finder_preprocessing,
    finder_training,
    found_region,
    reference_region,
)
from medimg3d.planning.networks import network_block
from medimg3d.planning.plan import Plan
from medimg3d.planning.preprocessing import (
    compose,
    flat,
    label_on_axes,
    label_preprocessing_block,
    load_label,
    preprocessing_block,
)
from medimg3d.planning.template import fill, read_template

Config = dict[str, Any]

_IN_PLACE = "medimg3d.transforms.in_place_orientation.InPlaceOrientationd"


def segmentation_configs(plan: Plan) -> dict[str, Config]:
    """Every config by its file name without ``.json``."""
    shared = _shared(plan)
    return {
        "train": _train(plan, shared),
        "evaluate": _evaluate(plan, shared),
        "inference": _inference(plan, shared),
        "inference_fast": _inference_fast(plan),
        "train_fast": read_template("segmentation", "train_fast"),
        "multi_gpu_train": read_template("segmentation", "multi_gpu_train"),
        "multi_gpu_evaluate": read_template("segmentation", "multi_gpu_evaluate"),
        **({} if plan.finder is None else {"train_finder": _train_finder(plan)}),
    }


def _shared(plan: Plan) -> Config:
    return {
        "num_folds": plan.num_folds,
        "fold_seed": plan.fold_seed,
        "num_classes": len(plan.output_names),
        "window_size": list(plan.topology.patch),
        "window_overlap": plan.settings.window_overlap,
        "windows_per_batch": plan.windows_per_batch,
        "preprocessing": preprocessing_block(plan),
        "inferer": _inferer(plan),
        "network_def": network_block(
            plan.network,
            plan.topology,
            width=plan.width,
            in_channels=len(plan.facts.channels),
            deep_supervision=plan.settings.deep_supervision,
        ),
    }


def _train_finder(plan: Plan) -> Config:
    coarse = finder_plan(plan)
    config = _before(
        _train(coarse, _shared(coarse)), "preprocessing", {"finder_preprocessing": finder_preprocessing(plan)}
    )
    return finder_training(plan, config)


def _train(plan: Plan, shared: Config) -> Config:
    config = fill(
        read_template("segmentation", "train"),
        shared
        | {
            "patch_size": list(plan.topology.patch),
            "batch_size": plan.batch_size,
            "iterations_per_epoch": plan.iterations_per_epoch,
            "learning_rate": plan.learning_rate,
            "num_workers": plan.settings.num_workers,
            "val_interval": max(1, plan.epochs // 3),
            "label_preprocessing": label_preprocessing_block(plan),
            "train#trainer#max_epochs": plan.epochs,
            "train#optimizer#weight_decay": plan.weight_decay,
            "train#random_transforms#transforms": segmentation_transforms(plan),
            "train#head_loss": _head_loss(plan),
            "datalist": _datalist(plan, "'training'"),
            "validate#postprocessing": compose(_score_steps(plan)),
        },
    )
    if not plan.deep_supervision:
        train = config["train"]
        del train["deep_supervision_loss"]
        config["train"] = {
            ("loss" if key == "head_loss" else key): value for key, value in train.items() if key != "loss"
        }
    steps = config["train"]["deterministic_transforms"]["transforms"]
    if plan.scheme is not None and plan.scheme.ignore_label is not None:
        place = next(
            n
            for n, step in enumerate(steps)
            if isinstance(step, dict) and step["_target_"] == "FgBgToIndicesd"
        )
        steps[place] = {
            "_target_": "PACKAGE.ignored_voxels.LabelledIndicesd",
            "keys": "label",
            "ignore_label": plan.scheme.ignore_label,
        }
    if plan.slice_axis is not None:
        place = next(
            n for n, step in enumerate(steps) if isinstance(step, dict) and step["_target_"] == "SpatialPadd"
        )
        steps[place]["spatial_size"] = "@crop_size"
        config = _after(config, "patch_size", {"crop_size": list(plan.patch_size)})
    if plan.scheme is not None and plan.scheme.regions:
        config["validate"]["key_metric"]["val_mean_dice"]["include_background"] = True
    return config if plan.finder is None else _in_reference_region(plan, config)


def _in_reference_region(plan: Plan, config: Config) -> Config:
    """The label map is loaded first, since its region is what the image is cropped to."""
    config["train"]["deterministic_transforms"]["transforms"].insert(0, "@label_loading")
    loading = {"label_loading": compose(label_on_axes(plan))}
    return _before(config, "preprocessing", reference_region(plan) | loading)


def _in_found_region(plan: Plan, config: Config) -> Config:
    return config if plan.finder is None else _before(config, "preprocessing", found_region(plan))


def _before(config: Config, key: str, more: Config) -> Config:
    """The config with further entries in front of one of its keys."""
    changed: Config = {}
    for name, value in config.items():
        changed |= more if name == key else {}
        changed[name] = value
    return changed


def _after(config: Config, key: str, more: Config) -> Config:
    """The config with further entries behind one of its keys."""
    changed: Config = {}
    for name, value in config.items():
        changed[name] = value
        if name == key:
            changed |= more
    return changed


def _evaluate(plan: Plan, shared: Config) -> Config:
    on_own_grid = compose(["@preprocessing", *load_label(), *flat(plan, "label")])
    steps: list[Config] = [_invert(), *_score_steps(plan)]
    if _has_regions(plan):
        steps = [_sigmoid(), _invert(), *_score_steps(plan, threshold=0.5)]
    config = fill(
        read_template("segmentation", "evaluate"),
        shared
        | {
            "datalist": _datalist(plan, "'training'"),
            "transforms": on_own_grid,
            "postprocessing": compose(steps),
        },
    )
    if _has_regions(plan):
        for metrics in (config["key_metric"], config["additional_metrics"]):
            for metric in metrics.values():
                metric["include_background"] = True
    return _in_found_region(plan, config)


def _inference(plan: Plan, shared: Config) -> Config:
    steps: list[Config] = [_invert(), {"_target_": "AsDiscreted", "keys": "pred", "argmax": True}]
    if _has_regions(plan):
        steps = [_sigmoid(), _invert(), {"_target_": "PACKAGE.regions.RegionsToLabelsd", "keys": "pred"}]
    config = fill(
        read_template("segmentation", "inference"),
        shared | {"postprocessing": compose([*steps, _save(plan)])},
    )
    if plan.is_picture:
        endings = "'jpeg', 'jpg', 'png', 'bmp', 'tif', 'tiff', 'dcm'"
        config["datalist"] = (
            f"$sorted(p for e in ({endings}) for p in glob.glob(os.path.join(@dataset_dir, '*.' + e)))"
        )
    else:
        config["datalist"] = volumes_below(plan.facts, deep=False)
    if len(plan.facts.channels) > 1:
        config = _from_list(plan, config)
    return _in_found_region(plan, config)


def _from_list(plan: Plan, config: Config) -> Config:
    """Several channels cannot be found by their ending: the cases come from a datalist."""
    changed: Config = {}
    for key, value in config.items():
        if key == "dataset_dir":
            changed |= {
                "dataset_dir": "$os.path.join(@bundle_root, 'dataset')",
                "datalist_file": "$os.path.join(@dataset_dir, 'dataset.json')",
                "section": "test",
            }
        elif key == "datalist":
            changed["cases"] = _datalist(plan, "@section")
            changed["datalist"] = "$[case['image'] for case in @cases]"
        else:
            changed[key] = value
    return changed


def _datalist(plan: Plan, section: str) -> Any:
    listed = (
        f"$monai.data.load_decathlon_datalist(@datalist_file, data_list_key={section}, base_dir=@dataset_dir)"
    )
    if not plan.facts.named:
        return listed
    return {
        "_target_": "PACKAGE.channels.with_channel_list",
        "cases": listed,
        "names": [channel.name for channel in plan.facts.channels],
        "base_dir": "@dataset_dir",
    }


def _inferer(plan: Plan) -> Config:
    window: Config = {
        "_target_": "SlidingWindowInferer" if plan.slice_axis is None else "SliceInferer",
        "roi_size": "@window_size",
        "sw_batch_size": "@windows_per_batch",
        "overlap": "@window_overlap",
        "mode": "gaussian",
    }
    if plan.slice_axis is not None:
        window["spatial_dim"] = plan.slice_axis
    return {
        "_target_": "PACKAGE.mirroring.MirroringInferer",
        "inferer": window,
        "axes": [axis for axis in plan.mirror_axes if axis != plan.slice_axis],
        **({"softmax": False} if _has_regions(plan) else {}),
    }


def _inference_fast(plan: Plan) -> Config:
    overlay: Config = {}
    steps = preprocessing_block(plan)["transforms"]
    several = len(plan.facts.channels) > 1
    # what resamples makes float32 of stored integers
    resampled = any(step["_target_"].endswith(("Spacingd", "CommonFieldOfViewd")) for step in steps)
    for number, step in enumerate(steps):
        place = f"preprocessing#transforms#{number}"
        if step["_target_"] == "LoadImaged" and not several and not plan.is_picture:
            overlay[f"{place}#reader"] = "medimg3d.data.fast_nifti_reader.FastNiftiReader"
            overlay[f"{place}#dtype"] = None
            if resampled:
                overlay[f"{place}#keep_small_integers"] = True
        elif step["_target_"] == "Orientationd" and not several:
            overlay[f"{place}#_target_"] = _IN_PLACE
        elif step["_target_"] == "Spacingd":
            overlay[f"{place}#_target_"] = "medimg3d.transforms.separable_spacing.SeparableSpacingd"
    overlay["inferer"] = {
        "_target_": "medimg3d.inference.label_map_inferer.LabelMapInferer",
        "roi_size": "@window_size",
        "sw_batch_size": "@windows_per_batch",
        "overlap": "@window_overlap",
        "mode": "gaussian",
        "flips": [axis for axis in plan.mirror_axes if axis != plan.slice_axis],
        **({"slice_axis": plan.slice_axis} if plan.slice_axis is not None else {}),
        **({"thresholds": 0.5} if _has_regions(plan) else {"average_probabilities": True}),
    }
    overlay["postprocessing"] = compose([_save(plan)])
    return overlay


def _head_loss(plan: Plan) -> Config:
    scheme = plan.scheme
    if scheme is not None and (scheme.regions or scheme.ignore_label is not None):
        block: Config = {"_target_": "PACKAGE.scheme_loss.SchemeLoss"}
        if scheme.regions:
            block["regions"] = [list(values) for values in scheme.regions.values()]
        if scheme.ignore_label is not None:
            block["ignore_label"] = scheme.ignore_label
        if plan.settings.loss == "dice_focal":
            block["focal"] = True
        return block
    name = "DiceFocalLoss" if plan.settings.loss == "dice_focal" else "DiceCELoss"
    return {
        "_target_": name,
        "include_background": False,
        "to_onehot_y": True,
        "softmax": True,
        "batch": True,
    }


def _score_steps(plan: Plan, *, threshold: float = 0.0) -> list[Config]:
    """From the network's prediction and the label map to ones and zeros that Dice compares.

    Args:
        plan: The plan.
        threshold: Of regions; 0 for scores before the sigmoid.
    """
    scheme = plan.scheme
    masked: list[Config] = []
    if scheme is not None and scheme.ignore_label is not None:
        name = "PACKAGE.ignored_voxels.MaskIgnoredd"
        masked = [{"_target_": name, "keys": "pred", "ignore_label": scheme.ignore_label}]
    if scheme is not None and scheme.regions:
        regions = [list(values) for values in scheme.regions.values()]
        return [
            {"_target_": "AsDiscreted", "keys": "pred", "threshold": threshold},
            *masked,
            {"_target_": "PACKAGE.regions.LabelsToRegionsd", "keys": "label", "regions": regions},
        ]
    if masked:
        return [
            {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
            *masked,
            {"_target_": "AsDiscreted", "keys": ["pred", "label"], "to_onehot": "@num_classes"},
        ]
    return [
        {
            "_target_": "AsDiscreted",
            "keys": ["pred", "label"],
            "argmax": [True, False],
            "to_onehot": "@num_classes",
        }
    ]


def _has_regions(plan: Plan) -> bool:
    return plan.scheme is not None and bool(plan.scheme.regions)


def _sigmoid() -> Config:
    return {"_target_": "Activationsd", "keys": "pred", "sigmoid": True}


def _invert() -> Config:
    return {
        "_target_": "Invertd",
        "keys": "pred",
        "transform": "@preprocessing",
        "orig_keys": "image",
        "nearest_interp": False,
        "to_tensor": True,
    }


def _save(plan: Plan) -> Config:
    """Label maps beside each other; of several channels, named by folder and file of the first."""
    named = {"_target_": "PACKAGE.channels.folder_and_file", "_mode_": "callable"}
    names = {"output_name_formatter": named} if len(plan.facts.channels) > 1 else {}
    return {
        "_target_": "SaveImaged",
        "keys": "pred",
        "output_dir": "@output_dir",
        "output_postfix": "seg",
        "output_ext": ".png" if plan.is_picture else ".nii.gz",
        "output_dtype": "$'uint8'",
        "separate_folder": False,
        "resample": False,
        **names,
        "print_log": False,
    }
