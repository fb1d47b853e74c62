"""Every file is held against nibabel: voxels to the bit, affine and header."""

from __future__ import annotations

import gzip
import io
import sys
from pathlib import Path

import nibabel
import numpy as np
import phantoms
import pytest

from medimg3d.data.fast_nifti import read_nifti
from medimg3d.errors import DataError

KINDS = ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"]
ODDITIES = {
    "int32_tiny_slope_inter_half.nii.gz",
    "ct_pitch_oblique_uint8.nii.gz",
    "fmri_pitch_oblique_slope8.67.nii.gz",
    "spm_stat_int16_small_slope_LAS.nii.gz",
    "pcasl_4d_float32.nii.gz",
}


def write(path: Path, array: np.ndarray, *, endianness="<", slope=None, inter=0.0, kind=nibabel.Nifti1Image):
    """A NIfTI file whose stored numbers are the array's."""
    header = kind.header_class(endianness=endianness)
    header.set_data_dtype(array.dtype)
    image = kind(array, phantoms.oblique_affine((0.8, 0.9, 1.5)), header)
    if slope is not None:
        image.header.set_slope_inter(slope, inter)
    plain = image.to_bytes() if slope is None else _with_raw_voxels(image, array)
    path.write_bytes(gzip.compress(plain) if path.suffix == ".gz" else plain)
    return path


def _with_raw_voxels(image, array):
    header = image.header.copy()
    file = io.BytesIO()
    header.write_to(file)
    return file.getvalue() + array.astype(header.get_data_dtype()).tobytes(order="F")


def numbers(kind="i2", shape=(7, 5, 37)):
    """Numbers over a good part of a type's range."""
    rng = np.random.default_rng(3)
    if np.dtype(kind).kind == "f":
        return rng.normal(0, 1e4, shape).astype(kind)
    limits = np.iinfo(kind)
    return rng.integers(limits.min, limits.max, shape, dtype=kind)


def expected(path):
    """What nibabel reads, rounded once to float32."""
    return np.asanyarray(nibabel.load(path).dataobj).astype(np.float32)


def assert_as_nibabel(path):
    reference = nibabel.load(path)
    for order in ("F", "C"):
        array, affine, header = read_nifti(path, order=order)
        assert array.dtype == np.float32
        assert array.flags.c_contiguous if order == "C" else array.flags.f_contiguous
        np.testing.assert_array_equal(array, expected(path))
        np.testing.assert_array_equal(affine, reference.affine)
        assert header == reference.header
        native = read_nifti(path, dtype=None, order=order).array
        np.testing.assert_array_equal(native, np.asanyarray(reference.dataobj))
        assert native.dtype == np.asanyarray(reference.dataobj).dtype.newbyteorder("=")


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("endianness", ["<", ">"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_type_and_byte_order_is_read_as_by_nibabel(tmp_path, kind, endianness, ending):
    assert_as_nibabel(write(tmp_path / f"a{ending}", numbers(kind), endianness=endianness))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("slope", "inter"), [(0.37, -1024.0), (1.0, 3.5), (2.3e-10, 0.5), (-2.0, 0.0)])
def test_scaled_voxels_equal_nibabels_float64_rounded_once(tmp_path, kind, slope, inter):
    assert_as_nibabel(write(tmp_path / "a.nii.gz", numbers(kind), slope=slope, inter=inter))


def test_hu_of_a_ct_with_intercept_are_worked_out(tmp_path):
    stored = np.array([0, 24, 1024, 4095], np.int16).reshape(4, 1, 1)
    path = write(tmp_path / "ct.nii.gz", stored, slope=1.0, inter=-1024.0)
    assert read_nifti(path).array.ravel().tolist() == [-1024.0, -1000.0, 0.0, 3071.0]


@pytest.mark.parametrize("shape", [(9,), (5, 4), (1, 1, 1), (6, 5, 4, 3), (4, 3, 5, 2, 3), (3, 4, 1, 1, 2)])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_any_number_of_axes_is_read(tmp_path, shape, ending):
    assert_as_nibabel(write(tmp_path / f"a{ending}", numbers(shape=shape)))


def test_planes_larger_than_a_slab_are_read(tmp_path):
    assert_as_nibabel(write(tmp_path / "a.nii.gz", numbers("i1", (600, 500, 3))))


def test_nifti2_is_read(tmp_path):
    assert_as_nibabel(write(tmp_path / "a.nii.gz", numbers(), kind=nibabel.Nifti2Image))


def test_header_extensions_are_stepped_over(tmp_path):
    image = nibabel.Nifti1Image(numbers(), np.eye(4))
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"x" * 5000))
    nibabel.save(image, tmp_path / "a.nii.gz")
    assert_as_nibabel(tmp_path / "a.nii.gz")


