"""The overlay inference_fast.json gives the label maps of the plain inference.json, by stock MONAI's own command."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import phantoms
import pytest
import SimpleITK
from stock_monai import run

from medimg3d.bundle.folder import BundleFolder
from medimg3d.bundle.inference import load_inference, read_facts
from medimg3d.errors import UsageError
from medimg3d.workflows.predict import predict

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
FAST = sorted(path.parents[1].name for path in BUNDLES.glob("*/configs/inference_fast.json"))
SEGMENTING = [name for name in FAST if not BundleFolder(BUNDLES / name).is_classifier]
GRIDS = {
    "plain": phantoms.affine((1.0, 1.0, 1.0), (-10, 5, 7)),
    "anisotropic": phantoms.affine((0.8, 1.1, 1.6), (3, -2, 9)),
    "flipped": phantoms.affine((1.0, 1.0, 1.25), (-10, 5, 7)) @ np.diag([-1.0, -1, 1, 1]),
    "oblique": phantoms.oblique_affine((0.9, 0.9, 1.2)),
}


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for number, (name, matrix) in enumerate(GRIDS.items()):
        image, _ = phantoms.two_part_phantom(number)
        phantoms.write_nifti(folder / f"{name}.nii.gz", image, matrix)
    return folder


@pytest.fixture(scope="module")
def few_slices(images, tmp_path_factory) -> Path:
    """The same, for the bundle that goes through each slice and enlarges it to 128 voxels before."""
    folder = tmp_path_factory.mktemp("few_slices")
    for path in images.iterdir():
        image = nibabel.load(path)
        nibabel.save(image.slicer[:, :, 6:16], folder / path.name)
    return folder


def fitting(name, images, few_slices) -> Path:
    return few_slices if name == "mri_heart_swinunetr" else images


def assert_same_but_for_ties(one, other):
    """The same labels, but where the two best classes differ by no more than float32 rounds: a voxel in 10,000."""
    labels, others = np.asarray(one.dataobj), np.asarray(other.dataobj)
    assert labels.max() > 0
    assert (labels != others).mean() < 1e-4


def test_every_bundle_has_the_overlay():
    """Those that classify are held against stock in ``test_fast_classification.py``."""
    found = [path.name for path in BUNDLES.iterdir() if (path / "configs" / "inference.json").is_file()]
    assert sorted(found) == FAST
    assert len(SEGMENTING) >= 1


@pytest.mark.parametrize("name", SEGMENTING)
def test_monais_own_command_gives_stocks_labels_with_the_overlay(name, images, few_slices, tmp_path):
    import sys

    images = fitting(name, images, few_slices)
    configs = BUNDLES / name / "configs"
    for kind, files in (
        ("stock", str(configs / "inference.json")),
        ("fast", f"['{configs / 'inference.json'}','{configs / 'inference_fast.json'}']"),
    ):
        options = ["--config_file", files, "--bundle_root", str(BUNDLES / name), "--dataset_dir", str(images)]
        command = [sys.executable, "-W", "ignore", "-m", "monai.bundle", "run", *options]
        run([*command, "--output_dir", str(tmp_path / kind)], cwd=tmp_path)
    for grid in GRIDS:
        stock, fast = (nibabel.load(tmp_path / kind / f"{grid}_seg.nii.gz") for kind in ("stock", "fast"))
        assert stock.get_data_dtype() == fast.get_data_dtype()
        assert_same_but_for_ties(stock, fast)
        np.testing.assert_allclose(stock.affine, fast.affine, atol=1e-6)


@pytest.mark.parametrize("name", SEGMENTING)
def test_predict_gives_the_same_fast_and_plain_on_the_images_own_grid(name, images, few_slices, tmp_path):
    images = fitting(name, images, few_slices)
    options = {"overlays": False, "reports": False}
    fast = predict(BUNDLES / name, [images], tmp_path / "fast", **options)
    plain = predict(BUNDLES / name, [images], tmp_path / "plain", fast=False, **options)
    settings = json.loads((tmp_path / "fast" / "run.json").read_text())["settings"]
    assert set(settings["configs_sha256"]) == {"inference", "inference_fast"}
    assert len(fast.cases) == len(GRIDS)
    for one, other in zip(fast.cases, plain.cases, strict=True):
        assert_same_but_for_ties(nibabel.load(one.label_map), nibabel.load(other.label_map))
        assert nibabel.load(one.label_map).header == nibabel.load(other.label_map).header
        read = [SimpleITK.ReadImage(str(path)) for path in (one.image, one.label_map)]
        for what in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
            np.testing.assert_allclose(*(getattr(image, what)() for image in read), atol=1e-3)


def test_another_backend_gives_the_same_labels(images, tmp_path, monkeypatch):
    monkeypatch.setenv("MEDIMG3D_CACHE", str(tmp_path / "cache"))
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    bundle = BUNDLES / "mri_hippocampus_unet"
    options = {"overlays": False, "reports": False}
    torch_run = predict(bundle, [images / "plain.nii.gz"], tmp_path / "torch", **options)
    onnx_run = predict(bundle, [images / "plain.nii.gz"], tmp_path / "onnx", backend="onnxruntime", **options)
    first, second = (np.asarray(nibabel.load(r.cases[0].label_map).dataobj) for r in (torch_run, onnx_run))
    assert (first != second).mean() < 1e-4  # float32 in another order: only ties may fall otherwise
    assert json.loads((tmp_path / "onnx" / "run.json").read_text())["settings"]["backend"] == "onnxruntime"


def test_a_backend_for_a_bundle_without_the_overlay_is_refused(images, tmp_path):
    with pytest.raises(
        UsageError, match=r"--backend onnxruntime needs a bundle with configs/inference_fast\.json"
    ):
        predict(
            BUNDLES / "mri_hippocampus_unet", [images], tmp_path / "out", fast=False, backend="onnxruntime"
        )  # fmt: skip


def test_preprocessing_that_cannot_be_undone_block_by_block_is_refused_in_one_line(images):
    folder = BundleFolder(BUNDLES / "mri_hippocampus_unet")
    model = load_inference(folder, read_facts(folder), fast=True)
    item = model.prepare(images / "plain.nii.gz")
    item["image"].applied_operations.append({"class": "Rotate", "extra_info": {}, "orig_size": (9, 9, 9)})
    with pytest.raises(Exception, match="holds Rotate, which cannot be undone block by block"):
        model.labels_of(item)
