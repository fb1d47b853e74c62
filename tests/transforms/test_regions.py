"""Regions of label maps and back, on maps small enough to see."""

from __future__ import annotations

import torch

from medimg3d.transforms.regions import LabelsToRegionsd, RegionsToLabelsd

REGIONS = [[1, 2], [2]]  # whole, core


def test_a_voxel_belongs_to_every_region_that_has_its_value():
    label = torch.tensor([[[0, 1], [2, 0]]])
    regions = LabelsToRegionsd("label", REGIONS)({"label": label})["label"]
    assert regions.tolist() == [[[0, 1], [1, 0]], [[0, 0], [1, 0]]]


def test_the_last_region_names_the_voxel():
    pred = torch.tensor([[[0.1, 0.9], [0.8, 0.5]], [[0.2, 0.1], [0.7, 0.4]]])
    assert RegionsToLabelsd("pred")({"pred": pred})["pred"].tolist() == [[[0, 1], [2, 1]]]
