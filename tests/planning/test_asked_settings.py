"""Settings that would change nothing are refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest
from facts import channel, facts, of_classes

from medimg3d.data.datalist import Datalist
from medimg3d.errors import UsageError
from medimg3d.planning.planner import draft_plan
from medimg3d.planning.settings import PlanSettings, read_settings, with_values

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
PICTURES = facts(
    num_axes=2,
    channels=(channel(is_picture=True),),
    shapes=((100, 80),) * 10,
    spacings_mm=(None,) * 10,
)
VOLUMES = of_classes(
    num_axes=3,
    channels=(channel(),),
    shapes=((64, 64, 64),) * 12,
    spacings_mm=((1.0, 1.0, 1.0),) * 12,
)


def planned(data, **settings):
    return draft_plan(data, Datalist(), PlanSettings(**settings))


@pytest.mark.parametrize(
    ("settings", "shown"),
    [
        ({"spacing_mm": (1, 1)}, "--spacing"),
        ({"patch_size": (64, 64)}, "--patch"),
        ({"finder": "yes"}, "--finder"),
        ({"finder_margin_mm": 4.0}, "finder_margin_mm"),
        ({"loss": "dice_focal"}, "loss"),
        ({"foreground_share": 0.5}, "foreground_share"),
        ({"max_poolings": 3}, "max_poolings"),
        ({"window_overlap": 0.25}, "window_overlap"),
        ({"windows_per_batch": 2}, "windows_per_batch"),
        ({"deep_supervision": False}, "deep_supervision"),
    ],
)
def test_settings_of_a_segmentation_are_refused_for_classes(settings, shown):
    (name,) = settings
    found = rf"^{shown} is for label maps, .* classification\. Leave it away .*--set {name}=null\)\.$"
    with pytest.raises(UsageError, match=found):
        planned(of_classes(), **settings)


def test_several_are_named_in_one_line():
    with pytest.raises(UsageError, match=r"--patch, loss are for label maps, .* Leave them away") as caught:
        planned(of_classes(), loss="dice_focal", patch_size=(64, 64))
    assert "--set patch_size=null --set loss=null" in str(caught.value)


def test_an_image_size_is_refused_for_label_maps():
    with pytest.raises(UsageError, match="--image-size is for classification, and the task is segmentation"):
        planned(facts(), image_size=(64, 64, 64))


def test_a_voxel_size_is_refused_for_pictures():
    with pytest.raises(UsageError, match="--spacing is for volumes, and pictures are taken pixel by pixel"):
        planned(PICTURES, spacing_mm=(1, 1))


def test_a_width_is_refused_for_classes_in_2d_alone():
    with pytest.raises(UsageError, match="width is for volumes"):
        planned(of_classes(), width=48)
    assert planned(VOLUMES, width=48).width == 48


def test_what_is_so_anyway_is_not_refused():
    as_decided = {"width": 32, "windows_per_batch": 4, "finder": "no", "loss": "dice_ce"}
    assert planned(of_classes(), **as_decided).task == "classification"


@pytest.mark.parametrize("data", [of_classes(), VOLUMES, facts(), PICTURES])
def test_a_copy_of_the_defaults_is_not_refused(data):
    settings = with_values(PlanSettings(), read_settings(CONFIGS / "plan.yaml"))
    assert draft_plan(data, Datalist(), settings)
