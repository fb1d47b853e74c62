import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import RemoveSmallObjectsd

from medimg3d.transforms.small_components import RemoveSmallComponentsd


def islands() -> np.ndarray:
    """Label 1: islands of 3 and 1 voxels; label 2: of 2 voxels; one voxel of 2 touches one of 1."""
    labels = np.zeros((1, 8, 6, 5), np.uint8)
    labels[0, 0:3, 0, 0] = 1
    labels[0, 6, 4, 4] = 1
    labels[0, 5, 1, 1:3] = 2
    return labels


def test_islands_of_the_label_below_the_volume_vanish():
    cleaned = RemoveSmallComponentsd("pred", label=1, min_volume=2)({"pred": torch.from_numpy(islands())})[
        "pred"
    ]
    expected = islands()
    expected[0, 6, 4, 4] = 0
    np.testing.assert_array_equal(cleaned, expected)
    assert cleaned.dtype == torch.uint8


def test_the_volume_is_in_mm3_where_the_voxel_size_is_known():
    image = MetaTensor(torch.from_numpy(islands()), affine=torch.diag(torch.tensor([2.0, 2.0, 1.0, 1.0])))
    cleaned = RemoveSmallComponentsd("pred", label=1, min_volume=12)({"pred": image})["pred"]
    assert int((cleaned == 1).sum()) == 3  # 12 mm³ stay, 4 mm³ do not
    assert isinstance(cleaned, MetaTensor)
    torch.testing.assert_close(cleaned.affine, image.affine)
    larger = RemoveSmallComponentsd("pred", label=1, min_volume=12.1)({"pred": image})["pred"]
    assert int((larger == 1).sum()) == 0
    assert int((larger == 2).sum()) == 2


def test_voxels_that_touch_at_a_corner_are_one_island():
    labels = torch.zeros((1, 3, 3, 3))
    labels[0, 0, 0, 0] = labels[0, 1, 1, 1] = 1
    cleaned = RemoveSmallComponentsd("pred", label=1, min_volume=2)({"pred": labels})["pred"]
    assert torch.equal(cleaned, labels)


def test_the_input_stays_as_it_is():
    labels = torch.from_numpy(islands())
    RemoveSmallComponentsd("pred", label=1, min_volume=100)({"pred": labels})
    np.testing.assert_array_equal(labels, islands())


def test_a_flat_map_is_cleaned_too():
    labels = torch.zeros((1, 4, 4))
    labels[0, 0, 0] = 1
    assert not RemoveSmallComponentsd("pred", label=1, min_volume=2)({"pred": labels})["pred"].any()


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_monais_own_transform_takes_a_label_for_one_object():
    """The reason why this one exists: the single voxel of label 1 stays."""
    cleaned = RemoveSmallObjectsd("pred", min_size=2)({"pred": torch.from_numpy(islands())})["pred"]
    assert int((cleaned == 1).sum()) == 4


@pytest.mark.parametrize(("label", "min_volume"), [(0, 5), (1, 0), (1, float("nan"))])
def test_the_background_and_no_volume_are_refused(label, min_volume):
    with pytest.raises(ValueError, match="label must be at least 1 and min_volume above 0"):
        RemoveSmallComponentsd("pred", label=label, min_volume=min_volume)
