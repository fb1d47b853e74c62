"""What the model card tells to type."""

from __future__ import annotations

from dataclasses import replace

import pytest
from facts import channel, facts, of_classes

from medimg3d.data.datalist import Datalist
from medimg3d.planning.pages import card, plan_page
from medimg3d.planning.planner import draft_plan, finish_plan
from medimg3d.planning.settings import PlanSettings
from medimg3d.planning.trial import LOADING_GB, RUNNING_GB


def planned(data, **settings):
    return finish_plan(draft_plan(data, Datalist(), PlanSettings(**settings)))


@pytest.mark.parametrize("data", [facts(), of_classes()])
def test_inference_of_one_channel_looks_into_a_folder_of_images(data):
    assert "inference.json --bundle_root BUNDLE --dataset_dir IMAGES " in card(planned(data), "made_up")


def test_inference_of_several_channels_reads_the_datalist():
    two = facts(channels=(channel("ct"), channel("pet")))
    assert "inference.json --bundle_root BUNDLE --dataset_dir DATA " in card(planned(two), "made_up")


def test_the_way_back_onto_the_files_own_voxels_is_told_where_it_takes_more():
    assert "own voxels" not in plan_page(planned(facts()))
    page = plan_page(planned(facts(shapes=((256, 256, 256),) * 10), spacing_mm=(2, 2, 2)))
    assert "bring all classes back onto the files' own voxels: about 1.4 GB" in page


@pytest.mark.parametrize(
    ("settings", "told", "not_told"),
    [
        ({}, f"and {LOADING_GB:g} GB for each of 2 loading processes", "on the GPU"),
        (
            {"num_workers": 0},
            f"{RUNNING_GB:g} GB for the rest of its process, which loads by itself",
            "for each of",
        ),
        ({"device": "cuda"}, "averaged weights, on the GPU.", "loading processes ("),
    ],
)
def test_the_page_tells_what_the_memory_of_a_training_counts(settings, told, not_told):
    record = {"patch": [64, 64, 64], "batch": 2, "width": 16, "train_gb": 2.5, "predict_gb": 1.0}
    page = plan_page(replace(planned(facts(), **settings), measured=(record,)))
    assert told in page
    assert not_told not in page
