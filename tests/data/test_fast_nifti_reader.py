"""LoadImage with the fast reader is held against LoadImage with MONAI's own."""

from __future__ import annotations

import nibabel
import numpy as np
import phantoms
import pytest
import torch
from monai.transforms import LoadImage, LoadImaged

from medimg3d.data.fast_nifti import read_nifti_grid
from medimg3d.data.fast_nifti_reader import FastNiftiReader

NAME = "medimg3d.data.fast_nifti_reader.FastNiftiReader"


def assert_same_image(fast, stock):
    assert fast.shape == stock.shape
    assert fast.dtype == stock.dtype
    assert torch.equal(fast.as_tensor(), stock.as_tensor())
    assert fast.is_contiguous()
    assert list(fast.meta) == list(stock.meta)
    for key, value in stock.meta.items():
        assert type(fast.meta[key]) is type(value), key
        np.testing.assert_array_equal(np.asarray(fast.meta[key]), np.asarray(value), err_msg=key)
        assert np.asarray(fast.meta[key]).dtype == np.asarray(value).dtype, key


def oblique(path, array, **header):
    image = nibabel.Nifti1Image(array, phantoms.oblique_affine((0.8, 0.9, 1.5)))
    for key, value in header.items():
        image.header[key] = value
    nibabel.save(image, path)
    return path


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(6, 7), (6, 7, 5), (6, 7, 5, 3), (6, 7, 1, 3)])
def test_image_and_every_meta_key_equal_those_of_nibabel_reader(tmp_path, shape, kind, ending):
    path = oblique(tmp_path / f"a{ending}", np.arange(np.prod(shape)).reshape(shape).astype(kind))
    assert_same_image(LoadImage(NAME)(path), LoadImage("NibabelReader")(path))


@pytest.mark.parametrize("endianness", ["<", ">"])
def test_scaled_voxels_of_either_byte_order_equal_those_of_nibabel_reader(tmp_path, endianness):
    header = nibabel.Nifti1Header(endianness=endianness)
    header.set_data_dtype(np.int16)
    values = np.linspace(-700.0, 1500.0, 6 * 7 * 5).reshape(6, 7, 5)  # nibabel chooses slope and intercept
    nibabel.save(nibabel.Nifti1Image(values, phantoms.oblique_affine(), header), tmp_path / "a.nii.gz")
    path = tmp_path / "a.nii.gz"
    assert_same_image(LoadImage(NAME)(path), LoadImage("NibabelReader")(path))


@pytest.mark.parametrize(
    "options",
    [
        {"as_closest_canonical": True},
        {"squeeze_non_spatial_dims": True},
        {"channel_dim": -1},
        {"channel_dim": "no_channel"},
    ],
)
def test_options_of_nibabel_reader_hold(tmp_path, options):
    array = np.arange(6 * 7 * 5, dtype=np.int16).reshape(6, 7, 5, 1)
    path = tmp_path / "a.nii.gz"
    nibabel.save(nibabel.Nifti1Image(array, phantoms.affine((1.0, -2.0, 3.0))), path)
    assert_same_image(LoadImage(NAME, **options)(path), LoadImage("NibabelReader", **options)(path))


def test_header_whose_voxel_sizes_contradict_its_sform_is_mended_as_monai_does(tmp_path):
    path = oblique(tmp_path / "a.nii.gz", np.ones((4, 5, 6), np.int16), qform_code=0)
    image = nibabel.load(path)
    image.header["pixdim"][1:4] = 9.0
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), None, image.header), path)
    fast = LoadImage(NAME)(path)
    assert_same_image(fast, LoadImage("NibabelReader")(path))
    np.testing.assert_allclose(np.linalg.norm(fast.affine[:3, :3], axis=0), 9.0)  # the qform's, from pixdim


def test_stored_type_is_kept_where_asked_for(tmp_path):
    path = tmp_path / "a.nii.gz"
    labels = np.array([0, 2**24 + 1], np.int32).reshape(2, 1, 1)  # no float32 holds it
    nibabel.save(nibabel.Nifti1Image(labels, np.eye(4)), path)
    fast = LoadImage(NAME, dtype=None, voxel_type=None)(path)
    assert fast.dtype == torch.int32
    assert int(fast.max()) == 2**24 + 1


