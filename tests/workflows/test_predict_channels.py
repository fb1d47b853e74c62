"""Prediction of cases whose channels lie in files of their own."""

import json

import nibabel
import numpy as np
import pytest
import SimpleITK
from phantoms import affine, two_boxes, write_nifti, write_two_channel_bundle

from medimg3d.data.content_hash import content_sha256
from medimg3d.workflows.predict import predict


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_two_channel_bundle(tmp_path_factory.mktemp("bundles") / "two")


def write_case(folder, name, *, ct_share=0.25, matrix=None):
    """Two channels whose sum is ``two_boxes``."""
    write_nifti(folder / f"{name}_0000.nii.gz", (two_boxes() * ct_share).astype(np.float32), matrix)
    write_nifti(folder / f"{name}_0001.nii.gz", (two_boxes() * (1 - ct_share)).astype(np.float32), matrix)
    return folder


def plain(bundle, inputs, out, **options):
    return predict(bundle, inputs, out, overlays=False, reports=False, **options)


def voxels(path):
    return np.asanyarray(nibabel.load(path).dataobj)


EXPECTED = (two_boxes() > 50).astype(np.uint8) + (two_boxes() > 150)


def test_the_sum_of_both_files_decides_and_run_json_lists_both_with_their_hashes(bundle, tmp_path):
    folder = write_case(tmp_path / "in", "a")
    predict(bundle, [folder], tmp_path / "out", reports=False)
    np.testing.assert_array_equal(voxels(tmp_path / "out" / "a_seg.nii.gz"), EXPECTED)
    record = json.loads((tmp_path / "out" / "run.json").read_text())["cases"][0]
    names = ("a_0000.nii.gz", "a_0001.nii.gz")
    assert record["inputs"] == [{"file": n, "sha256": content_sha256(folder / n)} for n in names]
    assert record["input_sha256"] == record["inputs"][0]["sha256"]
    assert (tmp_path / "out" / "overlays" / "a.png").is_file()


def test_a_datalist_and_other_formats_give_the_same_label_map(bundle, tmp_path):
    folder = write_case(tmp_path / "in", "a")
    for number in (0, 1):
        image = SimpleITK.ReadImage(str(folder / f"a_000{number}.nii.gz"))
        SimpleITK.WriteImage(image, str(tmp_path / f"{number}.nrrd"))
    test = [
        {"id": "nifti", "images": {"pet": "in/a_0001.nii.gz", "ct": "in/a_0000.nii.gz"}},
        {"id": "nrrd", "image": ["0.nrrd", "1.nrrd"]},
    ]
    (tmp_path / "list.json").write_text(json.dumps({"training": [], "test": test}))
    result = plain(bundle, [tmp_path / "list.json"], tmp_path / "out")
    assert not result.rejected
    for name in ("nifti", "nrrd"):
        np.testing.assert_array_equal(voxels(tmp_path / "out" / f"{name}_seg.nii.gz"), EXPECTED)


def test_channels_on_other_grids_are_refused_by_name_and_the_others_go_on(bundle, tmp_path):
    folder = tmp_path / "in"
    for name in ("good", "moved", "cut", "empty", "broken"):
        write_case(folder, name)
    moved = affine(origin_mm=(1.0, 0.0, 0.0))
    write_nifti(folder / "moved_0001.nii.gz", two_boxes().astype(np.float32), moved)
    write_nifti(folder / "cut_0001.nii.gz", two_boxes()[:-1].astype(np.float32))
    write_nifti(folder / "empty_0001.nii.gz", np.zeros_like(two_boxes(), dtype=np.float32))
    (folder / "broken_0001.nii.gz").write_text("no image")
    result = plain(bundle, [folder], tmp_path / "out")
    assert [case.case for case in result.cases] == ["good"]
    reasons = {key.rpartition("/")[2]: reason for key, reason in result.rejected.items()}
    assert set(reasons) == {"moved", "cut", "empty", "broken"}
    assert "moved_0001.nii.gz lies on another grid than moved_0000.nii.gz" in reasons["moved"]
    assert "expected one grid" in reasons["cut"]
    assert "empty_0001.nii.gz has the same value in every voxel" in reasons["empty"]
    assert "broken_0001.nii.gz" in reasons["broken"]
    record = json.loads((tmp_path / "out" / "run.json").read_text())["cases"]
    assert all(len(one["inputs"]) == 2 for one in record)


def test_resume_notices_that_the_second_channel_has_changed(bundle, tmp_path):
    folder = write_case(tmp_path / "in", "a")
    plain(bundle, [folder], tmp_path / "out")
    kept = plain(bundle, [folder], tmp_path / "out", resume=True)
    assert kept.cases[0].further_sha256 == (content_sha256(folder / "a_0001.nii.gz"),)
    write_nifti(folder / "a_0001.nii.gz", np.where(two_boxes() > 150, 200, 0).astype(np.float32))
    result = plain(bundle, [folder], tmp_path / "out", resume=True)
    assert result.cases[0].image_sha256 == kept.cases[0].image_sha256
    assert result.cases[0].further_sha256 != kept.cases[0].further_sha256
    assert set(np.unique(voxels(tmp_path / "out" / "a_seg.nii.gz"))) == {0, 2}
