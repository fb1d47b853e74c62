import gzip
import re
import struct

import nibabel
import numpy as np
import pytest
import SimpleITK
from phantoms import affine, oblique_affine, two_boxes, write_nifti, write_picture

from medimg3d.data.fast_nifti_writer import write_label_nifti
from medimg3d.data.input_checks import check_volume
from medimg3d.data.inputs import FoundInputs, InputFile, find_inputs
from medimg3d.data.volume_file import read_volume
from medimg3d.errors import DataError, GeometryError, UsageError


def _touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    return path


def test_every_file_of_a_folder_is_an_image_rejected_or_ignored(tmp_path):
    for name in (
        "a.nii",
        "sub/b.nii.gz",
        "c.mha",
        "d.nrrd",
        "e.dcm",
        "f.xyz",
        ".hidden.nii",
        "g.json",
        "h.md",
    ):
        _touch(tmp_path / name)
    write_picture(tmp_path / "i.png")
    found = find_inputs([tmp_path])
    keys = [image.key for image in found.images]
    every = {str(path) for path in tmp_path.rglob("*") if path.is_file()}
    assert {*keys, *found.rejected, *found.ignored} == every
    assert [image.case for image in found.images] == ["a", "c", "d", "b"]
    assert {key.rsplit("/", 1)[1] for key in found.rejected} == {"e.dcm", "f.xyz", "i.png"}
    assert set(found.ignored.values()) == {"not an image"}


def test_a_sidecar_that_is_named_itself_is_rejected_not_ignored(tmp_path):
    found = find_inputs([_touch(tmp_path / "a.txt"), _touch(tmp_path / "b.nii")])
    assert list(found.rejected) == [str(tmp_path / "a.txt")]


def test_files_of_one_name_get_their_folders_names_in_front(tmp_path):
    for name in ("visit1/t1.nii.gz", "visit2/t1.nii.gz", "visit2/t2.nii.gz"):
        _touch(tmp_path / name)
    assert [image.case for image in find_inputs([tmp_path]).images] == ["visit1_t1", "visit2_t1", "t2"]


def test_two_formats_of_one_name_get_a_number(tmp_path):
    _touch(tmp_path / "t1.nii")
    _touch(tmp_path / "t1.nii.gz")
    cases = [image.case for image in find_inputs([tmp_path]).images]
    assert len(set(cases)) == 2


def test_a_file_and_its_folder_count_once(tmp_path):
    file = _touch(tmp_path / "t1.nii")
    assert len(find_inputs([file, tmp_path, file]).images) == 1


def test_the_output_folder_inside_the_input_folder_is_passed_over(tmp_path):
    _touch(tmp_path / "t1.nii")
    _touch(tmp_path / "out" / "t1_seg.nii.gz")
    assert [i.case for i in find_inputs([tmp_path], without=tmp_path / "out").images] == ["t1"]


@pytest.mark.parametrize("content", [[], ["readme.txt"]])
def test_a_folder_without_images_is_bad_usage(tmp_path, content):
    for name in content:
        _touch(tmp_path / name)
    with pytest.raises(UsageError, match="No image is found"):
        find_inputs([tmp_path])


def test_a_path_that_does_not_exist_is_bad_usage(tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        find_inputs([tmp_path / "no.nii"])


def test_a_file_listed_twice_is_refused(tmp_path):
    with pytest.raises(ValueError, match="Listed twice"):
        FoundInputs((InputFile("a", tmp_path, "k"),), {"k": "bad"}, {})


def _reason(path):
    with pytest.raises((DataError, GeometryError)) as caught:
        check_volume(read_volume(path), num_channels=1)
    assert str(path.parent) not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((5, 5, 5), np.int16), "same value in every voxel"),
        (np.arange(25.0).reshape(5, 5).astype(np.float32), "2D image"),
        (np.arange(25.0).reshape(5, 5, 1).astype(np.float32), "2D image"),
        (np.arange(250.0).reshape(5, 5, 5, 2).astype(np.float32), "has 4 axes"),
        (
            np.where(np.arange(125).reshape(5, 5, 5) == 7, np.nan, 1.0).astype(np.float32),
            "1 voxels that are NaN",
        ),
        (np.full((5, 5, 5), 1j, np.complex64), "complex"),
        (np.zeros((5, 5, 5), [("R", "u1"), ("G", "u1"), ("B", "u1")]), "colour"),
    ],
)
def test_a_volume_that_no_model_can_be_asked_about_is_refused(tmp_path, array, reason):
    assert reason in _reason(write_nifti(tmp_path / "a.nii.gz", array))


