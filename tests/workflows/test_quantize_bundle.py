import json
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import phantoms
import pytest
import torch
from tiny_networks import needs_installed

from medimg3d.bundle.folder import BundleFolder
from medimg3d.bundle.inference import load_inference, read_facts
from medimg3d.data.content_hash import content_sha256
from medimg3d.errors import DataError, UsageError
from medimg3d.inference.backends import quantize
from medimg3d.inference.backends.quantized import Verdict
from medimg3d.workflows.predict import predict
from medimg3d.workflows.quantize_bundle import LabelledCases, WindowSample, quantize_bundle

HIPPOCAMPUS = Path(__file__).resolve().parents[2] / "bundles" / "mri_hippocampus_unet"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """1 above 50, 2 above 150; the windows are 8 x 8 x 8."""
    folder = phantoms.write_threshold_bundle(tmp_path_factory.mktemp("bundles") / "thresholds")
    inferer = {"_target_": "medimg3d.inference.label_map_inferer.LabelMapInferer", "roi_size": [8, 8, 8]}
    overlay = {"inferer": inferer, "postprocessing": {"_target_": "Compose", "transforms": []}}
    (folder / "configs" / "inference_fast.json").write_text(json.dumps(overlay))
    return folder


@pytest.fixture(scope="module")
def datalist(tmp_path_factory):
    """Four cases of two boxes, each with its own noise, too small to cross a threshold."""
    folder = tmp_path_factory.mktemp("data")
    truth = (phantoms.two_boxes() > 50).astype(np.uint8) + (phantoms.two_boxes() > 150)
    cases = []
    for number in range(4):
        noise = np.random.default_rng(number).uniform(0, 1, truth.shape).astype(np.float32)
        phantoms.write_nifti(folder / f"image_{number}.nii.gz", phantoms.two_boxes() + noise)
        phantoms.write_nifti(folder / f"label_{number}.nii.gz", truth)
        cases.append({"image": f"image_{number}.nii.gz", "label": f"label_{number}.nii.gz"})
    content = {"labels": {"0": "background", "1": "grey", "2": "white"}, "training": cases}
    (folder / "list.json").write_text(json.dumps(content))
    return folder / "list.json"


def trained_on(datalist, *numbers):
    return [
        {"image_sha256": content_sha256(datalist.parent / f"image_{number}.nii.gz")} for number in numbers
    ]


def loaded(bundle, training_cases, *, fast=True):
    folder = BundleFolder(bundle)
    return load_inference(
        folder, replace(read_facts(folder), training_cases=training_cases), device="cpu", fast=fast
    )


def test_cases_are_told_apart_by_the_record_of_the_weights(datalist):
    found = LabelledCases.of(datalist, trained_on(datalist, 0, 2))
    assert [case.name for case in found.trained] == ["image_0", "image_2"]
    assert [case.name for case in found.unseen] == ["image_1", "image_3"]
    assert found.scored_on().startswith("2 cases, sha256 ")


@pytest.mark.parametrize(("numbers", "lacking"), [((0, 1, 2, 3), "has not seen"), ((9,), "was trained on")])
def test_cases_of_one_kind_alone_are_refused(datalist, numbers, lacking):
    record = [{"image_sha256": "0" * 64}] if numbers == (9,) else trained_on(datalist, *numbers)
    with pytest.raises(UsageError, match=rf"list\.json has no labelled case that the bundle {lacking}"):
        LabelledCases.of(datalist, record)


def test_without_a_record_the_validation_list_is_scored(datalist, tmp_path):
    content = json.loads(datalist.read_text())
    for case in content["training"]:
        for key in ("image", "label"):
            case[key] = str(datalist.parent / case[key])
    content["validation"] = [content["training"].pop()]
    (tmp_path / "list.json").write_text(json.dumps(content))
    found = LabelledCases.of(tmp_path / "list.json", [])
    assert len(found.trained) == 3
    assert [case.name for case in found.unseen] == ["image_3"]


