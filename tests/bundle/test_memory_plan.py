"""A cap on memory is held by the whole process, changes no label, and what does not fit is refused beforehand."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import phantoms
import pytest
import torch

from medimg3d.errors import UsageError
from medimg3d.workflows.predict import predict

HIPPOCAMPUS = Path(__file__).resolve().parents[2] / "bundles" / "mri_hippocampus_unet"
CLASSES = 250

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="memory is planned on Linux only"
)


@pytest.fixture(scope="module")
def many_classes(tmp_path_factory) -> Path:
    """A bundle of 250 classes whose network is one small convolution, with the overlay of the hippocampus bundle."""
    bundle = tmp_path_factory.mktemp("bundles") / "many_classes"
    shutil.copytree(HIPPOCAMPUS, bundle, ignore=shutil.ignore_patterns("__pycache__", "docs", "models"))
    network = {
        "_target_": "Convolution", "spatial_dims": 3, "in_channels": 1, "out_channels": CLASSES, "conv_only": True,
        "bias": True,
    }  # fmt: skip
    for name in ("inference", "inference_fast"):
        path = bundle / "configs" / f"{name}.json"
        content = json.loads(path.read_text())
        if name == "inference":
            content |= {"network_def": network, "num_classes": CLASSES}
            content |= {"window_size": [32, 32, 32], "windows_per_batch": 2, "window_overlap": 0.1}
        else:
            content["inferer"] = {k: v for k, v in content["inferer"].items() if k != "flips"}
        path.write_text(json.dumps(content))
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    outputs = metadata["network_data_format"]["outputs"]["pred"]
    outputs |= {"num_channels": CLASSES, "channel_def": {str(n): f"part {n}" for n in range(CLASSES)}}
    (bundle / "configs" / "metadata.json").write_text(json.dumps(metadata))
    from monai.networks.blocks import Convolution

    torch.manual_seed(0)
    (bundle / "models").mkdir()
    convolution = Convolution(3, 1, CLASSES, conv_only=True, bias=True)
    torch.save(convolution.state_dict(), bundle / "models" / "model.pt")
    return bundle


@pytest.fixture(scope="module")
def image(tmp_path_factory) -> Path:
    voxels = np.random.default_rng(0).normal(size=(112, 104, 96)).astype(np.float32)
    return phantoms.write_nifti(tmp_path_factory.mktemp("images") / "volume.nii.gz", voxels)


RUN = """
import json, sys
from pathlib import Path
from medimg3d.workflows.predict import predict
bundle, image, out, cap = sys.argv[1:]
options = {} if cap == "none" else {"memory_gb": float(cap)}
result = predict(Path(bundle), [Path(image)], Path(out), overlays=False, reports=False, **options)
peak = max(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith("VmHWM")) * 1024 / 1e9
print(json.dumps({"peak_gb": peak, "rejected": list(result.rejected.values())}))
"""


def predicted(bundle: Path, image: Path, out: Path, cap: str) -> dict:
    """In a process of its own, whose memory is its own."""
    command = [sys.executable, "-W", "ignore", "-c", RUN, str(bundle), str(image), str(out), cap]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_the_process_stays_within_the_cap_and_the_labels_are_the_same(many_classes, image, tmp_path):
    free = predicted(many_classes, image, tmp_path / "free", "none")
    cap = round(free["peak_gb"] - 0.2, 2)
    capped = predicted(many_classes, image, tmp_path / "capped", str(cap))
    assert capped["rejected"] == []
    assert capped["peak_gb"] <= cap
    assert (tmp_path / "free" / "volume_seg.nii.gz").read_bytes() == (
        tmp_path / "capped" / "volume_seg.nii.gz"
    ).read_bytes()


def test_what_fits_in_no_way_is_refused_with_the_least_that_would_do(many_classes, image, tmp_path):
    refused = predicted(many_classes, image, tmp_path / "out", "0.2")
    (reason,) = refused["rejected"]
    assert "are allowed: allow more" in reason
    assert "needs" in reason


def test_a_cap_needs_the_fast_overlay(many_classes, image, tmp_path):
    with pytest.raises(UsageError, match=r"--memory-gb needs a bundle with configs/inference_fast\.json"):
        predict(many_classes, [image], tmp_path / "out", fast=False, memory_gb=2.0)


def test_what_does_not_fit_is_refused_before_it_is_read(many_classes, image, tmp_path, monkeypatch):
    def never(*_, **__):
        raise AssertionError("read")

    monkeypatch.setattr("medimg3d.workflows.predict.load_case", never)
    result = predict(many_classes, [image], tmp_path / "out", overlays=False, reports=False, memory_gb=0.2)
    (reason,) = result.rejected.values()
    least = float(reason.split("needs at least ")[1].split(" GB")[0])
    assert least > 0.2
    assert "of 112 x 104 x 96 voxels needs at least" in reason


@pytest.mark.slow
def test_the_least_that_is_named_does(many_classes, image, tmp_path):
    (reason,) = predicted(many_classes, image, tmp_path / "no", "0.2")["rejected"]
    least = float(reason.split("needs at least ")[1].split(" GB")[0])
    done = predicted(many_classes, image, tmp_path / "yes", str(round(least + 0.02, 2)))
    assert done["rejected"] == []
    assert done["peak_gb"] <= least + 0.02
