"""Cross-validations without training: every fold is a bundle of thresholds."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import phantoms
import torch

from medimg3d.data.folds import case_name, select_fold
from medimg3d.workflows import cross_validate as module


def write_recipe(folder: Path) -> Path:
    """A bundle of thresholds with the settings of a training; nothing trains it."""
    phantoms.write_threshold_bundle(folder)
    recipe = {"num_folds": 2, "fold_seed": 0, "train": {"trainer": {"max_epochs": 1}}}
    (folder / "configs" / "train.json").write_text(json.dumps(recipe))
    return folder


def train_nothing(bundle, *, out, fold, datalist, **_):
    """Stands in for a training: the bundle's copy, its weights a little different in each fold."""
    write_recipe(out)
    state = torch.load(out / "models" / "model.pt", weights_only=True)
    state["bias"] = state["bias"] - torch.tensor([0.0, float(fold), 0.0])
    torch.save(state, out / "models" / "model.pt")
    content = json.loads(datalist.read_text())
    num_folds = content.get("split", {}).get("num_folds", 2)
    trained = select_fold(content["training"], fold=fold, part="training", num_folds=num_folds, seed=0)
    record = {
        "format": 1,
        "split_by": "case",
        "cases": [{"name": case_name(case), "image_sha256": f"as of fold {fold}"} for case in trained],
    }
    (out / "models" / "training_cases.json").write_text(json.dumps(record))
    (out / "docs").mkdir(exist_ok=True)
    (out / "docs" / "README.md").write_text("trained")
    return SimpleNamespace(start=[])


def cross_validated(folder: Path, datalist: Path, monkeypatch, *, folds=(0, 1), softmax=True) -> Path:
    """A finished cross-validation of thresholds."""
    with monkeypatch.context() as patch:
        patch.setattr(module, "train", train_nothing)
        bundle = write_recipe(folder.with_name(f"{folder.name}_recipe"))
        module.cross_validate(bundle, out=folder, folds=folds, datalist=datalist, softmax=softmax)
    return folder
