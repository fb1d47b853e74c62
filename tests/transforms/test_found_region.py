"""The coarse region finder: large voxels, boxes with margins, and a crop that loses nothing on the way back."""

from __future__ import annotations

import numpy as np
import phantoms
import pytest
import torch
from monai.data import MetaTensor
from monai.inferers import SlidingWindowInferer
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    Invertd,
    LoadImaged,
    Orientationd,
    ScaleIntensityRanged,
    Spacingd,
)
from torch import nn

from medimg3d.transforms.found_region import (
    NOTHING_FOUND,
    Coarsend,
    CropToRegiond,
    FoundRegion,
    ReferenceRegion,
    coarse_shape,
    labelled_box,
    pooled,
    share_inside,
    with_margin,
)

ORIENTATIONS = {
    "straight": phantoms.affine((1.0, 1.0, 1.0)),
    "flipped": np.diag([-1.0, 1.0, -1.0, 1.0])
    + np.array([[0, 0, 0, 40], [0, 0, 0, -7], [0, 0, 0, 3], [0] * 4]),
    "oblique": phantoms.oblique_affine((1.0, 1.0, 1.0)),
    "anisotropic": phantoms.affine((0.8, 0.8, 3.0), (5.0, -3.0, 2.0)),
    "axes exchanged": np.array([[0, 2.0, 0, 1], [0, 0, -1.0, 9], [1.5, 0, 0, 4], [0, 0, 0, 1]]),
}


class Above(nn.Module):
    """Structures where the image is above a level: two outputs, 0 and 10 (x - level)."""

    def __init__(self, level: float = 150.0) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.tensor(level))

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.zeros_like(windows), 10 * (windows - self.level)], dim=1)


def image_of(array, spacing=(1.0, 1.0, 1.0)):
    return MetaTensor(torch.as_tensor(array)[None], affine=torch.from_numpy(phantoms.affine(spacing)))


def finder(folder, voxel_mm=(4.0, 4.0, 4.0), margin_mm=(3.0, 3.0, 3.0), level=150.0, files=1):
    """A finder of bright places, its weights in files."""
    paths = []
    for number in range(files):
        paths.append(str(folder / f"finder_{number}.pt"))
        torch.save({"model": Above(level + number).state_dict()}, paths[-1])
    steps = Compose([Coarsend("image", voxel_mm)])
    window = SlidingWindowInferer((8, 8, 8), 1, 0.5, mode="gaussian")
    return FoundRegion(Above(0.0), paths if files > 1 else paths[0], steps, window, margin_mm)


def ball_files(folder, matrix, seed=3):
    image, label = phantoms.small_ball_phantom(seed)
    paths = {
        "image": phantoms.write_nifti(folder / "image.nii.gz", image, matrix),
        "label": phantoms.write_nifti(folder / "label.nii.gz", label, matrix),
    }
    return {key: str(path) for key, path in paths.items()}, image, label


def test_a_coarse_voxel_is_the_mean_of_the_voxels_that_it_covers():
    image = torch.arange(4.0 * 4 * 4).reshape(1, 4, 4, 4)
    assert pooled(image, (2, 2, 2))[0, 0, 0, 0] == image[0, :2, :2, :2].mean()
    assert torch.equal(pooled(image, (4, 4, 4)), image)


def test_an_axis_of_thick_slices_is_divided():
    image = torch.arange(3.0).reshape(1, 1, 1, 3).expand(1, 2, 2, 3)
    assert pooled(image, (2, 2, 6))[0, 0, 0].tolist() == [0, 0, 1, 1, 2, 2]


def test_pooling_is_that_of_torch_whatever_the_type():
    image = torch.randint(
        0, 200, (2, 9, 7, 11), generator=torch.Generator().manual_seed(0), dtype=torch.int16
    )
    expected = nn.functional.adaptive_avg_pool3d(image.float(), (4, 3, 5))
    assert torch.allclose(pooled(image, (4, 3, 5)), expected, atol=1e-4)


def test_the_number_of_coarse_voxels_is_the_nearest_and_at_least_1():
    assert coarse_shape((100, 50, 3), (1.0, 0.5, 1.0), (4.0, 4.0, 8.0)) == (25, 6, 1)


def test_one_labelled_voxel_is_not_lost_in_a_coarse_label_map():
    label = np.zeros((16, 16, 16), np.uint8)
    label[5, 9, 15] = 2
    coarse = Coarsend("label", (8.0, 8.0, 8.0), labels=True)({"label": image_of(label)})["label"]
    assert np.argwhere(np.asarray(coarse)[0]).tolist() == [[0, 1, 1]]
    assert coarse.max() == 1


