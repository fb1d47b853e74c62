"""Label values with a gap: where they are, and what is to be done about them."""

from __future__ import annotations

import pytest

from medimg3d.planning.label_scheme import LabelGapError


def test_the_values_after_the_first_missing_one_are_stray():
    error = LabelGapError([0, 1, 3, 7])
    assert (error.free, error.stray) == (2, [3, 7])


def test_the_cases_of_a_stray_value_are_named_up_to_three():
    error = LabelGapError([0, 1, 2, 7, 9], {7: ["a"], 9: ["b", "c", "d", "e", "f"]})
    assert "After the gap: 7 is in 1 case (a); 9 is in 5 cases (b, c, d and 2 more)." in str(error)


def test_a_value_that_only_the_datalist_names_is_said_to_be_in_no_case():
    assert '7 is named in "labels" and in no training case' in str(LabelGapError([0, 1, 7], {7: []}))


@pytest.mark.parametrize(
    "cure",
    [
        'take the value out of "labels"',
        "renumber from 2 on",
        "a name alone does not help",
        '"ignore_label": 7',
    ],
)
def test_the_cure_does_not_end_with_naming_the_value(cure):
    assert cure in str(LabelGapError([0, 1, 7]))
