"""The presets in configs/ are read by MONAI and do what their comments say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from phantoms import affine, write_nifti
from PIL import Image

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


def _preprocess(preset: str, image: Path):
    parser = ConfigParser()
    parser.read_config(str(CONFIGS / preset))
    return parser.get_parsed_content("preprocessing")({"image": str(image)})["image"]


@pytest.mark.parametrize(
    "preset",
    sorted(
        path.name for path in CONFIGS.glob("*.yaml") if path.name not in ("plan.yaml", "experiments.yaml")
    ),
)
def test_each_preset_holds_a_preprocessing_of_monai(preset):
    parser = ConfigParser()
    parser.read_config(str(CONFIGS / preset))
    assert parser["preprocessing"]["transforms"][0]["_target_"] == "LoadImaged"
    assert callable(parser.get_parsed_content("preprocessing"))


def test_mri_of_2_mm_becomes_1_mm_with_mean_0_and_deviation_1(tmp_path):
    voxels = np.random.default_rng(0).normal(500, 100, (10, 12, 8)).astype(np.float32)
    image = _preprocess("mri.yaml", write_nifti(tmp_path / "t1.nii.gz", voxels, affine((2.0, 2.0, 2.0))))
    assert image.dtype == torch.float32
    assert image.shape == (1, 19, 23, 15)  # from the first voxel's centre to the last one's: 2 * (n - 1) + 1
    assert image.pixdim.tolist() == pytest.approx([1.0, 1.0, 1.0])
    assert float(image.mean()) == pytest.approx(0, abs=1e-4)
    assert float(image.std()) == pytest.approx(1, abs=1e-3)


def test_mri_stored_left_to_right_is_turned(tmp_path):
    voxels = np.zeros((6, 6, 6), np.float32)
    voxels[0] = 100
    left_first = _preprocess(
        "mri.yaml", write_nifti(tmp_path / "lps.nii.gz", voxels, affine((-1.0, 1.0, 1.0)))
    )
    assert (left_first[0, -1] > left_first[0, 0]).all()


def test_ct_window_maps_minus_160_hu_to_0_and_240_hu_to_1(tmp_path):
    voxels = np.full((4, 4, 4), 40.0, np.float32)
    voxels[0], voxels[3] = -1000.0, 3000.0
    image = _preprocess("ct.yaml", write_nifti(tmp_path / "ct.nii.gz", voxels, affine((1.5, 1.5, 1.5))))
    assert image.shape == (1, 4, 4, 4)
    assert float(image[0, 0].max()) == 0.0
    assert image[0, 1:3].numpy() == pytest.approx(0.5)
    assert float(image[0, 3].min()) == 1.0


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_film_keeps_its_proportions_whether_stored_grey_or_rgb(mode, tmp_path):
    pixels = np.full((50, 100), 200, np.uint8)  # 50 high, 100 wide
    pixels[:25] = 20
    path = tmp_path / "film.png"
    Image.fromarray(pixels).convert(mode).save(path)
    image = _preprocess("xray.yaml", path)
    assert image.shape == (1, 224, 224)
    assert float(image.min()) == 0.0
    assert float(image.max()) == 1.0
    bright = image[0].numpy() > 0.9
    # The bright lower half of a film of 224 x 112 lies in rows 112 to 168 of the padded square.
    assert abs(int(bright.sum()) - 224 * 56) < 0.05 * 224 * 56


def test_film_of_16_bits_is_not_clipped_to_8(tmp_path):
    pixels = np.repeat(np.linspace(0, 40000, 64).astype(np.uint16)[None], 64, axis=0)
    Image.fromarray(pixels).save(tmp_path / "film.png")
    image = _preprocess("xray.yaml", tmp_path / "film.png")
    assert float(image.median()) == pytest.approx(0.5, abs=0.02)
