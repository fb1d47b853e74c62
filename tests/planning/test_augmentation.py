"""The random transforms of a plan, each made certain, on patches of every shape that a network gets."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from facts import facts
from monai.bundle import ConfigParser
from monai.transforms import Compose
from monai.utils import set_determinism

from medimg3d.data.datalist import Datalist
from medimg3d.planning.augmentation import segmentation_transforms
from medimg3d.planning.planner import draft_plan
from medimg3d.planning.settings import PlanSettings

SHAPES = {"3d": (48, 40, 32), "2d": (48, 40, 10)}


@pytest.mark.parametrize("dimension", SHAPES)
def test_every_random_transform_changes_a_patch_and_keeps_its_shape(dimension):
    """In the dimension of the network; a probability below 1 would hide a transform that cannot do it."""
    shape = SHAPES[dimension]
    plan = draft_plan(
        facts(shapes=(shape,) * 10), Datalist(), PlanSettings(dimension=dimension, mirror_axes=(0, 1))
    )
    size = tuple(plan.patch_size) if plan.slice_axis is None else tuple(shape[: plan.network_axes])
    random = [block for block in segmentation_transforms(plan) if "prob" in block]
    assert any(block["_target_"] == "RandSimulateLowResolutiond" for block in random)
    label = np.zeros((1, *size), np.uint8)
    label[0, 5:15, 8:18] = 1
    for block in random:
        set_determinism(0)
        patch = {
            "image": torch.from_numpy(np.random.default_rng(0).random((1, *size), np.float32)),
            "label": torch.from_numpy(label),
        }
        parser = ConfigParser({"patch_size": list(size), "block": block | {"prob": 1.0}})
        changed = Compose([parser.get_parsed_content("block")])(patch)
        assert changed["image"].shape == patch["image"].shape, block["_target_"]
        assert not torch.equal(torch.as_tensor(changed["image"]), patch["image"]), block["_target_"]
        assert set(np.unique(changed["label"])) <= {0, 1}
