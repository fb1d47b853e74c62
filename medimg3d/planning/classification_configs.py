"""The configs of a classification bundle, written from a plan."""

from __future__ import annotations

from typing import Any

from medimg3d.planning.augmentation import classification_transforms
from medimg3d.planning.file_readers import volumes_below
from medimg3d.planning.networks import classifier_block
from medimg3d.planning.plan import Plan
from medimg3d.planning.preprocessing import preprocessing_block
from medimg3d.planning.template import fill, read_template

Config = dict[str, Any]


def classification_configs(plan: Plan) -> dict[str, Config]:
    """Every config by its file name without ``.json``."""
    axes = plan.facts.num_axes
    shared = {
        "num_folds": plan.num_folds,
        "fold_seed": plan.fold_seed,
        "class_names": list(plan.facts.classes),
        "num_classes": len(plan.facts.classes),
        "image_size": list(plan.topology.patch),
        "preprocessing": preprocessing_block(plan),
        "architecture": classifier_block(axes, width=plan.width, in_channels=len(plan.facts.channels)),
        "inferer": {"_target_": "SimpleInferer"},
    }
    train = shared | {
        "batch_size": plan.batch_size,
        "iterations_per_epoch": plan.iterations_per_epoch,
        "learning_rate": plan.learning_rate,
        "num_workers": plan.settings.num_workers,
        "val_interval": 1,
        "calibration": {},
        "train#trainer#max_epochs": plan.epochs,
        "train#optimizer#weight_decay": plan.weight_decay,
        "train#random_transforms#transforms": classification_transforms(plan),
    }
    template = read_template("classification", "train")
    inference = fill(read_template("classification", "inference"), shared)
    if not plan.is_picture:
        inference["datalist"] = volumes_below(plan.facts, deep=True)
    evaluate = fill(read_template("classification", "evaluate"), shared)
    evaluate["dataloader"]["batch_size"] = plan.batch_size
    return {
        "train": fill(template, train),
        "evaluate": evaluate,
        "inference": inference,
        "inference_fast": _inference_fast(plan),
        "train_fast": read_template("classification", "train_fast"),
        "multi_gpu_train": read_template("classification", "multi_gpu_train"),
        "multi_gpu_evaluate": read_template("classification", "multi_gpu_evaluate"),
    }


def _inference_fast(plan: Plan) -> Config:
    place = "preprocessing#transforms#0"
    load = (
        {f"{place}#_target_": "medimg3d.data.load_by_one_reader.LoadByOneReaderd"}
        if plan.is_picture
        else {f"{place}#reader": "medimg3d.data.fast_nifti_reader.FastNiftiReader"}
    )
    return {
        "images_per_batch": 8 if plan.is_picture else 4,
        **load,
        "inferer": {"_target_": "medimg3d.inference.autocast.AutocastInferer", "channels_last": True},
        "dataloader": {
            "_target_": "medimg3d.data.ahead_loader.AheadLoader",
            "dataset": "@dataset",
            "batch_size": "@images_per_batch",
        },
    }