def test_a_coarse_voxel_is_ignored_only_where_nobody_labelled_anything():
    label = np.full((8, 4, 4), 255, np.uint8)
    label[:4, 0] = 0
    label[0, 0, 0] = 1
    coarse = Coarsend("label", (2.0, 4.0, 4.0), labels=True, ignore_label=255)({"label": image_of(label)})[
        "label"
    ]
    assert np.asarray(coarse).ravel().tolist() == [1, 0, 255, 255]


def test_the_centre_of_the_first_coarse_voxel_lies_amid_those_that_it_covers():
    coarse = Coarsend("image", (4.0, 4.0, 6.0))(
        {"image": image_of(np.zeros((8, 8, 4), np.float32), (2.0, 2.0, 3.0))}
    )
    assert np.allclose(coarse["image"].affine[:3, 3], [1.0, 1.0, 1.5])
    assert np.allclose(coarse["image"].pixdim, [4.0, 4.0, 6.0])


def test_a_margin_in_mm_is_rounded_up_to_voxels_and_ends_with_the_image():
    box = with_margin(((4, 6), (1, 3), (2, 4)), [(3, 3)] * 3, (1.0, 2.0, 4.0), (20, 20, 4))
    assert box == ((1, 9), (0, 5), (1, 4))


def test_the_labelled_box_and_the_share_inside_a_region():
    label = np.zeros((1, 6, 6, 6), np.uint8)
    label[0, 1:5, 2, 3] = 1
    label[0, 0, 0, 0] = 255
    assert labelled_box(label, ignore_label=255) == ((1, 5), (2, 3), (3, 4))
    assert share_inside(label, ((0, 2), (0, 6), (0, 6)), ignore_label=255) == 0.25
    assert np.isnan(share_inside(np.zeros((1, 2, 2, 2)), ((0, 2),) * 3))
    assert labelled_box(np.zeros((1, 2, 2, 2))) is None


def test_the_reference_region_ends_with_coarse_voxels_and_the_margin():
    label = np.zeros((40, 40, 40), np.uint8)
    label[13:15, 13:15, 13:15] = 1
    region = ReferenceRegion((4.0,) * 3, (3.0,) * 3)
    assert region(image_of(label), {"label": image_of(label)}) == (((9, 19),) * 3, "")


def test_jitter_stays_within_its_bounds_and_is_the_same_each_time():
    region = ReferenceRegion((4.0,) * 3, (6.0,) * 3, (4.0,) * 3)
    boxes = []
    for seed in range(8):
        label = image_of(phantoms.small_ball_phantom(seed)[1])
        sides = ReferenceRegion((4.0,) * 3, (0.0,) * 3)(label, {"label": label})[0]
        box = region(label, {"label": label})[0]
        assert box == region(label, {"label": label})[0]
        margins = [(a - low, high - b) for (a, b), (low, high) in zip(sides, box, strict=True)]
        inside = [(low > 0, high < n) for (low, high), n in zip(box, label.shape[1:], strict=True)]
        kept = [
            m
            for pair, free in zip(margins, inside, strict=True)
            for m, f in zip(pair, free, strict=True)
            if f
        ]
        assert all(2 <= margin <= 10 for margin in kept)
        boxes += kept
    assert len(set(boxes)) > 3


def test_a_jitter_beyond_the_margin_is_refused():
    with pytest.raises(ValueError, match="0 to the margin"):
        ReferenceRegion((4.0,) * 3, (2.0,) * 3, (3.0,) * 3)


def test_an_image_without_a_labelled_voxel_is_kept_whole():
    label = image_of(np.zeros((8, 9, 10), np.uint8))
    assert ReferenceRegion((4.0,) * 3, (2.0,) * 3)(label, {"label": label})[0] == ((0, 8), (0, 9), (0, 10))


def test_a_label_map_that_was_cropped_already_is_refused():
    with pytest.raises(ValueError, match="not yet cropped"):
        ReferenceRegion((4.0,) * 3, (2.0,) * 3)(
            image_of(np.zeros((8, 8, 8))), {"label": image_of(np.zeros((4, 8, 8)))}
        )


@pytest.mark.parametrize("seed", range(4))
def test_the_finder_finds_the_ball_wherever_it_is(tmp_path, seed):
    image, label = phantoms.small_ball_phantom(seed)
    box, note = finder(tmp_path)(image_of(image), {})
    assert note == ""
    assert share_inside(label[None], box) == 1
    assert np.prod([stop - start for start, stop in box]) < 0.2 * label.size


