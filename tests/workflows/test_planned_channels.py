"""Planned bundles of several channels: a file a channel, or one 4D file a case; what cannot be stacked is refused."""

import json

import nibabel
import numpy as np
import phantoms
import pytest
import torch

from medimg3d.bundle.code_path import bundle_code
from medimg3d.bundle.folder import BundleFolder
from medimg3d.bundle.inference import channel_names
from medimg3d.bundle.parser import parse_config
from medimg3d.workflows.data_check import DataCheck, RefusedDataError, check_list
from medimg3d.workflows.plan import plan_bundle
from medimg3d.workflows.predict import predict

PLAIN = {"overlays": False, "reports": False}
SMALL = {"trial": False, "width": 4, "batch_size": 2, "iterations_per_epoch": 1}


def write_study(folder):
    """Two named channels, labels 1 and 2, and regions that overlap."""
    root = phantoms.write_decathlon(folder, num_cases=5)
    content = json.loads((root / "dataset.json").read_text())
    for number, case in enumerate(content["training"]):
        image, label = phantoms.two_part_phantom(number)
        paths = {"ct": f"c{number}/ct.nii.gz", "mr": f"c{number}/mr.nii.gz"}
        phantoms.write_nifti(root / paths["ct"], image)
        phantoms.write_nifti(root / paths["mr"], image + 50 * label)
        case.pop("image")
        case |= {"id": f"c{number}", "images": paths}
    regions = {"whole": [1, 2], "rear": [2]}
    content |= {"modality": {"0": "MRI"}, "regions": regions, "test": content["training"][:1]}
    (root / "dataset.json").write_text(json.dumps(content))
    return root / "dataset.json"


def write_untrained_weights(bundle):
    torch.manual_seed(0)
    folder = BundleFolder(bundle)
    with bundle_code(folder.root):
        network = parse_config(folder, ["inference"]).get_parsed_content("network_def")
    (bundle / "models").mkdir(exist_ok=True)
    torch.save({"model": network.state_dict()}, bundle / "models" / "model.pt")


@pytest.mark.slow
def test_fast_plain_and_bounded_prediction_of_a_file_a_channel_agree(tmp_path):
    datalist = write_study(tmp_path / "study")
    bundle = plan_bundle(
        datalist, tmp_path / "two", {"trial": False, "width": 4}, workers=1, check=None
    ).bundle
    assert channel_names(BundleFolder(bundle)) == ("ct", "mr")
    write_untrained_weights(bundle)
    ways = {
        "fast": {},
        "plain": {"fast": False},
        "masks": {"region_masks": True},
        "bounded": {"memory_gb": 8},
    }
    maps = {}
    for way, options in ways.items():
        result = predict(bundle, [datalist], tmp_path / way, **PLAIN, **options)
        assert not result.rejected
        maps[way] = np.asanyarray(nibabel.load(tmp_path / way / "c0_seg.nii.gz").dataobj)
    for way in ways:
        assert np.mean(maps[way] != maps["plain"]) < 1e-3
    masks = [
        np.asanyarray(nibabel.load(tmp_path / "masks" / "regions" / name / "c0_seg.nii.gz").dataobj)
        for name in ("1_whole", "2_rear")
    ]
    np.testing.assert_array_equal(np.where(masks[1], 2, masks[0]), maps["masks"])
    in_folders = predict(bundle, [tmp_path / "study" / "c0"], tmp_path / "folder", **PLAIN)
    assert [case.case for case in in_folders.cases] == ["c0"]


def write_4d_study(folder):
    """Two channels along the fourth axis of each file, as in the Decathlon's prostate set; the second is inverted."""
    root = phantoms.write_decathlon(folder, num_cases=5)
    content = json.loads((root / "dataset.json").read_text())
    for number, case in enumerate(content["training"]):
        image, _ = phantoms.two_part_phantom(number)
        phantoms.write_nifti(root / case["image"], np.stack([image, 400 - image], axis=-1))
    (root / "dataset.json").write_text(json.dumps(content | {"modality": {"0": "T2", "1": "ADC"}}))
    return root / "dataset.json"


