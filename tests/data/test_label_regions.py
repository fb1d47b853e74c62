"""Overlapping regions: their order, what a label map of them holds, and what it loses."""

import json

import numpy as np
import pytest

from medimg3d.data.label_regions import LabelRegions, mask_folder, read_regions
from medimg3d.errors import DataError, UsageError

NESTED = {"core": [1, 4], "whole": [1, 2, 4], "enhancing": [4]}
CROSSING = {"left": [1, 2], "right": [2, 3]}


def test_the_region_of_most_values_comes_first():
    assert LabelRegions.of(NESTED).names == {1: "whole", 2: "core", 3: "enhancing"}


def test_a_region_holds_its_own_number_and_those_of_regions_nested_in_it():
    regions = LabelRegions.of(NESTED)
    assert [regions.within(number) for number in (1, 2, 3)] == [(1, 2, 3), (2, 3), (3,)]
    assert regions.lossy == []


def test_regions_that_overlap_without_being_nested_are_lossy_and_apart_ones_are_not():
    crossing = LabelRegions.of(CROSSING)
    assert crossing.lossy == [("left", "right")]
    assert [crossing.within(number) for number in (1, 2)] == [(1,), (2,)]
    assert LabelRegions.of({"a": [1], "b": [2]}).lossy == []


def test_the_last_region_wins_in_a_label_map():
    labels = np.array([0, 1, 2, 3, 4])
    np.testing.assert_array_equal(LabelRegions.of(NESTED).as_map(labels), [0, 2, 1, 0, 3])


def test_nothing_is_no_regions():
    assert LabelRegions.of(None) is None
    assert LabelRegions.of({}) is None


@pytest.mark.parametrize("found", [[1], {"a": 1}, {"a": []}, {"a": [0]}, {"a": ["1"]}, {"a": "12"}])
def test_what_is_no_object_of_lists_of_values_is_refused(found):
    with pytest.raises(DataError, match='"regions"'):
        LabelRegions.of(found)


def test_regions_are_read_from_json_and_from_a_datalist(tmp_path):
    (tmp_path / "list.json").write_text(json.dumps({"regions": NESTED, "training": []}))
    assert read_regions(json.dumps(NESTED)) == read_regions(str(tmp_path / "list.json"))


@pytest.mark.parametrize("text", ["{broken", "no/such/file.json", "{}"])
def test_a_flag_that_names_no_regions_is_refused(text):
    with pytest.raises(UsageError, match="--regions"):
        read_regions(text)


def test_the_folder_of_a_regions_masks_holds_no_odd_character():
    assert mask_folder(2, "whole tumour/core") == "regions/2_whole_tumour_core"
