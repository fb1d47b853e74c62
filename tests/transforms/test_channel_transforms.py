"""Each channel has its own transform."""

from __future__ import annotations

import pytest
import torch
from monai.transforms import NormalizeIntensity, ScaleIntensityRange

from medimg3d.transforms.channel_transforms import ChannelTransformsd


def test_each_channel_is_scaled_by_its_own_transform():
    clip = ScaleIntensityRange(0, 10, 0, 10, clip=True)
    image = torch.tensor([[-5.0, 20.0], [1.0, 3.0]])[:, None]
    result = ChannelTransformsd("image", [clip, NormalizeIntensity()])({"image": image})["image"]
    assert result.tolist() == [[[0.0, 10.0]], [[-1.0, 1.0]]]


def test_another_number_of_channels_is_refused():
    with pytest.raises(ValueError, match="image has 2 channels; expected 1"):
        ChannelTransformsd("image", [NormalizeIntensity()])({"image": torch.zeros(2, 3)})