def write_study_without_test(folder, alter=None):
    """As :func:`write_study`, whose test case is a training case too; ``alter`` changes the training list."""
    datalist = write_study(folder)
    content = json.loads(datalist.read_text()) | {"test": []}
    if alter is not None:
        alter(content["training"])
    datalist.write_text(json.dumps(content))
    return datalist


def test_a_plan_of_4d_files_takes_every_channel_and_the_check_before_training_accepts_them(tmp_path):
    datalist = write_4d_study(tmp_path / "study")
    folder = BundleFolder(plan_bundle(datalist, tmp_path / "four", SMALL, workers=1).bundle)
    assert channel_names(folder) == ("T2", "ADC")
    assert json.loads(folder.config("train").read_text())["network_def"]["in_channels"] == 2
    assert check_list(datalist, tmp_path / "check", bundle=folder).report.rejected == {}


def test_the_planned_preprocessing_loads_a_4d_file_channel_first_in_the_order_of_the_file(tmp_path):
    datalist = write_4d_study(tmp_path / "study")
    folder = BundleFolder(plan_bundle(datalist, tmp_path / "four", SMALL, workers=1).bundle)
    with bundle_code(folder.root):
        preprocessing = parse_config(folder, ["inference"]).get_parsed_content("preprocessing")
        path = tmp_path / "study" / "imagesTr" / "phantom_000.nii.gz"
        image = preprocessing({"image": str(path)})["image"].numpy()
    stored = np.asanyarray(nibabel.load(path).dataobj)
    assert image.shape == (2, 30, 42, 28)
    for number in range(2):
        assert np.corrcoef(image[number].ravel(), stored[..., number].ravel())[0, 1] > 0.9


@pytest.mark.slow
def test_medimg3d_trains_a_plan_of_4d_files_and_predicts_them(tmp_path):
    from medimg3d.workflows.train import train

    datalist = write_4d_study(tmp_path / "study")
    bundle = plan_bundle(datalist, tmp_path / "four", SMALL, workers=1).bundle
    options = {"epochs": 1, "precision": "float32", "num_workers": 0, "progress": False}
    trained = train(bundle, out=tmp_path / "trained", dataset_dir=tmp_path / "study", **options).bundle
    result = predict(trained, [datalist], tmp_path / "predicted", **PLAIN)
    assert not result.rejected
    assert len(result.cases) == 5


def test_a_named_channel_that_a_case_lacks_refuses_the_plan_by_file(tmp_path):
    datalist = write_study_without_test(tmp_path / "study", lambda training: training[3]["images"].pop("mr"))
    found = r"1 of 5 training cases cannot be used. c3/ct.nii.gz: the case has no image mr; expected each of ct, mr"
    with pytest.raises(RefusedDataError, match=found):
        plan_bundle(datalist, tmp_path / "two", SMALL, workers=1)
    checked = plan_bundle(datalist, tmp_path / "four", SMALL, workers=1, check=DataCheck(drop_rejected=True))
    assert (checked.plan.facts.num_cases, list(checked.rejected)) == (4, ["c3"])


def test_a_named_channel_on_a_shifted_grid_refuses_the_plan_by_file(tmp_path):
    datalist = write_study_without_test(tmp_path / "study")
    image, _ = phantoms.two_part_phantom(2)
    phantoms.write_nifti(tmp_path / "study" / "c2" / "mr.nii.gz", image, phantoms.affine(origin_mm=(0, 3, 0)))
    with pytest.raises(RefusedDataError, match=r"c2/mr.nii.gz: image ct and image mr lie up to 3 mm apart"):
        plan_bundle(datalist, tmp_path / "two", SMALL, workers=1)