def test_two_finders_are_averaged(tmp_path):
    image = image_of(phantoms.small_ball_phantom(1)[0])
    coarse = Coarsend("image", (4.0,) * 3)({"image": image})["image"]
    both = finder(tmp_path, files=2).probability(coarse)
    single = [finder(tmp_path, level=level).probability(coarse) for level in (150.0, 151.0)]
    assert np.allclose(both, np.mean(single, axis=0), atol=1e-6)


def test_a_small_piece_does_not_count_and_a_large_one_does(tmp_path):
    image = np.zeros((64, 32, 32), np.float32)
    image[4:20, 4:20, 4:20] = 300
    image[40:56, 4:12, 4:12] = 300
    image[60:64, 28:32, 28:32] = 300
    box, _ = finder(tmp_path, margin_mm=(0.0,) * 3)(image_of(image), {})
    assert box == ((4, 56), (4, 20), (4, 20))


def test_where_nothing_is_found_the_whole_image_is_kept_and_says_so(tmp_path, caplog):
    item = CropToRegiond("image", finder(tmp_path, level=1000.0))({"image": image_of(np.zeros((16, 16, 16)))})
    assert item["image"].shape == (1, 16, 16, 16)
    assert item["image"].meta["region"] == NOTHING_FOUND
    assert NOTHING_FOUND in caplog.text


def test_missing_weights_are_named(tmp_path):
    region = finder(tmp_path)
    region.weights = [str(tmp_path / "models" / "finder.pt")]
    with pytest.raises(FileNotFoundError, match=r"train_finder\.json"):
        region(image_of(np.zeros((8, 8, 8), np.float32)), {})


@pytest.mark.parametrize("name", sorted(ORIENTATIONS))
@pytest.mark.parametrize("spacing", [None, 1.6])
def test_a_prediction_in_the_region_comes_back_to_its_place(tmp_path, name, spacing):
    files, image, label = ball_files(tmp_path, ORIENTATIONS[name])
    steps = [
        LoadImaged("image"),
        EnsureChannelFirstd("image"),
        Orientationd("image", axcodes="RAS", labels=None),
        CropToRegiond("image", finder(tmp_path)),
        *([Spacingd("image", pixdim=(spacing,) * 3)] if spacing else []),
        ScaleIntensityRanged("image", 0.0, 300.0, 0.0, 300.0),
    ]
    pipeline = Compose(steps)
    item = pipeline({"image": files["image"]})
    assert item["image"].numel() < 0.5 * image.size
    item["pred"] = item["image"].clone()
    back = Invertd("pred", pipeline, orig_keys="image", nearest_interp=False)(item)["pred"]
    assert back.shape == (1, *image.shape)
    assert np.allclose(back.affine, ORIENTATIONS[name], atol=1e-6)
    kept = np.asarray(back[0])
    if spacing is None:
        found = kept != 0
        assert np.allclose(kept[found], image[found], atol=1e-3)
        assert found[label > 0].all()
    else:
        assert np.mean((kept > 175)[label > 0]) > 0.8
        assert not (kept > 175)[kept == 0].any()


@pytest.mark.parametrize("name", sorted(ORIENTATIONS))
def test_image_and_label_map_are_cropped_alike(tmp_path, name):
    files, image, label = ball_files(tmp_path, ORIENTATIONS[name])
    region = ReferenceRegion((4.0,) * 3, (6.0,) * 3, (4.0,) * 3)
    item = Compose(
        [
            LoadImaged(["image", "label"]),
            EnsureChannelFirstd(["image", "label"]),
            Orientationd(["image", "label"], axcodes="RAS", labels=None),
            CropToRegiond("image", region),
            CropToRegiond("label", region),
        ]
    )(files)
    assert item["image"].shape == item["label"].shape
    assert np.allclose(item["image"].affine, item["label"].affine)
    assert int((item["label"] > 0).sum()) == int(label.sum())
    inside = np.asarray(item["image"])[np.asarray(item["label"]) > 0]
    assert np.array_equal(np.sort(inside), np.sort(image[label > 0]))


def test_the_cropped_image_does_not_hold_the_memory_of_the_whole(tmp_path):
    image = image_of(phantoms.small_ball_phantom(0)[0])
    cropped = CropToRegiond("image", finder(tmp_path))({"image": image})["image"]
    assert cropped.untyped_storage().nbytes() == 4 * cropped.numel()