@pytest.mark.parametrize(("sform", "qform"), [(0, 0), (0, 1), (2, 0), (2, 1)])
def test_sform_goes_before_qform_and_both_before_the_voxel_sizes(tmp_path, sform, qform):
    image = nibabel.Nifti1Image(numbers(), None)
    image.header.set_zooms((2.0, 3.0, 4.0))
    image.header.set_qform(phantoms.oblique_affine((2.0, 3.0, 4.0)), qform)
    image.header.set_sform(phantoms.affine((2.0, 3.0, 4.0), (5.0, 6.0, 7.0)), sform)
    nibabel.save(image, tmp_path / "a.nii.gz")
    assert_as_nibabel(tmp_path / "a.nii.gz")


def test_stored_type_of_a_plain_file_is_mapped_into_memory_and_writing_does_not_reach_the_file(tmp_path):
    path = write(tmp_path / "a.nii", numbers())
    array = read_nifti(path, dtype=None).array
    assert isinstance(array, np.memmap)
    array[:] = 0
    np.testing.assert_array_equal(read_nifti(path).array, expected(path))


def test_scaled_float64_of_a_plain_file_is_scaled_not_mapped(tmp_path):
    assert_as_nibabel(write(tmp_path / "a.nii", numbers("f8"), slope=2.0, inter=1.0))


def test_several_gzip_members_and_padding_are_one_file(tmp_path):
    plain = gzip.decompress(write(tmp_path / "a.nii.gz", numbers()).read_bytes())
    parts = [plain[start : start + 700] for start in range(0, len(plain), 700)]
    members = b"".join(gzip.compress(part) for part in [*parts, b""])  # bgzip ends with an empty member
    (tmp_path / "b.nii.gz").write_bytes(members + bytes(64))
    assert_as_nibabel(tmp_path / "b.nii.gz")


def test_compression_is_seen_from_the_content_not_the_ending(tmp_path):
    path = write(tmp_path / "a.nii.gz", numbers())
    renamed = tmp_path / "b.nii"
    renamed.write_bytes(path.read_bytes())
    np.testing.assert_array_equal(read_nifti(renamed).array, expected(path))


def test_without_isal_zlib_reads_the_same(tmp_path, monkeypatch):
    path = write(tmp_path / "a.nii.gz", numbers())
    monkeypatch.setitem(sys.modules, "isal", None)
    assert_as_nibabel(path)


def _cut(content, share):
    return content[: int(len(content) * share)]


def _flipped(content, at):
    return content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :]


@pytest.mark.parametrize("has_isal", [True, False])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
def test_truncated_compressed_file_is_refused(tmp_path, monkeypatch, share, has_isal):
    if not has_isal:
        monkeypatch.setitem(sys.modules, "isal", None)
    path = write(tmp_path / "a.nii.gz", numbers(shape=(20, 20, 20)))
    path.write_bytes(_cut(path.read_bytes(), share))
    with pytest.raises(DataError, match=r"^(is truncated|cannot be read|is no NIfTI)"):
        read_nifti(path)


