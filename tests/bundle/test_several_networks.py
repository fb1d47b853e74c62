"""A bundle whose fast configuration averages several networks."""

from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest
import torch
from monai.inferers import SlidingWindowInferer
from phantoms import affine, two_part_phantom, write_flat_bundle, write_nifti
from tiny_networks import tiny_unet

from medimg3d.errors import UsageError
from medimg3d.workflows.predict import predict

PLAIN = {"overlays": False, "reports": False}
SEEDS = (0, 1, 2)


@pytest.fixture
def bundle(tmp_path):
    """The bundle of 2D images with the weights of seed 0, and those of seeds 1 and 2 beside them."""
    folder = write_flat_bundle(tmp_path / "flat")
    for seed in SEEDS[1:]:
        torch.save({"model": tiny_unet(2, seed=seed).state_dict()}, folder / "models" / f"fold{seed}.pt")
    path = folder / "configs" / "inference_fast.json"
    networks = {
        "network_mean": {
            "_target_": "medimg3d.inference.network_mean.NetworkMean",
            "network": "@network_def",
            "checkpoints": [f"$os.path.join(@bundle_root, 'models', 'fold{seed}.pt')" for seed in SEEDS[1:]],
        },
        "network": "$@network_mean.to(@device)",
    }
    path.write_text(json.dumps(json.loads(path.read_text()) | networks))
    return folder


@pytest.fixture
def image(tmp_path):
    return write_nifti(tmp_path / "in" / "a.nii.gz", two_part_phantom(0)[0][:, :, 10], affine())


def voxels(result) -> np.ndarray:
    return np.asanyarray(nibabel.load(result.cases[0].label_map).dataobj)


def expected(pixels: np.ndarray) -> np.ndarray:
    """Highest mean probability of the three networks, each stitched by MONAI."""
    batch = torch.from_numpy((pixels - pixels.mean()) / pixels.std())[None, None]
    inferer = SlidingWindowInferer((16, 16), overlap=0.5, mode="gaussian")
    with torch.no_grad():
        stitched = [inferer(batch, tiny_unet(2, seed=seed)).softmax(1) for seed in SEEDS]
    return torch.stack(stitched).mean(0)[0].argmax(0).numpy()


def test_the_label_map_is_that_of_the_mean_probabilities(bundle, image, tmp_path):
    mean = predict(bundle, [image], tmp_path / "mean", **PLAIN)
    np.testing.assert_array_equal(voxels(mean), expected(two_part_phantom(0)[0][:, :, 10]))
    alone = predict(bundle, [image], tmp_path / "alone", fast=False, **PLAIN)
    assert (voxels(mean) != voxels(alone)).any()


def test_a_backend_and_a_memory_cap_give_the_same(bundle, image, tmp_path):
    mean = voxels(predict(bundle, [image], tmp_path / "mean", **PLAIN))
    other = predict(bundle, [image], tmp_path / "other", backend="torch-channels-last", **PLAIN)
    capped = predict(bundle, [image], tmp_path / "capped", memory_gb=20, **PLAIN)
    np.testing.assert_array_equal(voxels(other), mean)
    np.testing.assert_array_equal(voxels(capped), mean)
    assert len(other.settings["further_weights_sha256"]) == 2


def test_a_run_is_not_resumed_with_other_weights_of_a_further_network(bundle, image, tmp_path):
    predict(bundle, [image], tmp_path / "out", **PLAIN)
    torch.save(tiny_unet(2, seed=9).state_dict(), bundle / "models" / "fold2.pt")
    with pytest.raises(UsageError, match="was begun with further_weights_sha256"):
        predict(bundle, [image], tmp_path / "out", resume=True, **PLAIN)
