from __future__ import annotations

import gzip
import sys

import nibabel
import numpy as np
import phantoms
import pytest
import SimpleITK

from medimg3d.data.fast_nifti_writer import write_label_nifti
from medimg3d.data.nifti_header import geometry_header, geometry_of
from medimg3d.errors import DataError, GeometryError

SHAPE = (9, 7, 150)  # more planes than are written at once


def some_labels(kind=np.uint8, highest=3):
    labels = np.zeros(SHAPE, kind)
    labels[2:5, 1:6, 20:130] = 1
    labels[3, 3, 70] = highest
    return labels


def header(shape=SHAPE):
    return geometry_header(shape, phantoms.oblique_affine((0.8, 0.9, 1.5)))


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_content_is_what_nibabel_would_write_to_the_bit(tmp_path, order, ending):
    labels = np.array(some_labels(), order=order)
    path = write_label_nifti(labels, header(), tmp_path / f"fast{ending}")
    own = header()
    own.set_data_dtype(np.uint8)
    nibabel.save(nibabel.Nifti1Image(labels, None, own), tmp_path / f"stock{ending}")
    fast, stock = path.read_bytes(), (tmp_path / f"stock{ending}").read_bytes()
    if ending == ".nii.gz":
        fast, stock = gzip.decompress(fast), gzip.decompress(stock)
    assert fast == stock


@pytest.mark.parametrize("has_isal", [True, False])
def test_same_labels_give_the_same_bytes(tmp_path, monkeypatch, has_isal):
    if not has_isal:
        monkeypatch.setitem(sys.modules, "isal", None)
    first = write_label_nifti(some_labels(), header(), tmp_path / "a.nii.gz").read_bytes()
    second = write_label_nifti(np.asfortranarray(some_labels()), header(), tmp_path / "b.nii.gz").read_bytes()
    assert first == second
    assert first[4:8] == bytes(4)  # no time in the gzip header (RFC 1952)
    assert first[3] == 0  # no file name either


def test_smallest_type_that_holds_the_labels(tmp_path):
    found = []
    for n, labels in enumerate(
        [
            some_labels(bool, True),
            some_labels(np.int64, 255),
            some_labels(np.int16, 256),
            some_labels(np.int64, 65535),
        ]
    ):
        image = nibabel.load(write_label_nifti(labels, header(), tmp_path / f"{n}.nii.gz"))
        np.testing.assert_array_equal(np.asarray(image.dataobj), labels)
        found.append(image.get_data_dtype().name)
    assert found == ["uint8", "uint8", "uint16", "uint16"]


def test_affine_in_place_of_a_header_is_the_grid(tmp_path):
    affine = phantoms.oblique_affine((0.8, 0.9, 1.5))
    path = write_label_nifti(some_labels(), affine, tmp_path / "a.nii.gz")
    image = nibabel.load(path)
    np.testing.assert_allclose(image.affine, affine, atol=1e-5)
    assert image.header.get_xyzt_units()[0] == "mm"
    itk = SimpleITK.ReadImage(str(path))
    np.testing.assert_allclose(itk.GetSpacing(), (0.8, 0.9, 1.5), rtol=1e-6)
    np.testing.assert_allclose(itk.GetOrigin(), (20.0, -15.0, 30.0), atol=1e-5)  # LPS


def test_2d_label_map_keeps_two_axes(tmp_path):
    labels = some_labels()[:, :, 70]
    path = write_label_nifti(labels, header(labels.shape), tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(np.asarray(nibabel.load(path).dataobj), labels)


@pytest.mark.parametrize("kind", [nibabel.Nifti1Header, nibabel.Nifti2Header])
def test_of_a_files_header_only_the_geometry_is_kept(tmp_path, kind):
    source = kind(endianness=">")
    source.set_data_shape((*SHAPE, 2))
    source.set_data_dtype(np.float32)
    source.set_qform(phantoms.oblique_affine((0.8, 0.9, 1.5)), "scanner")
    source.set_sform(phantoms.affine((0.8, 0.9, 1.5)), "aligned")
    source.set_xyzt_units("mm", "sec")
    source["descrip"], source["cal_max"] = b"Doe^Jane", 300
    source.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"Doe^Jane"))
    path = write_label_nifti(some_labels(), source, tmp_path / "a.nii.gz")
    made = nibabel.load(path).header
    assert b"Doe" not in gzip.decompress(path.read_bytes())
    assert float(made["cal_max"]) == 0
    assert (int(made["qform_code"]), int(made["sform_code"])) == (1, 2)
    np.testing.assert_allclose(made.get_qform(), source.get_qform(), atol=1e-6)
    np.testing.assert_allclose(made.get_sform(), source.get_sform(), atol=1e-6)


def test_geometry_keeps_the_unit_unless_told_otherwise():
    source = header()
    source.set_xyzt_units("unknown")
    assert geometry_of(source, SHAPE).get_xyzt_units()[0] == "unknown"
    assert geometry_of(source, SHAPE, unit="mm").get_xyzt_units()[0] == "mm"


def test_other_shape_than_the_image_is_refused(tmp_path):
    with pytest.raises(GeometryError, match=r"its image \(9, 7, 151\); expected one grid"):
        write_label_nifti(some_labels(), header((9, 7, 151)), tmp_path / "a.nii.gz")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        (some_labels(np.float32), "of type float32"),
        (some_labels(np.int16, -1), "from -1 to 1"),
        (some_labels(np.int32, 65536), "from 0 to 65536"),
    ],
)
def test_values_that_are_no_labels_are_refused(tmp_path, labels, found):
    with pytest.raises(DataError, match=found):
        write_label_nifti(labels, header(), tmp_path / "a.nii.gz")


def test_other_endings_and_axes_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"must end in \.nii\.gz"):
        write_label_nifti(some_labels(), header(), tmp_path / "a.mha")
    with pytest.raises(ValueError, match=r"must have the axes"):
        write_label_nifti(some_labels()[None], header(), tmp_path / "a.nii")


def test_failure_while_writing_leaves_the_old_file(tmp_path, monkeypatch):
    path = write_label_nifti(some_labels(), header(), tmp_path / "a.nii.gz")
    before = path.read_bytes()
    monkeypatch.setattr(nibabel.Nifti1Header, "write_to", lambda self, file: file.write(b"x") and 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_label_nifti(some_labels(), header(), path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.nii.gz"]