@pytest.mark.parametrize("has_isal", [True, False])
def test_wrong_checksum_is_refused(tmp_path, monkeypatch, has_isal):
    if not has_isal:
        monkeypatch.setitem(sys.modules, "isal", None)
    path = write(tmp_path / "a.nii.gz", numbers())
    path.write_bytes(_flipped(path.read_bytes(), -8))
    with pytest.raises(DataError, match=r"cannot be read \(\w+\): truncated, damaged"):
        read_nifti(path)


@pytest.mark.parametrize("dtype", [None, np.float32])
def test_truncated_plain_file_is_refused(tmp_path, dtype):
    path = write(tmp_path / "a.nii", numbers())
    path.write_bytes(_cut(path.read_bytes(), 0.9))
    with pytest.raises(DataError, match="is truncated or damaged: the header claims 2590 bytes of voxels"):
        read_nifti(path, dtype=dtype)


def test_compressed_file_with_too_few_voxels_is_refused(tmp_path):
    plain = gzip.decompress(write(tmp_path / "a.nii.gz", numbers()).read_bytes())
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(_cut(plain, 0.9)))
    with pytest.raises(DataError, match="ends before its last voxel"):
        read_nifti(tmp_path / "a.nii.gz")


def test_header_that_claims_terabytes_is_refused_before_memory_is_taken(tmp_path):
    header = nibabel.Nifti1Header()
    header.set_data_shape((30000, 30000, 30000))
    file = io.BytesIO()
    header.write_to(file)
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(file.getvalue() + bytes(1000)))
    with pytest.raises(DataError, match="claims 108000000000000 bytes of voxels"):
        read_nifti(tmp_path / "a.nii.gz")


def test_colour_is_refused(tmp_path):
    colour = np.zeros((3, 4, 5), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nibabel.save(nibabel.Nifti1Image(colour, np.eye(4)), tmp_path / "a.nii.gz")
    with pytest.raises(DataError, match="is a colour image"):
        read_nifti(tmp_path / "a.nii.gz")


def test_complex_voxels_are_refused_as_numbers_and_given_as_they_are(tmp_path):
    values = (numbers("f4") + 1j).astype(np.complex64)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "a.nii.gz")
    with pytest.raises(DataError, match="Take the magnitude"):
        read_nifti(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(read_nifti(tmp_path / "a.nii.gz", dtype=None).array, values)


@pytest.mark.parametrize(
    "content", [b"", b"no image", bytes(600), gzip.compress(b"no image", mtime=0), b"\x1f\x8b\x08"]
)
def test_what_is_no_nifti_is_refused(tmp_path, content):
    (tmp_path / "a.nii.gz").write_bytes(content)
    with pytest.raises(DataError, match=r"^(is no NIfTI file|is truncated|cannot be read)") as caught:
        read_nifti(tmp_path / "a.nii.gz")
    assert "a.nii" not in str(caught.value)


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="is missing"):
        read_nifti(tmp_path / "a.nii.gz")


def test_unknown_order_is_refused(tmp_path):
    with pytest.raises(ValueError, match="order must be"):
        read_nifti(tmp_path / "a.nii.gz", order="K")


@pytest.mark.realdata
@pytest.mark.parametrize("name", sorted(ODDITIES))
def test_odd_files_of_the_world_are_read_as_by_nibabel(data_root, name):
    assert_as_nibabel(data_root / "nifti_oddities" / name)


@pytest.mark.realdata
def test_no_odd_file_is_left_out(data_root):
    refused = set()
    for path in sorted((data_root / "nifti_oddities").glob("*.nii.gz")):
        try:
            read_nifti(path)
        except DataError as err:
            assert "colour" in str(err)  # noqa: PT017 - which files raise is what is tested
            refused.add(path.name)
    assert refused == {"rgb24_10x10x4.nii.gz", "rgba32_cit168.nii.gz"}