def test_several_files_are_stacked_as_channels(tmp_path):
    paths = [oblique(tmp_path / f"{n}.nii.gz", np.full((4, 5, 6), n, np.int16)) for n in range(3)]
    assert_same_image(LoadImage(NAME)(paths), LoadImage("NibabelReader")(paths))


def test_other_formats_fall_to_monais_readers(tmp_path):
    picture = phantoms.write_picture(tmp_path / "a.png", grey=7)
    assert_same_image(LoadImage(NAME)(picture), LoadImage()(picture))


def test_dictionary_transform_finds_the_reader_by_its_name(tmp_path):
    path = oblique(tmp_path / "a.nii.gz", np.arange(60, dtype=np.uint8).reshape(3, 4, 5))
    fast = LoadImaged("image", reader=NAME)({"image": path})["image"]
    assert_same_image(fast, LoadImaged("image", reader="NibabelReader")({"image": path})["image"])


def test_suffixes_are_those_of_nifti():
    assert FastNiftiReader().verify_suffix(["a.nii", "b.nii.gz"])
    assert not FastNiftiReader().verify_suffix("a.nrrd")


@pytest.mark.realdata
def test_odd_files_of_the_world_load_as_by_nibabel_reader(data_root):
    paths = sorted((data_root / "nifti_oddities").glob("*.nii.gz"))
    for path in [path for path in paths if "rgb" not in path.name]:
        assert_same_image(LoadImage(NAME)(path), LoadImage("NibabelReader")(path))


@pytest.mark.realdata
def test_hippocampus_loads_as_by_nibabel_reader(hippocampus):
    for folder in ("imagesTr", "labelsTr"):
        path = sorted((hippocampus / folder).glob("hippo*.nii.gz"))[0]
        assert_same_image(LoadImage(NAME)(path), LoadImage("NibabelReader")(path))


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize(
    ("kind", "loaded"),
    [
        (np.uint8, torch.uint8),
        (np.int8, torch.int8),
        (np.int16, torch.int16),
        (np.uint16, torch.float32),
        (np.int32, torch.float32),
        (np.float32, torch.float32),
        (np.float64, torch.float32),
    ],
)
def test_small_integers_are_kept_where_asked_for_and_hold_the_same_values(tmp_path, kind, loaded, ending):
    path = oblique(tmp_path / f"a{ending}", np.arange(60).reshape(3, 4, 5).astype(kind))
    fast = LoadImage(NAME, dtype=None, keep_small_integers=True)(path)
    assert fast.dtype == loaded
    assert fast.is_contiguous()
    assert torch.equal(fast.as_tensor().to(torch.float32), LoadImage("NibabelReader")(path).as_tensor())


@pytest.mark.parametrize("endianness", ["<", ">"])
def test_scaled_small_integers_become_float32(tmp_path, endianness):
    header = nibabel.Nifti1Header(endianness=endianness)
    header.set_data_dtype(np.int16)
    values = np.linspace(-700.0, 1500.0, 6 * 7 * 5).reshape(6, 7, 5)
    path = tmp_path / "a.nii.gz"
    nibabel.save(nibabel.Nifti1Image(values, phantoms.oblique_affine(), header), path)
    fast = LoadImage(NAME, dtype=None, keep_small_integers=True)(path)
    assert_same_image(fast, LoadImage("NibabelReader")(path))


def test_big_endian_small_integers_are_kept_in_the_machines_order(tmp_path):
    header = nibabel.Nifti1Header(endianness=">")
    header.set_data_dtype(np.int16)
    array = np.arange(-30, 30).reshape(3, 4, 5).astype(">i2")
    path = tmp_path / "a.nii.gz"
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4), header), path)
    fast = LoadImage(NAME, dtype=None, keep_small_integers=True)(path)
    assert fast.dtype == torch.int16
    np.testing.assert_array_equal(fast.numpy(), array)


@pytest.mark.parametrize(("kept", "expected"), [(True, "int16"), (False, "float32")])
def test_the_reader_tells_what_it_will_load(tmp_path, kept, expected):
    path = oblique(tmp_path / "a.nii.gz", np.arange(60).reshape(3, 4, 5).astype(np.int16))
    reader = FastNiftiReader(keep_small_integers=kept)
    grid = read_nifti_grid(path)
    assert (grid.shape, grid.dtype) == ((3, 4, 5), np.int16)
    assert reader.loaded_type(grid.dtype) == expected
    np.testing.assert_array_equal(grid.affine, nibabel.load(path).affine)
