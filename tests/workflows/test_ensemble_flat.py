"""Planned 2D networks from a study to an ensemble: of 2D images, and of volumes slice by slice."""

from __future__ import annotations

import csv
import json

import nibabel
import numpy as np
import phantoms
import pytest
from stock_monai import monai_bundle

from medimg3d.data.label_map import read_label_map
from medimg3d.workflows.cross_validate import cross_validate
from medimg3d.workflows.ensemble import ensemble
from medimg3d.workflows.plan import plan_bundle
from medimg3d.workflows.predict import predict

PLAIN = {"overlays": False, "reports": False, "device": "cpu"}
KINDS = {
    "2D images": {"width": 4},
    "volumes of one slice": {"width": 4},
    "SwinUNETR on thick slices": {"network": "swinunetr", "patch_size": [32, 32], "width": 12},
}
SLICE_WISE = {"SwinUNETR on thick slices"}


def write_study(folder, kind, num_cases=4):
    """The two-part phantom: one slice of it as a 2D image, of shape (I, J) or (I, J, 1), or six slices 8 mm apart."""
    part = {"2D images": np.s_[:, :, 12], "volumes of one slice": np.s_[:, :, 12:13]}.get(
        kind, np.s_[:, :, 8:20:2]
    )
    grid = phantoms.affine((1, 1, 8)) if kind in SLICE_WISE else phantoms.affine()
    training = []
    for n in range(num_cases):
        for what, array in zip(("images", "labels"), phantoms.two_part_phantom(n), strict=True):
            phantoms.write_nifti(folder / what / f"c{n}.nii.gz", array[part], grid)
        training.append({"image": f"images/c{n}.nii.gz", "label": f"labels/c{n}.nii.gz", "fold": n % 2})
    content = {"labels": {"0": "background", "1": "front", "2": "rear"}, "modality": {"0": "MRI"}}
    (folder / "dataset.json").write_text(json.dumps(content | {"training": training}))
    return folder / "dataset.json"


def voxels(path):
    return np.asanyarray(nibabel.load(path).dataobj)


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(KINDS))
def test_stock_monai_and_both_configurations_give_the_ensembles_labels(kind, tmp_path):
    study = write_study(tmp_path, kind)
    settings = {"trial": False, "num_folds": 2, **KINDS[kind]}
    planned = plan_bundle(study, tmp_path / "bundle", settings, workers=1, check=None)
    assert planned.plan.slice_axis == (2 if kind in SLICE_WISE else None)
    made = cross_validate(
        planned.bundle,
        out=tmp_path / "cv",
        folds=[0, 1],
        datalist=study,
        softmax=True,
        check=None,
        epochs=1,
        precision="float32",
        num_workers=0,
        overrides={"iterations_per_epoch": 1, "batch_size": 2},
        progress=False,
    )
    flat = kind not in SLICE_WISE
    volume = made.pooled["metrics"]["volume_difference_ml"]["front"]
    assert (volume["n"], volume["left_out"]) == ((0, {"2D image": 4}) if flat else (4, {}))
    out = ensemble([tmp_path / "cv"], tmp_path / "ensemble").bundle
    assert (out / "configs" / "inference_fast.json").is_file()
    folders = {"fast": {}, "plain": {"fast": False}, "unsure": {"uncertainty": True}}
    for name, options in folders.items():
        assert not predict(out, [tmp_path / "images"], tmp_path / name, **PLAIN, **options).rejected
    monai_bundle(
        "run",
        cwd=tmp_path,
        config_file=out / "configs" / "inference.json",
        bundle_root=out,
        dataset_dir=tmp_path / "images",
        output_dir=tmp_path / "stock",
    )
    for n in range(4):
        shape = voxels(tmp_path / "images" / f"c{n}.nii.gz").shape
        stock = voxels(tmp_path / "stock" / f"c{n}_seg.nii.gz").reshape(
            shape
        )  # MONAI writes 2D images as (I, J)
        for name in folders:
            np.testing.assert_array_equal(voxels(tmp_path / name / f"c{n}_seg.nii.gz"), stock)
    assert voxels(tmp_path / "unsure" / "uncertainty" / "c0_uncertainty.nii.gz").shape == shape
    apart = voxels(tmp_path / "unsure" / "uncertainty" / "c0_disagreement.nii.gz")
    assert apart.shape == shape
    assert 0 <= apart.min() < apart.max() <= 1
    with open(tmp_path / "unsure" / "uncertainty.csv", newline="") as handle:
        assert all(float(row["disagreement"]) > 0 for row in csv.DictReader(handle))


def write_flat_recipe(folder):
    """The untrained bundle of 2D images with the settings of a training."""
    phantoms.write_flat_bundle(folder)
    recipe = {"num_folds": 2, "fold_seed": 0, "train": {"trainer": {"max_epochs": 1}}}
    (folder / "configs" / "train.json").write_text(json.dumps(recipe))
    return folder


def test_images_of_one_plane_with_three_axes_are_2d_images_too(tmp_path, monkeypatch):
    import torch
    from tiny_networks import tiny_unet

    from medimg3d.workflows import cross_validate as module

    def train_nothing(bundle, *, out, fold, **_):
        from types import SimpleNamespace

        write_flat_recipe(out)
        torch.save(tiny_unet(2, seed=fold).state_dict(), out / "models" / "model.pt")
        (out / "docs").mkdir()
        (out / "docs" / "README.md").write_text("trained")
        return SimpleNamespace(start=[])

    monkeypatch.setattr(module, "train", train_nothing)
    training = []
    for n in range(4):
        for what, array in zip(("images", "labels"), phantoms.two_part_phantom(n), strict=True):
            phantoms.write_nifti(tmp_path / what / f"c{n}.nii.gz", array[:, :, 12:13])
        training.append({"image": f"images/c{n}.nii.gz", "label": f"labels/c{n}.nii.gz", "fold": n % 2})
    labels = {"0": "background", "1": "grey", "2": "white"}
    (tmp_path / "list.json").write_text(json.dumps({"labels": labels, "training": training}))
    cross_validate(
        write_flat_recipe(tmp_path / "bundle"),
        out=tmp_path / "cv",
        folds=[0, 1],
        datalist=tmp_path / "list.json",
        softmax=True,
    )
    out = ensemble([tmp_path / "cv"], tmp_path / "ensemble").bundle
    result = predict(out, [tmp_path / "images"], tmp_path / "out", uncertainty=True, **PLAIN)
    assert not result.rejected
    assert voxels(result.cases[0].label_map).shape == (30, 42, 1)
    assert read_label_map(result.cases[0].label_map).labels.shape == (30, 42)