def test_every_window_is_as_likely_to_be_kept():
    counts = np.zeros(10)
    for seed in range(2000):
        sample = WindowSample(3, seed=seed, num_outputs=2)
        for first in (0, 4, 8):
            batch = torch.arange(first, min(first + 4, 10)).reshape(-1, 1, 1).float()
            assert sample(batch).shape == (len(batch), 2, 1)
        kept = [int(window) for window in sample.windows]
        assert len(set(kept)) == 3
        counts[kept] += 1
    # 600 of 2000 each; the standard deviation of a count is (2000 x 0.3 x 0.7) ** 0.5 = 20.5
    assert np.abs(counts - 600).max() < 4 * 20.5


def test_windows_of_seen_cases_are_given_and_unseen_cases_scored(bundle, datalist, monkeypatch):
    needs_installed("openvino")
    asked = {}

    def judged(network, calibration, score, **options):
        asked.update(options, windows=calibration, dice=score(network))
        verdict = Verdict(True, "", (1.0,), (1.0,), 0.0, 2, options["scored_on"], "0" * 64)
        return quantize.Quantized(None, verdict)

    monkeypatch.setattr(quantize, "quantize_if_good", judged)
    verdict = quantize_bundle(loaded(bundle, trained_on(datalist, 0, 2)), datalist)
    assert verdict.accepted
    np.testing.assert_array_equal(asked["dice"], np.ones((2, 2)))  # the thresholds find both boxes whole
    assert asked["window_shape"] == (8, 8, 8)
    assert (asked["in_channels"], asked["batch"]) == (1, 1)
    assert len(asked["windows"]) == 6
    assert all(window.shape == (1, 8, 8, 8) for window in asked["windows"])
    assert asked["scored_on"].startswith("2 cases, sha256 ")


def test_a_label_map_of_another_shape_names_the_case(bundle, datalist, tmp_path, monkeypatch):
    needs_installed("openvino")
    folder = tmp_path / "data"
    shutil.copytree(datalist.parent, folder)
    nibabel.save(nibabel.Nifti1Image(np.zeros((3, 4, 5), np.uint8), np.eye(4)), folder / "label_3.nii.gz")
    monkeypatch.setattr(quantize, "quantize_if_good", lambda network, windows, score, **_: score(network))
    with pytest.raises(DataError, match=r"image_3 cannot be used to quantize: ValueError"):
        quantize_bundle(loaded(bundle, trained_on(datalist, 0)), folder / "list.json")


def test_a_bundle_without_the_overlay_is_refused(bundle, datalist):
    with pytest.raises(UsageError, match=r"thresholds has no configs/inference_fast\.json"):
        quantize_bundle(loaded(bundle, [], fast=False), datalist)


def test_a_calibration_for_another_backend_is_refused(bundle, datalist, tmp_path):
    with pytest.raises(UsageError, match=r"--calibration is for --backend openvino-int8, not torch"):
        predict(bundle, [datalist.parent / "image_0.nii.gz"], tmp_path / "out", calibration=datalist)


@pytest.mark.slow
@pytest.mark.realdata
def test_the_shipped_bundle_in_8_bits_keeps_its_dice(data_root, tmp_path, monkeypatch):
    needs_installed("openvino", "nncf")
    monkeypatch.setenv("MEDIMG3D_CACHE", str(tmp_path / "cache"))
    source = data_root / "hippocampus"
    cases = json.loads((source / "dataset.json").read_text())["training"]
    record = {case["image_sha256"] for case in read_facts(BundleFolder(HIPPOCAMPUS)).training_cases}
    seen = [case for case in cases if content_sha256(source / case["image"]) in record][:4]
    unseen = [case for case in cases if content_sha256(source / case["image"]) not in record][:4]
    few = [{key: str(source / case[key]) for key in ("image", "label")} for case in (*seen, *unseen)]
    labels = {"0": "background", "1": "anterior", "2": "posterior"}
    (tmp_path / "few.json").write_text(json.dumps({"labels": labels, "training": few}))
    options = {"overlays": False, "reports": False, "backend": "openvino-int8"}
    image = [source / unseen[0]["image"]]
    first = predict(HIPPOCAMPUS, image, tmp_path / "first", calibration=tmp_path / "few.json", **options)
    second = predict(HIPPOCAMPUS, image, tmp_path / "second", **options)
    assert first.settings["backend"] == "openvino-int8"
    assert first.cases[0].label_map.read_bytes() == second.cases[0].label_map.read_bytes()
