import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, Orientationd, Resized, SpatialPadd
from phantoms import affine, write_nifti

from medimg3d.errors import BundleError
from medimg3d.explain.input_grid import on_input_grid


def ramp(shape) -> np.ndarray:
    return np.linspace(0, 1, shape[0], dtype=np.float32)[:, None, None] * np.ones(shape, np.float32)


@pytest.mark.parametrize("mode", ["area", "trilinear", "nearest"])
def test_a_map_is_enlarged_turned_back_and_keeps_its_hot_end(tmp_path, mode):
    """Stored with I running to the left: the bundle turns it to RAS, and the heat's hot end must turn back."""
    path = write_nifti(tmp_path / "a.nii.gz", ramp((12, 10, 8)), np.diag([-1.0, 1, 1, 1]) @ affine())
    steps = Compose(
        [
            LoadImaged("image"),
            EnsureChannelFirstd("image"),
            Orientationd("image", axcodes="RAS", labels=None),
            Resized("image", (6, 5, 4), mode=mode),
        ]
    )
    image = steps({"image": str(path)})["image"]
    back = on_input_grid(image[0].numpy(), image, steps)
    assert back.shape == (12, 10, 8)
    assert back.dtype == np.float32
    assert np.abs(back - ramp((12, 10, 8))).max() < 0.1
    assert back.max() <= image.max()


def test_area_resizing_does_not_give_a_map_of_blocks(tmp_path):
    path = write_nifti(tmp_path / "a.nii.gz", ramp((12, 10, 8)))
    steps = Compose(
        [LoadImaged("image"), EnsureChannelFirstd("image"), Resized("image", (6, 5, 4), mode="area")]
    )
    image = steps({"image": str(path)})["image"]
    line = on_input_grid(image[0].numpy(), image, steps)[:, 4, 4]
    assert (np.diff(line)[1:-1] > 0.01).all()  # blocks would have steps of 0


def test_padding_is_cut_off_again(tmp_path):
    path = write_nifti(tmp_path / "a.nii.gz", ramp((12, 10, 8)))
    steps = Compose([LoadImaged("image"), EnsureChannelFirstd("image"), SpatialPadd("image", (16, 16, 16))])
    image = steps({"image": str(path)})["image"]
    np.testing.assert_allclose(on_input_grid(image[0].numpy(), image, steps), ramp((12, 10, 8)), atol=1e-6)


def test_an_image_without_a_record_and_steps_that_cannot_be_undone_are_refused():
    heat = np.zeros((4, 4), np.float32)
    with pytest.raises(BundleError, match="gives no MetaTensor"):
        on_input_grid(heat, torch.zeros(1, 4, 4), Compose([]))
    with pytest.raises(BundleError, match="cannot be undone"):
        on_input_grid(heat, MetaTensor(torch.zeros(1, 4, 4)), lambda data: data)
