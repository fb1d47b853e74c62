"""Classes, regions and ignored values."""

from __future__ import annotations

import pytest

from medimg3d.data.datalist import Datalist
from medimg3d.errors import DataError
from medimg3d.planning.label_scheme import LabelScheme, ignored_value, names_a_side, read_label_scheme

PARTS = {0: "background", 1: "oedema", 2: "core"}


def test_regions_come_the_larger_first_and_are_outputs_of_their_own():
    scheme = read_label_scheme(Datalist(extra={"regions": {"core": [2], "whole": [1, 2]}}), PARTS)
    assert scheme.output_names == ["whole", "core"]
    assert scheme.regions == {"whole": (1, 2), "core": (2,)}
    assert scheme.map_names == {0: "background", 1: "whole", 2: "core"}


def test_an_ignored_value_is_no_class():
    scheme = read_label_scheme(Datalist(extra={"ignore_label": 255}), {**PARTS, 255: "label 255"})
    assert scheme.ignore_label == 255
    assert scheme.output_names == ["background", "oedema", "core"]


def test_more_structures_than_8_bits_can_number_are_refused():
    names = {value: f"structure {value}" for value in range(257)}
    with pytest.raises(DataError, match="hold 257 values; expected at most 256"):
        read_label_scheme(Datalist(), names)
    del names[256]
    assert len(read_label_scheme(Datalist(), names).labels) == 256


def test_a_label_named_ignore_is_ignored():
    assert ignored_value(Datalist(labels={0: "background", 1: "liver", 2: "ignore"})) == 2


@pytest.mark.parametrize(
    "name", ["left_kidney", "left-kidney", "kidney (left)", "LeftLung", "lung_L", "lh-hippocampus", "Lung R"]
)
def test_a_name_with_a_side_is_known(name):
    assert names_a_side(["background", name])


@pytest.mark.parametrize("name", ["liver", "vertebra_L1", "vertebra L5", "cleft", "LV", "bright spot", "R2"])
def test_a_name_without_a_side_is_none(name):
    assert not names_a_side(["background", name])


def test_a_region_may_name_the_side():
    assert LabelScheme({0: "background", 1: "a", 2: "b"}, {"both": (1, 2), "right half": (2,)}).names_a_side


def test_gaps_are_refused():
    with pytest.raises(DataError, match=r"hold the values \[0, 1, 4\]; expected 0, 1, 2"):
        read_label_scheme(Datalist(), {0: "background", 1: "a", 4: "b"})


def test_a_region_of_an_unknown_value_is_refused():
    with pytest.raises(DataError, match=r'"regions" name the values \[7\]'):
        read_label_scheme(Datalist(extra={"regions": {"whole": [1, 7]}}), PARTS)


@pytest.mark.parametrize("values", [["a", "b"], "12", [1.5, 2], [], 1])
def test_regions_that_are_no_lists_of_values_are_refused(values):
    with pytest.raises(DataError, match=r'"regions" has .* for whole; expected whole numbers from 1'):
        read_label_scheme(Datalist(extra={"regions": {"whole": values}}), PARTS)


def test_background_alone_is_refused():
    with pytest.raises(DataError, match="name no structure"):
        read_label_scheme(Datalist(), {0: "background"})


@pytest.mark.parametrize("value", [0, 256, 1000, True, "255"])
def test_an_ignored_value_that_8_bits_cannot_hold_is_refused(value):
    with pytest.raises(
        DataError, match=f'"ignore_label" is {value!r}; expected a whole number from 1 to 255'
    ):
        ignored_value(Datalist(extra={"ignore_label": value}))


def test_a_label_named_ignore_is_refused_above_255_too():
    with pytest.raises(DataError, match='The label named "ignore" is 256; expected'):
        ignored_value(Datalist(labels={0: "background", 1: "liver", 256: "ignore"}))
    assert ignored_value(Datalist(labels={0: "background", 1: "liver", 255: "ignore"})) == 255
