"""Ignored voxels are no patch centres and no errors."""

from __future__ import annotations

import torch

from medimg3d.transforms.ignored_voxels import LabelledIndicesd, MaskIgnoredd


def test_centres_are_labelled_voxels_only():
    item = LabelledIndicesd("label", 255)({"label": torch.tensor([[[0, 1], [255, 2]]], dtype=torch.uint8)})
    assert item["label_fg_indices"].tolist() == [1, 3]
    assert item["label_bg_indices"].tolist() == [0]


def test_a_prediction_is_blank_where_nobody_labelled():
    item = {"pred": torch.ones(2, 1, 2), "label": torch.tensor([[[1, 255]]])}
    masked = MaskIgnoredd("pred", 255)(item)
    assert masked["pred"].tolist() == [[[1, 0]], [[1, 0]]]
    assert masked["label"].tolist() == [[[1, 0]]]