def test_truncated_gzip_text_and_noise_are_refused(tmp_path):
    whole = write_nifti(
        tmp_path / "whole.nii.gz", np.random.default_rng(0).random((9, 9, 9)).astype(np.float32)
    )
    (tmp_path / "cut.nii.gz").write_bytes(whole.read_bytes()[:900])
    (tmp_path / "text.nii.gz").write_text("hello")
    (tmp_path / "text.mha").write_text("hello")
    (tmp_path / "empty.nii").write_bytes(b"")
    (tmp_path / "zipped.nii.gz").write_bytes(gzip.compress(b"hello" * 100))
    assert "is truncated" in _reason(tmp_path / "cut.nii.gz")
    assert "is no NIfTI file" in _reason(tmp_path / "text.nii.gz")
    for name in ("text.mha", "empty.nii", "zipped.nii.gz"):
        assert re.search("cannot be read|is no NIfTI file|is truncated", _reason(tmp_path / name)), name


def test_an_affine_that_flattens_the_volume_is_refused(tmp_path):
    file = write_nifti(tmp_path / "a.nii", two_boxes())
    content = bytearray(file.read_bytes())
    content[312:328] = struct.pack("<4f", 0, 0, 0, 0)  # srow_z
    file.write_bytes(content)
    assert "no grid" in _reason(file)


def test_lengths_in_micron_are_refused(tmp_path):
    image = nibabel.Nifti1Image(two_boxes(), affine())
    image.header.set_xyzt_units("micron")
    nibabel.save(image, tmp_path / "a.nii")
    assert "micron" in _reason(tmp_path / "a.nii")


def test_a_fourth_axis_of_length_one_is_dropped(tmp_path):
    volume = read_volume(write_nifti(tmp_path / "a.nii", two_boxes()[..., None]))
    assert volume.array.shape == (16, 18, 14)


def test_a_voxel_of_2_by_3_by_4_mm_is_24_cubic_mm(tmp_path):
    volume = read_volume(write_nifti(tmp_path / "a.nii", two_boxes(), affine((2.0, 3.0, 4.0))))
    assert volume.voxel_ml == pytest.approx(0.024)
    assert volume.spacing_mm == pytest.approx((2.0, 3.0, 4.0))


def test_a_header_without_codes_and_units_states_no_voxel_size(tmp_path):
    image = nibabel.Nifti1Image(two_boxes(), None)
    nibabel.save(image, tmp_path / "a.nii")
    assert image.header.get_xyzt_units()[0] == "unknown"
    assert read_volume(tmp_path / "a.nii").voxel_ml is None


@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
def test_itk_formats_have_the_voxels_and_affine_of_the_nifti_file(tmp_path, ending):
    nifti = write_nifti(tmp_path / "a.nii.gz", two_boxes(), oblique_affine((1.0, 2.0, 3.0)))
    SimpleITK.WriteImage(SimpleITK.ReadImage(str(nifti)), str(tmp_path / f"a{ending}"))
    one, other = read_volume(nifti), read_volume(tmp_path / f"a{ending}")
    np.testing.assert_array_equal(one.array, other.array)
    np.testing.assert_allclose(one.affine, other.affine, atol=1e-3)


def test_a_label_map_keeps_codes_and_units_but_no_description(tmp_path):
    image = nibabel.Nifti1Image(two_boxes(), oblique_affine())
    image.set_sform(oblique_affine(), "mni")
    image.set_qform(oblique_affine(), "scanner")
    image.header["descrip"] = b"NAME^PATIENT"
    nibabel.save(image, tmp_path / "a.nii.gz")
    volume = read_volume(tmp_path / "a.nii.gz")
    labels = (volume.array > 50).astype(np.uint8)
    written = nibabel.load(write_label_nifti(labels, volume.header, tmp_path / "b.nii.gz"))
    assert (int(written.header["sform_code"]), int(written.header["qform_code"])) == (4, 1)
    assert written.header.get_xyzt_units()[0] == "mm"
    assert written.get_data_dtype() == np.uint8
    assert b"PATIENT" not in gzip.decompress((tmp_path / "b.nii.gz").read_bytes())
    np.testing.assert_array_equal(np.asanyarray(written.dataobj), labels)


def test_a_label_map_of_another_shape_is_refused(tmp_path):
    volume = read_volume(write_nifti(tmp_path / "a.nii", two_boxes()))
    with pytest.raises(GeometryError, match="expected one grid"):
        write_label_nifti(np.zeros((2, 2, 2), np.uint8), volume.header, tmp_path / "b.nii.gz")
