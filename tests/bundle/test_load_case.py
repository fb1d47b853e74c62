"""A case is loaded once, checked, and its original image is gone when it is preprocessed."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from types import SimpleNamespace

import nibabel
import numpy as np
import phantoms
import pytest
import SimpleITK
import torch
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    LoadImaged,
    Orientationd,
    ScaleIntensityRanged,
    Spacingd,
)

from medimg3d.bundle.load_case import fast_reader, load_case
from medimg3d.bundle.loading_need import LoadingNeed
from medimg3d.data import fast_nifti
from medimg3d.data.volume_file import read_volume_grid
from medimg3d.errors import DataError
from medimg3d.transforms.in_place_orientation import InPlaceOrientationd
from medimg3d.transforms.separable_spacing import SeparableSpacingd

FAST = {
    "reader": "medimg3d.data.fast_nifti_reader.FastNiftiReader",
    "dtype": None,
    "keep_small_integers": True,
}
FLIPPED = phantoms.affine((0.8, 0.9, 1.2), (4, 5, 6)) @ np.diag([-1.0, -1, 1, 1])
GRIDS = {"flipped": FLIPPED, "oblique": phantoms.oblique_affine((0.8, 0.9, 1.2))}


def steps(*, fast: bool, keep: list | None = None) -> Compose:
    load = LoadImaged("image", **(FAST if fast else {}))
    turn = (InPlaceOrientationd if fast else Orientationd)("image", axcodes="RAS", labels=None)
    space = (SeparableSpacingd if fast else Spacingd)("image", pixdim=1.5)
    scale = ScaleIntensityRanged("image", a_min=-200, a_max=300, b_min=0, b_max=1, clip=True)
    return Compose([load, EnsureChannelFirstd("image"), *(keep or []), turn, space, scale])


def model(preprocessing, channels: int = 1, axes: int = 3):
    """What load_case needs of a bundle."""
    return SimpleNamespace(
        preprocessing=preprocessing,
        facts=SimpleNamespace(num_channels=channels),
        image_axes=axes,
        prepare=lambda path: preprocessing({"image": str(path)}),
    )


def image(folder: Path, kind, matrix, shape=(20, 22, 18)) -> Path:
    values = np.random.default_rng(0).integers(0, 200, shape).astype(kind)
    return phantoms.write_nifti(folder / "a.nii.gz", values, matrix)


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.float32])
@pytest.mark.parametrize("grid", GRIDS)
def test_the_preprocessed_image_is_that_of_stock(tmp_path, kind, grid):
    path = image(tmp_path, kind, GRIDS[grid])
    volume, item = load_case(model(steps(fast=True)), path)
    expected = steps(fast=False)({"image": str(path)})["image"]
    np.testing.assert_allclose(item["image"].numpy(), expected.numpy(), atol=1e-6)
    assert torch.equal(item["image"].affine, expected.affine)
    assert volume.array.shape == (20, 22, 18)
    np.testing.assert_allclose(volume.affine, GRIDS[grid], atol=1e-5)


def test_a_file_with_scaled_voxels_gives_stocks_values(tmp_path):
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.int16)
    values = np.random.default_rng(0).normal(50, 90, (20, 22, 18))
    nibabel.save(nibabel.Nifti1Image(values, FLIPPED, header), tmp_path / "a.nii.gz")
    _, item = load_case(model(steps(fast=True)), tmp_path / "a.nii.gz")
    expected = steps(fast=False)({"image": str(tmp_path / "a.nii.gz")})["image"]
    np.testing.assert_allclose(item["image"].numpy(), expected.numpy(), atol=1e-6)


def test_the_file_is_read_once(tmp_path, monkeypatch):
    path = image(tmp_path, np.int16, FLIPPED)
    calls = []
    read = fast_nifti._read_into
    monkeypatch.setattr(fast_nifti, "_read_into", lambda *given: (calls.append(1), read(*given)))
    load_case(model(steps(fast=True)), path)
    assert len(calls) == 1


def test_the_original_is_gone_before_intensities_are_worked_out(tmp_path):
    path = image(tmp_path, np.int16, FLIPPED)
    seen: list[weakref.ref] = []
    alive: list[bool] = []

    def see(data):
        seen.append(weakref.ref(data["image"]))
        return data

    def look(data):
        gc.collect()
        alive.append(seen[0]() is not None)
        return data

    pipeline = steps(fast=True, keep=[see])
    pipeline.transforms = (*pipeline.transforms[:-1], look, pipeline.transforms[-1])
    volume, _ = load_case(model(pipeline), path)
    assert alive == [False]
    assert volume.array.strides == (0, 0, 0)  # one zero for all


@pytest.mark.parametrize("ending", [".mha", ".nrrd"])
def test_another_format_is_loaded_through_nifti(tmp_path, ending):
    path = image(tmp_path, np.int16, FLIPPED)
    other = tmp_path / f"b{ending}"
    SimpleITK.WriteImage(SimpleITK.ReadImage(str(path)), str(other))
    _, expected = load_case(model(steps(fast=True)), path)
    volume, item = load_case(model(steps(fast=True)), other)
    np.testing.assert_allclose(item["image"].numpy(), expected["image"].numpy(), atol=1e-5)
    assert volume.array.strides == (0, 0, 0)


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((5, 5, 5), np.int16), "same value in every voxel"),
        (
            np.where(np.arange(125).reshape(5, 5, 5) < 2, np.inf, 1.0).astype(np.float32),
            "2 voxels that are NaN",
        ),
        (np.arange(25.0).reshape(5, 5).astype(np.float32), "2D image"),
        (np.full((5, 5, 5), 1j, np.complex64), "complex"),
        (np.zeros((5, 5, 5), [("R", "u1"), ("G", "u1"), ("B", "u1")]), "colour"),
    ],
)
def test_what_no_model_can_be_asked_about_is_refused_however_it_is_read(tmp_path, array, reason, fast):
    path = phantoms.write_nifti(tmp_path / "a.nii.gz", array)
    with pytest.raises(DataError, match=reason):
        load_case(model(steps(fast=fast)), path)


def test_a_truncated_file_is_refused_and_no_other_reader_tried(tmp_path):
    path = image(tmp_path, np.int16, FLIPPED)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(DataError, match="is truncated"):
        load_case(model(steps(fast=True)), path)


def test_a_preprocessing_with_monais_reader_has_no_fast_one():
    assert fast_reader(steps(fast=False)) is None
    assert fast_reader(lambda data: data) is None
    assert fast_reader(steps(fast=True)).keep_small_integers


@pytest.mark.parametrize("grid", GRIDS)
def test_the_shape_of_the_preprocessed_image_is_known_beforehand(tmp_path, grid):
    path = image(tmp_path, np.int16, GRIDS[grid], (31, 22, 47))
    one = model(steps(fast=True))
    need = LoadingNeed.of(one, read_volume_grid(path))
    assert need.is_exact
    assert need.image_shape == tuple(load_case(one, path)[1]["image"].shape)


def test_whole_numbers_need_half_of_what_float32_needs(tmp_path):
    """2 bytes a voxel against 4, beside the slabs that are read and 9 x 9 x 9 voxels of 8 mm (centres 0 to 63 mm)."""
    shape = (64, 64, 64)
    needs = {}
    for kind in (np.int16, np.float32):
        volume = read_volume_grid(image(tmp_path, kind, np.eye(4), shape))
        coarse = Compose([*steps(fast=True).transforms[:3], SeparableSpacingd("image", pixdim=8.0)])
        slabs = 32 * 64 * 64 * np.dtype(kind).itemsize + 16 * 2**20
        needs[kind] = LoadingNeed.of(model(coarse), volume).peak - slabs - 9**3 * 4
    assert needs == {np.int16: 64**3 * 2, np.float32: 64**3 * 4}


def test_a_shape_that_depends_on_the_content_is_told_as_such(tmp_path):
    from monai.transforms import CropForegroundd

    path = image(tmp_path, np.int16, FLIPPED)
    crop = CropForegroundd("image", source_key="image")
    need = LoadingNeed.of(model(steps(fast=True, keep=[crop])), read_volume_grid(path))
    assert not need.is_exact
