import numpy as np
import pytest
from phantoms import affine, write_nifti, write_nifti_of_unknown_size

from medimg3d.data.label_map import check_same_grid, read_label_map
from medimg3d.errors import DataError, GeometryError

LABELS = np.zeros((4, 5, 6), np.uint8)
LABELS[1:3, 1:3, 1:3] = 2


def test_voxel_size_comes_from_the_affine(tmp_path):
    found = read_label_map(write_nifti(tmp_path / "a.nii.gz", LABELS, affine((0.5, 0.5, 3))))
    assert found.spacing_mm == pytest.approx((0.5, 0.5, 3))
    assert np.array_equal(found.labels, LABELS)


def test_voxel_size_is_unknown_without_sform_qform_and_unit(tmp_path):
    assert read_label_map(write_nifti_of_unknown_size(tmp_path / "a.nii.gz", LABELS)).spacing_mm is None


def test_whole_floats_are_labels(tmp_path):
    found = read_label_map(write_nifti(tmp_path / "a.nii.gz", LABELS.astype(np.float32)))
    assert found.labels.dtype.kind == "u"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (LABELS / np.float32(4), "holds fractions; expected whole labels"),
        (LABELS.astype(np.int16) - 1, "holds values below 0"),
        (np.zeros((4, 5, 6, 2), np.uint8), r"has shape \(4, 5, 6, 2\); expected one label map"),
    ],
)
def test_what_is_no_label_map_is_refused(tmp_path, values, message):
    path = write_nifti(tmp_path / "a.nii.gz", values)
    with pytest.raises(DataError, match=message):
        read_label_map(path)


def test_a_shift_of_more_than_a_tenth_of_a_mm_is_another_grid(tmp_path):
    first = read_label_map(write_nifti(tmp_path / "a.nii.gz", LABELS))
    shifted = read_label_map(write_nifti(tmp_path / "b.nii.gz", LABELS, affine(origin_mm=(0.11, 0, 0))))
    near = read_label_map(write_nifti(tmp_path / "c.nii.gz", LABELS, affine(origin_mm=(0.09, 0, 0))))
    check_same_grid(near, first)
    with pytest.raises(GeometryError, match=r"place their corners 0.11 mm apart"):
        check_same_grid(shifted, first)


def test_another_shape_is_another_grid(tmp_path):
    first = read_label_map(write_nifti(tmp_path / "a.nii.gz", LABELS))
    second = read_label_map(write_nifti(tmp_path / "b.nii.gz", LABELS[:3]))
    with pytest.raises(GeometryError, match=r"shape \(3, 5, 6\), reference \(4, 5, 6\)"):
        check_same_grid(second, first)


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 1)])
def test_a_2d_image_has_two_axes_whichever_way_it_is_stored(shape, tmp_path):
    labels = LABELS[:, :, 1].reshape(shape)
    found = read_label_map(write_nifti(tmp_path / "a.nii.gz", labels, affine((0.5, 0.25, 3))))
    np.testing.assert_array_equal(found.labels, LABELS[:, :, 1])
    assert found.spacing_mm == pytest.approx((0.5, 0.25))
