"""Datalists that can be planned from and not trained from are refused, with the line to write."""

from __future__ import annotations

from pathlib import Path

import pytest
from facts import channel, facts, of_classes

from medimg3d.data.datalist import Case, Datalist
from medimg3d.errors import DataError
from medimg3d.planning.planner import draft_plan
from medimg3d.planning.settings import PlanSettings
from medimg3d.planning.trainable import refuse_untrainable


def refuse(data, datalist):
    refuse_untrainable(draft_plan(data, datalist, PlanSettings()), datalist)


def of_labels(*labels):
    """A datalist with a film for each class label, and no names."""
    return Datalist(
        training=tuple(Case(Path(f"{n}.png"), class_label=label) for n, label in enumerate(labels))
    )


def test_label_values_without_a_name_are_refused_with_the_line_to_write():
    line = r'has no name for 0, 1; .* Write "labels": {"0": "background", "1": "liver"} into it'
    with pytest.raises(DataError, match=line):
        refuse(facts(), Datalist())
    with pytest.raises(DataError, match="has no name for 0;"):
        refuse(facts(), Datalist(labels={1: "liver"}))
    refuse(facts(), Datalist(labels={0: "background", 1: "liver"}))


def test_an_ignored_value_needs_no_name():
    data = facts(labels={0: "background", 1: "liver", 255: "label 255"})
    refuse(data, Datalist(labels={0: "background", 1: "liver"}, extra={"ignore_label": 255}))


@pytest.mark.parametrize(
    ("labels", "line"),
    [
        (("well", "ill", "well"), '"classes": ["ill", "well"] into it'),
        ((0, 2, 10), '"classes": ["class 0", "class 1", "class 2", '),
    ],
)
def test_classes_without_names_are_refused_with_the_line_to_write(labels, line):
    with pytest.raises(DataError, match='The datalist has no "classes"; expected') as caught:
        refuse(of_classes(), of_labels(*labels))
    assert line in str(caught.value)


def test_a_class_without_a_training_case_is_refused():
    data = of_classes(classes=("well", "ill", "odd"), class_counts={"well": 4, "ill": 8, "odd": 0})
    with pytest.raises(DataError, match='Class "odd" has no training case'):
        refuse(data, Datalist(classes=("well", "ill", "odd")))
    refuse(of_classes(), Datalist(classes=("well", "ill")))


@pytest.mark.parametrize(
    ("names", "named", "found"),
    [
        (("ct", "pet"), True, r'have 2 channels under "images" \(ct, pet\); expected one'),
        (("image 1", "image 2"), False, r"have 2 channels \(image 1, image 2\); expected one"),
        (("ct",), True, r'have 1 channel under "images" \(ct\); expected one'),
    ],
)
def test_several_channels_and_named_images_are_refused_for_classes(names, named, found):
    data = of_classes(channels=tuple(map(channel, names)), named=named)
    with pytest.raises(DataError, match=found):
        draft_plan(data, Datalist(), PlanSettings())
    assert draft_plan(facts(channels=data.channels, named=named), Datalist(), PlanSettings())
