"""A planned bundle of several channels and overlapping regions: ``medimg3d predict`` of a file a channel."""

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
from medimg3d.workflows.plan import plan_bundle
from medimg3d.workflows.predict import predict

PLAIN = {"overlays": False, "reports": False}


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
