"""Which files are the channels of which case: by a datalist, by nnU-Net's numbers, by folders, by names."""

import json
from pathlib import Path

import numpy as np
import pytest
from phantoms import write_nifti

from medimg3d.data.channel_inputs import find_case_inputs
from medimg3d.errors import UsageError

CHANNELS = ("t1", "t1ce", "flair")
PAIR = ("ct", "pet")


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def cases(found):
    return {image.case: [file.name for file in image.files] for image in found.images}


def write_list(folder: Path, **sections) -> Path:
    path = folder / "list.json"
    path.write_text(json.dumps({"labels": {"0": "background", "1": "a"}, "training": []} | sections))
    return path


def test_numbers_behind_the_name_are_the_channels_in_order(tmp_path):
    for name in ("b_0001", "b_0000", "a_0000", "a_0001"):
        touch(tmp_path / f"{name}.nii.gz")
    found = find_case_inputs([tmp_path], channels=PAIR)
    assert cases(found) == {
        "a": ["a_0000.nii.gz", "a_0001.nii.gz"],
        "b": ["b_0000.nii.gz", "b_0001.nii.gz"],
    }


def test_a_folder_a_case_with_files_named_as_the_channels_and_a_label_beside_them(tmp_path):
    for case in ("BraTS_001", "BraTS_002"):
        for name in (*CHANNELS, "seg"):
            touch(tmp_path / case / f"{case}_{name}.nii.gz")
    found = find_case_inputs([tmp_path], channels=CHANNELS)
    assert cases(found)["BraTS_001"] == [f"BraTS_001_{name}.nii.gz" for name in CHANNELS]
    assert list(cases(found)) == ["BraTS_001", "BraTS_002"]
    assert set(found.ignored.values()) == {"is none of the channels t1, t1ce, flair"}
    assert not found.rejected


def test_files_named_by_the_channel_alone_are_a_case_of_their_folders_name(tmp_path):
    for case in ("p1", "p2"):
        for name in ("CT", "pet"):
            touch(tmp_path / case / f"{name}.nii.gz")
    assert cases(find_case_inputs([tmp_path], channels=PAIR)) == {
        "p1": ["CT.nii.gz", "pet.nii.gz"],
        "p2": ["CT.nii.gz", "pet.nii.gz"],
    }


def test_a_case_without_one_of_its_channels_is_rejected_by_name_and_the_others_go_on(tmp_path):
    for name in ("a_ct", "a_pet", "b_ct"):
        write_nifti(tmp_path / f"{name}.nii.gz", np.ones((2, 2, 2), np.float32))
    found = find_case_inputs([tmp_path], channels=PAIR)
    assert list(cases(found)) == ["a"]
    assert found.rejected == {str(tmp_path / "b"): "lacks the channel pet; this bundle takes ct, pet"}


def test_two_files_for_one_channel_are_rejected(tmp_path):
    for name in ("a_ct.nii.gz", "a_ct.nii", "a_pet.nii.gz"):
        touch(tmp_path / name)
    found = find_case_inputs([tmp_path], channels=PAIR)
    assert found.rejected == {str(tmp_path / "a"): "has two files for the channel ct; expected one"}


def test_files_of_four_dimensions_stay_cases_of_their_own(tmp_path):
    write_nifti(tmp_path / "one_ct.nii.gz", np.ones((2, 2, 2, 2), np.float32))
    touch(tmp_path / "other.nii.gz")
    found = find_case_inputs([tmp_path], channels=PAIR)
    assert [len(image.files) for image in found.images] == [1, 1]


def test_a_bundle_of_one_channel_takes_a_datalist_too(tmp_path):
    image = touch(tmp_path / "a.nii.gz")
    listed = write_list(tmp_path, test=[{"image": "a.nii.gz"}], training=[{"image": "b.nii.gz"}])
    found = find_case_inputs([listed], channels=("0",))
    assert [(one.case, one.path) for one in found.images] == [("a", image)]


def test_without_test_cases_all_are_taken_and_a_section_can_be_named(tmp_path):
    for name in "ab":
        touch(tmp_path / f"{name}.nii.gz")
    training, validation = [{"image": "a.nii.gz"}], [{"image": "b.nii.gz"}]
    listed = write_list(tmp_path, training=training, validation=validation)
    assert set(cases(find_case_inputs([listed], channels=("0",)))) == {"a", "b"}
    assert set(cases(find_case_inputs([listed], channels=("0",), section="validation"))) == {"b"}
    with pytest.raises(UsageError, match="no case in section 'test'"):
        find_case_inputs([listed], channels=("0",), section="test")
    with pytest.raises(UsageError, match="Unknown section 'rest'"):
        find_case_inputs([listed], channels=("0",), section="rest")


def test_named_images_come_in_the_order_of_the_bundle_and_lists_as_they_are(tmp_path):
    for name in ("x.nii.gz", "y.nii.gz"):
        touch(tmp_path / name)
    test = [
        {"id": "named", "images": {"pet": "x.nii.gz", "ct": "y.nii.gz"}},
        {"id": "listed", "image": ["x.nii.gz", "y.nii.gz"]},
        {"id": "short", "images": {"ct": "y.nii.gz"}},
        {"id": "long", "image": ["x.nii.gz"] * 3},
        {"id": "gone", "image": ["x.nii.gz", "z.nii.gz"]},
    ]
    found = find_case_inputs([write_list(tmp_path, test=test)], channels=PAIR)
    assert cases(found) == {"named": ["y.nii.gz", "x.nii.gz"], "listed": ["x.nii.gz", "y.nii.gz"]}
    assert found.rejected == {
        "short": "lacks the channel pet; this bundle takes ct, pet",
        "long": "has 3 files; this bundle takes 2 channels (ct, pet)",
        "gone": "its file z.nii.gz is missing",
    }


def test_a_sidecar_is_no_datalist_and_two_datalists_are_refused(tmp_path):
    touch(tmp_path / "a.nii.gz")
    sidecar = tmp_path / "a.json"
    sidecar.write_text('{"EchoTime": 1}')
    found = find_case_inputs([tmp_path / "a.nii.gz", sidecar], channels=("0",))
    assert list(found.rejected) == [str(sidecar)]
    listed = write_list(tmp_path, training=[{"image": "a.nii.gz"}])
    with pytest.raises(UsageError, match="2 datalists"):
        find_case_inputs([listed, listed], channels=("0",))
    with pytest.raises(UsageError, match="is of a datalist"):
        find_case_inputs([tmp_path / "a.nii.gz"], channels=("0",), section="test")


def test_a_folder_without_images_is_an_error_for_several_channels_too(tmp_path):
    touch(tmp_path / "notes.txt")
    with pytest.raises(UsageError, match="No image is found"):
        find_case_inputs([tmp_path], channels=PAIR)
