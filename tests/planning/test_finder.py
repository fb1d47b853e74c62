"""When a region finder is planned, what it is, and what it changes in the plan."""

from __future__ import annotations

import json
from dataclasses import replace
from math import prod

import numpy as np
import pytest
from facts import facts, of_classes

from medimg3d.data.datalist import Datalist
from medimg3d.errors import UsageError
from medimg3d.planning.estimate import count_numbers
from medimg3d.planning.finder import Finder, coarse_voxel, plan_finder, region_shares
from medimg3d.planning.finder_configs import finder_plan
from medimg3d.planning.fit import network_of
from medimg3d.planning.planner import choose_finder, draft_plan, finish_plan, may_have_finder
from medimg3d.planning.segmentation_configs import segmentation_configs
from medimg3d.planning.settings import PlanSettings

SMALL_BOX = ((60, 90), (60, 80), (70, 100))
"""30 x 20 x 30 voxels."""

LARGE = {"shapes": ((160, 160, 160),) * 10, "boxes": (SMALL_BOX,) * 10}


def draft(*, data=None, **settings):
    return draft_plan(data or facts(**LARGE), Datalist(), PlanSettings(**settings))


def chosen(*, data=None, fits=lambda _: True, **settings):
    plan = draft(data=data, **settings)
    return choose_finder(plan, plan, fits=fits)


def reason_of(plan):
    return next(one for one in plan.decisions if one.name == "region finder")


def test_a_volume_of_many_patches_with_small_structures_gets_a_finder():
    plan = chosen()
    assert isinstance(plan.finder, Finder)
    assert reason_of(plan).value == "yes"
    assert "4.63 times the patch" in reason_of(plan).reason


def test_the_patch_is_that_of_the_regions():
    plan = chosen()
    assert prod(plan.patch_size) < prod(draft().patch_size)
    assert plan.shapes.max() <= 30 + 2 * 11  # a margin of two coarse voxels of about 5 mm
    assert "median region" in next(one for one in plan.decisions if one.name == "patch").reason


def test_a_volume_of_few_patches_gets_none():
    data = facts(shapes=((100, 100, 100),) * 10, boxes=(((10, 20),) * 3,) * 10)
    plan = chosen(data=data)
    assert plan.finder is None
    assert reason_of(plan).value == "no"


def test_structures_that_fill_the_image_get_none():
    data = facts(shapes=((160, 160, 160),) * 10, boxes=(((5, 150),) * 3,) * 10)
    assert not may_have_finder(draft(data=data))
    assert chosen(data=data).finder is None


@pytest.mark.parametrize(("large", "expected"), [(2, True), (3, False)])
def test_three_quarters_of_the_cases_must_have_a_small_region(large, expected):
    boxes = (((5, 150),) * 3,) * large + (SMALL_BOX,) * (10 - large)
    data = facts(shapes=((160, 160, 160),) * 10, boxes=boxes)
    assert (chosen(data=data).finder is not None) == expected


def test_a_case_without_a_label_counts_as_a_whole_image():
    data = facts(**LARGE | {"boxes": (SMALL_BOX, None) * 5})
    assert region_shares(data, (0.0, 0.0, 0.0)).tolist() == [18_000 / 160**3, 1.0] * 5


def test_the_share_of_a_region_counts_its_margin_within_the_image():
    data = facts(shapes=((10, 10, 10),), spacings_mm=((2.0, 1.0, 1.0),), boxes=(((4, 6), (0, 1), (5, 10)),))
    assert region_shares(data, (2.0, 2.0, 2.0)).tolist() == [4 * 3 * 7 / 1000]


def test_what_is_asked_for_is_done():
    small = facts(boxes=(((10, 20),) * 3,) * 10)
    assert chosen(data=small, finder="yes").finder is not None
    assert chosen(finder="no").finder is None
    assert reason_of(chosen(finder="no")).reason.startswith(
        "As asked for; by the rule yes: An image is 4.63 times"
    )
    asked = reason_of(chosen(data=small, finder="yes")).reason
    assert asked.startswith("As asked for; by the rule no: ")
    assert "A small network at" in asked
    assert reason_of(chosen(finder="yes")) == reason_of(chosen())


def test_by_slices_nothing_is_said_of_what_fits():
    reason = reason_of(chosen(dimension="2d", patch_size=(64, 64))).reason
    assert reason.endswith("The network goes slice by slice; the rule is for those that see volumes.")


def test_yes_and_no_of_yaml_are_words():
    assert (PlanSettings(finder=True).finder, PlanSettings(finder=False).finder) == ("yes", "no")


def test_films_and_classes_have_no_finder():
    flat = facts(num_axes=2, shapes=((100, 80),) * 10, spacings_mm=((1.0, 1.0),) * 10)
    assert chosen(data=of_classes()).finder is None
    with pytest.raises(UsageError, match="--finder is for label maps, and the task is classification"):
        chosen(data=of_classes(), finder="yes")
    with pytest.raises(UsageError, match="volumes with label maps"):
        chosen(data=flat, finder="yes")


def test_a_network_that_goes_by_slices_gets_a_finder_only_when_asked():
    assert chosen(dimension="2d").finder is None
    assert chosen(dimension="2d", finder="yes").finder is not None


