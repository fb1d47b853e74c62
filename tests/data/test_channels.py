"""Named images as channels."""

from __future__ import annotations

import pytest

from medimg3d.data.channels import folder_and_file, with_channel_list


def test_named_images_become_a_list_in_the_order_of_the_names():
    case = {"id": "a", "images": {"pet": "a/pet.nii", "ct": "a/ct.nii"}}
    listed = with_channel_list([case], names=["ct", "pet"], base_dir="/data")
    assert listed == [{"id": "a", "image": ["/data/a/ct.nii", "/data/a/pet.nii"]}]


def test_a_case_that_has_a_list_already_is_left():
    case = {"image": ["/x/ct.nii", "/x/pet.nii"]}
    assert with_channel_list([case], names=["ct", "pet"], base_dir="/data") == [case]


def test_a_missing_image_is_named():
    with pytest.raises(ValueError, match="Case a has no image pet"):
        with_channel_list([{"id": "a", "images": {"ct": "ct.nii"}}], names=["ct", "pet"], base_dir="/data")


def test_a_result_is_named_by_folder_and_file_of_the_first_channel():
    named = folder_and_file({"filename_or_obj": "/data/cases/STS_001/ct.nii.gz"}, None)
    assert named == {"subject": "STS_001_ct.nii.gz", "idx": None}
