"""Images of unknown voxel size: which are brought to the scale of the others."""

from __future__ import annotations

import pytest
from facts import channel, facts

from medimg3d.data.datalist import Datalist
from medimg3d.errors import UsageError
from medimg3d.planning.field_of_view import FieldOfView, decide_field_of_view
from medimg3d.planning.planner import draft_plan
from medimg3d.planning.preprocessing import label_preprocessing_block, preprocessing_block
from medimg3d.planning.settings import PlanSettings

OPEN = PlanSettings()
NAMES = Datalist(labels={0: "background", 1: "liver"})


def unknown(*others, usual=(100, 120, 10)):
    """Twenty volumes, those given among them, whose voxel size nobody knows."""
    shapes = (usual,) * (20 - len(others)) + others
    return facts(num_cases=20, num_patients=20, num_labelled=20, shapes=shapes, spacings_mm=(None,) * 20)


def test_a_few_images_far_from_all_others_are_brought_to_their_edge():
    decision, field = decide_field_of_view(unknown((200, 240, 10)), None, OPEN)
    assert field == FieldOfView(edge=120, axes=(0, 1))
    assert decision.value == "120 voxels"
    assert "1 of 20 images are at least 1.5 times" in decision.reason


def test_many_images_far_from_the_median_keep_their_voxels():
    decision, field = decide_field_of_view(unknown(*((200, 240, 10),) * 3), None, OPEN)
    assert (decision.value, field) == ("as it is", None)
    assert "too many" in decision.reason


def test_the_user_decides_otherwise_and_reads_what_the_rule_says():
    decision, field = decide_field_of_view(unknown(), None, PlanSettings(field_of_view="own"))
    assert field is None
    assert decision.reason.startswith("As asked for; by the rule 120 voxels:")
    many = unknown(*((200, 240, 10),) * 3)
    assert decide_field_of_view(many, None, PlanSettings(field_of_view="common"))[1].edge == 120


@pytest.mark.parametrize(("usual", "axes"), [((60, 60, 50), (0, 1, 2)), ((8, 60, 60), (1, 2))])
def test_the_slices_of_a_stack_are_not_resampled(usual, axes):
    assert decide_field_of_view(unknown(usual=usual), None, OPEN)[1].axes == axes


@pytest.mark.parametrize(
    "data", [facts(), unknown().__class__(**(unknown().__dict__ | {"channels": (channel(is_picture=True),)}))]
)
def test_known_voxels_and_pictures_have_no_such_decision(data):
    assert decide_field_of_view(data, None, OPEN) == (None, None)
    with pytest.raises(
        UsageError, match="field_of_view is common, which is for volumes of unknown voxel size"
    ):
        decide_field_of_view(data, None, PlanSettings(field_of_view="common"))


def test_a_plan_brings_image_and_label_map_to_the_same_scale_before_anything_else():
    plan = draft_plan(unknown((200, 240, 10)), NAMES, OPEN)
    image, label = (
        block(plan)["transforms"][3] for block in (preprocessing_block, label_preprocessing_block)
    )
    assert image == {
        "_target_": "PACKAGE.field_of_view.CommonFieldOfViewd",
        "keys": "image",
        "edge": 120,
        "axes": [0, 1],
        "mode": "bilinear",
    }
    assert label == {**image, "keys": "label", "mode": "nearest"}
    assert [one.name for one in plan.decisions].count("field of view") == 1