def test_the_coarse_voxels_are_cubes_that_keep_thick_slices():
    assert coarse_voxel((400, 400, 400), (1, 1, 1), most_voxels=40**3) == pytest.approx(
        (10, 10, 10), rel=1e-3
    )
    assert coarse_voxel((320, 320, 400), (1, 1, 10), most_voxels=40 * 32 * 32) == pytest.approx(
        (10, 10, 10), rel=1e-3
    )
    thick = coarse_voxel((320, 320, 400), (1, 1, 20), most_voxels=20 * 64 * 64)
    assert thick == pytest.approx((5, 5, 20), rel=1e-3)


def test_the_median_image_fits_one_patch_of_the_finder():
    finder = chosen().finder
    cells = np.ceil(np.array([160, 160, 160]) / np.array(finder.voxel_mm) - 0.5)
    assert (cells <= finder.topology.patch).all()
    assert prod(finder.topology.patch) < 1.5 * 64**3


def test_a_finder_that_does_not_fit_becomes_coarser():
    coarse = chosen(fits=lambda plan: prod(plan.finder.topology.patch) < 40_000).finder
    assert coarse.voxel_mm[0] > chosen().finder.voxel_mm[0]


def test_the_margin_is_10_mm_or_two_coarse_voxels():
    finder = chosen().finder
    assert finder.margin_mm == tuple(max(10.0, round(2 * size, 3)) for size in finder.voxel_mm)
    assert chosen(finder_margin_mm=4.0).finder.margin_mm == (4.0, 4.0, 4.0)
    assert max(chosen(finder_margin_mm=1.0).finder.jitter_mm) == 1.0


def test_unknown_voxels_count_as_1_mm():
    data = facts(**LARGE | {"spacings_mm": (None,) * 10})
    assert chosen(data=data).finder.voxel_mm == chosen().finder.voxel_mm


@pytest.mark.parametrize("shape", [(28, 28, 28), (10, 40, 40), (6, 6, 6), (3, 200, 200)])
def test_the_finder_of_small_volumes_has_three_levels_too(shape):
    data = facts(shapes=(shape,) * 10, boxes=(tuple((0, size // 2) for size in shape),) * 10)
    plan = draft(data=data, finder="yes")
    finder = choose_finder(plan, plan, fits=lambda _: True).finder
    assert finder.topology.num_levels >= 3
    whole = finder_plan(replace(plan, finder=finder))
    assert count_numbers(network_of(whole), (2, 1, *finder.topology.patch), num_classes=2)


def test_a_finder_that_nobody_wants_is_not_tried():
    plan = draft(finder="no")
    tried = []
    assert choose_finder(plan, plan, fits=tried.append).finder is None
    assert tried == []


def test_a_finder_is_never_finer_than_half_the_resolution():
    data = facts(shapes=((40, 40, 40),) * 10)
    finder = plan_finder(data, device="cpu", num_training=8, most_voxels=64**3, margin_mm=None, epochs=None)
    assert finder.voxel_mm == pytest.approx((2.0, 2.0, 2.0), rel=1e-3)


def configs(**settings):
    return segmentation_configs(finish_plan(chosen(**settings)))


def test_only_a_plan_with_a_finder_has_its_config():
    assert "train_finder" in configs()
    assert "train_finder" not in configs(finder="no")
    assert "found_region" not in json.dumps(configs(finder="no"))


def test_training_and_inference_share_the_finder_and_the_preprocessing():
    made = configs()
    for block in ("finder_preprocessing", "finder_network_def", "finder_inferer", "region", "preprocessing"):
        assert made["evaluate"][block] == made["inference"][block]
    assert made["train"]["preprocessing"] == made["inference"]["preprocessing"]
    assert made["train_finder"]["finder_preprocessing"] == made["inference"]["finder_preprocessing"]
    assert made["train_finder"]["network_def"] == made["inference"]["finder_network_def"]
    assert made["train_finder"]["inferer"] == made["inference"]["finder_inferer"]


def test_the_fine_network_learns_from_regions_with_the_margin_of_prediction():
    made = configs()
    assert made["train"]["region"]["_target_"].endswith("ReferenceRegion")
    assert made["inference"]["region"]["_target_"].endswith("FoundRegion")
    assert made["train"]["region"]["margin_mm"] == made["inference"]["region"]["margin_mm"]
    steps = made["train"]["train"]["deterministic_transforms"]["transforms"]
    assert steps[:3] == ["@label_loading", "@preprocessing", "@label_preprocessing"]


def test_the_finder_tells_two_classes_apart_whatever_the_data_have():
    text = json.dumps(configs()["train_finder"])
    assert "@num_classes" not in text
    assert '"out_channels": 2' in text
    assert '"final_filename": "finder.pt"' in text


def test_the_finder_ignores_what_the_data_ignore():
    data = facts(**LARGE | {"labels": {0: "background", 1: "liver", 255: "label 255"}})
    plan = draft_plan(data, Datalist(extra={"ignore_label": 255}), PlanSettings())
    made = segmentation_configs(finish_plan(choose_finder(plan, plan, fits=lambda _: True)))
    assert json.dumps(made["train_finder"]).count('"ignore_label": 255') >= 3
    assert made["train"]["region"]["ignore_label"] == 255


def test_the_finder_is_a_plan_of_whole_images():
    plan = finder_plan(chosen())
    assert (plan.finder, plan.network, plan.deep_supervision) == (None, "dynunet", False)
    assert plan.output_names == ["background", "structures"]
