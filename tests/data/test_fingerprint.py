import hashlib

import numpy as np
import pytest
from phantoms import affine, two_boxes, write_dicom_series, write_nifti, write_nifti_of_unknown_size
from PIL import Image

from medimg3d.data.fingerprint import border_share, fingerprint_image, fingerprint_structures, pixel_hash
from medimg3d.data.pixels import Pixels, read_pixels
from medimg3d.errors import DataError


def ramp() -> np.ndarray:
    """0 to 99 in 10 rows of 10."""
    return np.arange(100, dtype=np.uint8).reshape(10, 10)


def of(path):
    return fingerprint_image(read_pixels(path), path)


def test_the_facts_of_a_picture(tmp_path):
    path = tmp_path / "ramp.png"
    Image.fromarray(np.vstack([ramp(), ramp()])).save(path)
    facts = of(path)
    assert facts.shape == (10, 20)  # columns, rows
    assert facts.spacing_mm is None
    assert facts.percentiles[2] == facts.mean == 49.5
    assert facts.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert facts.num_bytes == path.stat().st_size
    assert len(facts.sample) == 200


def test_the_same_picture_in_other_formats_has_one_pixel_hash_and_other_bytes(tmp_path):
    grey = Image.fromarray(ramp())
    grey.save(tmp_path / "a.png")
    grey.save(tmp_path / "a.bmp")
    grey.convert("RGB").save(tmp_path / "colour.png")
    write_nifti(tmp_path / "a.nii.gz", ramp().T.astype(np.float32))
    facts = [of(tmp_path / name) for name in ("a.png", "a.bmp", "colour.png", "a.nii.gz")]
    assert len({one.pixel_hash for one in facts}) == 1
    assert len({one.sha256 for one in facts}) == 4


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.int64, np.float32, np.float64])
def test_the_data_type_does_not_change_the_hash(kind):
    assert pixel_hash(ramp().astype(kind)) == pixel_hash(ramp())


def test_another_value_shape_or_scale_changes_the_hash():
    other = ramp().copy()
    other[0, 0] = 1
    arrays = (ramp(), other, ramp().reshape(20, 5), ramp() / 255, ramp().astype(int) * 257, ramp() + np.inf)
    assert len({pixel_hash(array) for array in arrays}) == len(arrays)


def test_border_of_two_dark_columns_and_a_dark_row_of_ten():
    array = np.full((10, 10), 100.0)
    array[:1] = array[-1:] = 0  # two of ten along the first axis
    array[:, 0] = 3  # one of ten along the second: below 5 % of the range
    assert border_share(array, low=0, high=100) == pytest.approx(1 - 0.8 * 0.9)


def test_a_dark_line_inside_and_an_image_of_one_value_are_no_border():
    array = np.full((10, 10), 100.0)
    array[5] = 0
    assert border_share(array, low=0, high=100) == 0
    assert border_share(np.zeros((4, 4)), low=0, high=0) == 0


def test_values_that_are_not_finite_are_counted_and_left_out(tmp_path):
    image = two_boxes()
    image[0, 0, :2] = np.nan, np.inf
    facts = of(write_nifti(tmp_path / "a.nii.gz", image))
    assert facts.num_not_finite == 2
    assert facts.percentiles[3:] == (0, 200)  # 147 of 4,032 voxels (3.6 %) are not 0, 27 (0.7 %) are 200
    with pytest.raises(DataError, match="holds no finite value"):
        of(write_nifti(tmp_path / "b.nii.gz", np.full((3, 3, 3), np.nan, np.float32)))


def test_structures_have_voxels_volumes_and_percentiles(tmp_path):
    image = two_boxes()
    label = (image == 100) * 1 + (image == 200) * 2
    path = write_nifti(tmp_path / "l.nii.gz", label.astype(np.uint8), affine((1, 2, 2.5)))
    facts = fingerprint_structures(read_pixels(path, as_label=True), Pixels(image, None, None))
    assert {value: one.voxels for value, one in facts.items()} == {0: 4032 - 147, 1: 120, 2: 27}
    assert facts[1].volume_ml == pytest.approx(120 * 5 / 1000)
    assert facts[2].percentiles == (200,) * 5


def test_a_volume_of_unknown_voxel_size_has_no_ml(tmp_path):
    path = write_nifti_of_unknown_size(tmp_path / "l.nii.gz", (two_boxes() > 0).astype(np.uint8))
    facts = fingerprint_structures(read_pixels(path, as_label=True), Pixels(two_boxes(), None, None))
    assert facts[1].volume_ml is None


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (np.zeros((2, 2, 2)), "has the shape 2 × 2 × 2, its image 16 × 18 × 14"),
        (two_boxes() / 200, "holds fractions"),
        (-two_boxes(), "holds values below 0"),
        (two_boxes() * np.nan, "holds NaN"),
    ],
)
def test_a_label_map_that_is_none(label, message):
    with pytest.raises(DataError, match=message):
        fingerprint_structures(Pixels(label, None, None), Pixels(two_boxes(), None, None))


def test_a_dicom_series_has_its_spacing(tmp_path):
    pixels = read_pixels(write_dicom_series(tmp_path / "series"))
    assert pixels.array.shape == (6, 5, 3)
    assert pixels.spacing_mm == pytest.approx((0.5, 0.5, 2.0))
    assert pixels.voxel_ml == pytest.approx(0.0005)
    assert [int(pixels.array[0, 0, k]) for k in range(3)] == [0, 1, 2]


def test_a_single_dicom_slice_is_a_film_with_its_spacing(tmp_path):
    pixels = read_pixels(write_dicom_series(tmp_path / "series") / "001.dcm")
    assert pixels.array.shape == (6, 5)
    assert pixels.spacing_mm == pytest.approx((0.5, 0.5))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.png", "cannot be decoded"),
        ("a.nii.gz", "is no NIfTI file"),
        ("a.xyz", "unknown kind"),
        ("b.png", "missing"),
    ],
)
def test_what_cannot_be_read_says_why_without_its_path(tmp_path, name, message):
    if not name.startswith("b"):
        (tmp_path / name).write_bytes(b"nothing")
    with pytest.raises(DataError, match=message) as error:
        read_pixels(tmp_path / name)
    assert str(tmp_path) not in str(error.value)


def test_a_label_picture_keeps_its_values_and_refuses_colours(tmp_path):
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "a.png")
    assert read_pixels(tmp_path / "a.png", as_label=True).array.tolist() == [[True], [False]]
    Image.new("RGB", (3, 2)).save(tmp_path / "b.png")
    with pytest.raises(DataError, match="3 colour channels"):
        read_pixels(tmp_path / "b.png", as_label=True)
