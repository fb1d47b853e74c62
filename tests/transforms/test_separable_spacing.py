from __future__ import annotations

import numpy as np
import pytest
import SimpleITK
import torch
from monai.data import MetaTensor
from monai.transforms import (
    Compose,
    CropForegroundd,
    Invertd,
    Orientation,
    Orientationd,
    Spacing,
    Spacingd,
    SpatialResample,
)

from medimg3d.transforms.separable_spacing import SeparableSpacing, SeparableSpacingd
from tests.phantoms import affine, oblique_affine, two_boxes, two_part_phantom

FLIP_EXCHANGE = np.array([[0, -1, 0, 40], [0, 0, -1, 30], [1, 0, 0, 0], [0, 0, 0, 1.0]])


def noise(shape, matrix, seed: int = 0) -> MetaTensor:
    values = np.random.default_rng(seed).normal(0, 1, (2, *shape)).astype(np.float32)
    return MetaTensor(values, affine=matrix)


def axis_by_axis(transform: SeparableSpacing, image: MetaTensor) -> MetaTensor:
    """The transform's result; fails if it leaves the image to MONAI's own sampler."""

    def refuse(*_, **__):
        raise AssertionError("left to MONAI")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SpatialResample, "__call__", refuse)
        return transform(image)


def random_case(seed: int):
    rng = np.random.default_rng(seed)
    axes = 2 if seed % 4 == 3 else 3
    shape = tuple(int(size) for size in rng.integers(1 if seed % 5 == 0 else 4, 20, axes))
    turn = rng.permutation(3) if axes == 3 else [0, 1, 2]
    order = np.eye(4)
    order[:3, :3] = np.eye(3)[turn] * rng.choice([-1, 1], 3)
    is_oblique = axes == 3 and seed % 2 == 1
    spacing = rng.choice([0.5, 0.7, 1.0, 1.5, 2.0, 3.3], 3)
    matrix = oblique_affine(degrees=21.0 if is_oblique else 0.0) @ order @ np.diag([*spacing, 1])
    pixdim = rng.choice([0.5, 0.9, 1.0, 2.0, 2.7, -1.0], axes).tolist()
    arguments = {
        "pixdim": pixdim,
        "align_corners": bool(rng.integers(2)),
        "recompute_affine": not is_oblique and bool(rng.integers(4) == 0),
        "min_pixdim": rng.choice([None, 0.6]),
    }
    arguments["scale_extent"] = arguments["align_corners"] and bool(rng.integers(2))
    return noise(shape, matrix, seed), arguments, is_oblique


@pytest.mark.parametrize("seed", range(60))
def test_the_image_is_that_of_monai(seed):
    image, arguments, is_oblique = random_case(seed)
    for mode in ("bilinear", "nearest"):
        found = axis_by_axis(SeparableSpacing(mode=mode, **arguments), image)
        expected = Spacing(mode=mode, **arguments)(image)
        assert isinstance(found, MetaTensor)
        assert found.dtype == torch.float32
        assert found.shape == expected.shape
        np.testing.assert_allclose(found.affine, expected.affine, atol=1e-9)
        apart = (found.as_tensor() - expected.as_tensor()).abs()
        if mode == "bilinear":
            assert apart.max() <= 1e-6 * float(image.max() - image.min())
        elif is_oblique:
            assert not (apart > 0)[:, ~ties(image, found)].any()
        else:
            assert apart.max() == 0  # halfway between two voxels too


def ties(image: MetaTensor, found: MetaTensor) -> torch.Tensor:
    """Voxels that lie halfway between two of the old ones along some axis."""
    axes = found.ndim - 1
    matrix = np.linalg.solve(image.affine.numpy(), found.affine.numpy())
    grid = np.stack(np.meshgrid(*map(np.arange, found.shape[1:]), indexing="ij"), -1)
    places = grid @ matrix[:axes, :axes].T + matrix[:axes, 3]
    return torch.from_numpy((np.abs(places - np.floor(places) - 0.5) < 1e-6).any(-1))


@pytest.mark.parametrize(
    "matrix", [np.diag([0.8, 0.8, 2.5, 1]), oblique_affine((1.1, 0.7, 2.2)), FLIP_EXCHANGE]
)
@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_the_image_is_that_of_simpleitk(matrix, mode):
    image = MetaTensor(
        np.random.default_rng(1).normal(0, 1, (1, 15, 13, 11)).astype(np.float32), affine=matrix
    )
    found = SeparableSpacing((0.93, 1.21, 1.57), mode=mode)(image)
    reference = to_itk(MetaTensor(torch.zeros_like(found.as_tensor()), affine=found.affine))
    how = SimpleITK.sitkLinear if mode == "bilinear" else SimpleITK.sitkNearestNeighbor
    expected = SimpleITK.Resample(to_itk(image), reference, SimpleITK.Transform(), how, -99.0)
    expected = SimpleITK.GetArrayFromImage(expected).transpose(2, 1, 0)
    covered = expected != -99
    assert covered.mean() > 0.8
    np.testing.assert_allclose(found[0].numpy()[covered], expected[covered], atol=1e-5)


def to_itk(image: MetaTensor) -> SimpleITK.Image:
    """The same image, in millimetres to the left, back and head."""
    matrix = np.diag([-1.0, -1, 1, 1]) @ image.affine.numpy()
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    itk = SimpleITK.GetImageFromArray(np.ascontiguousarray(image[0].numpy().transpose(2, 1, 0)))
    itk.SetSpacing(spacing.tolist())
    itk.SetOrigin(matrix[:3, 3].tolist())
    itk.SetDirection((matrix[:3, :3] / spacing).ravel().tolist())
    return itk


@pytest.mark.parametrize("matrix", [affine((0.7, 0.9, 2.0)), oblique_affine((1.1, 0.7, 2.2)), FLIP_EXCHANGE])
def test_images_and_labels_of_a_case_are_inverted_as_monai_does(matrix):
    pixels, label = two_part_phantom(3, (30, 31, 29))
    case = {"image": MetaTensor(pixels[None], affine=matrix), "label": MetaTensor(label[None], affine=matrix)}

    def there_and_back(spacing_class):
        keys = ["image", "label"]
        steps = Compose(
            [
                Orientationd(keys, axcodes="RAS", labels=None),
                spacing_class(keys, pixdim=(1.3, 0.8, 1.7), mode=("bilinear", "nearest")),
                CropForegroundd(keys, source_key="label", margin=2),
            ]
        )
        item = steps(dict(case))
        for nearest in (True, False):
            name = f"nearest {nearest}"
            item[name] = item["image"] * 0.5
            item = Invertd(name, transform=steps, orig_keys="image", nearest_interp=nearest)(item)
        item["label back"] = item["label"]
        return Invertd("label back", transform=steps, orig_keys="label")(item)

    found, expected = there_and_back(SeparableSpacingd), there_and_back(Spacingd)
    for name in ("image", "label", "nearest True", "nearest False", "label back"):
        assert found[name].shape == expected[name].shape
        np.testing.assert_allclose(found[name].affine, expected[name].affine, atol=1e-9)
        apart = (found[name].as_tensor() - expected[name].as_tensor()).abs()
        assert apart.max() <= (0 if name.startswith("label") else 3e-4), name  # of a range of 300
    assert found["nearest True"].shape == (1, 30, 31, 29)
    np.testing.assert_allclose(found["nearest True"].affine, matrix, atol=1e-9)
    assert found["label back"].applied_operations == []


def test_a_label_map_gets_no_new_values():
    label = MetaTensor(two_boxes()[None].astype(np.uint8), affine=affine((1, 1, 3)))
    assert set(SeparableSpacing(0.7, mode="nearest")(label).unique().tolist()) == {0, 100, 200}


def test_a_sheared_image_is_left_to_monai():
    sheared = affine((1, 1, 2))
    sheared[0, 1] = 0.2
    image = noise((9, 10, 8), sheared)
    found, expected = SeparableSpacing(1.3)(image), Spacing(1.3)(image)
    assert torch.equal(found.as_tensor(), expected.as_tensor())
    back = SeparableSpacing(1.3)
    again = back.inverse(back(image))
    np.testing.assert_allclose(again.affine, sheared, atol=1e-9)


def test_the_same_spacing_changes_nothing():
    image = noise((6, 5, 4), oblique_affine((1, 1, 2)))
    found = SeparableSpacing((1, 1, 2))(image)
    assert torch.equal(found.as_tensor(), image.as_tensor())
    assert len(found.applied_operations) == 1
    assert torch.equal(found.affine, image.affine)


def test_a_lazy_pipeline_gives_what_monai_gives():
    image = noise((9, 8, 7), affine((1, 2, 3)))
    steps = [Orientation("LAS", labels=None), SeparableSpacing(1.5)]
    stock = [Orientation("LAS", labels=None), Spacing(1.5)]
    assert torch.equal(
        Compose(steps, lazy=True)(image).as_tensor(), Compose(stock, lazy=True)(image).as_tensor()
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"diagonal": True}, "diagonal must be False"),
        ({"mode": "bicubic"}, "mode must be bilinear or nearest, got 'bicubic'; use MONAI's Spacing"),
        ({"mode": 3}, "mode must be bilinear or nearest, got 3"),
        ({"padding_mode": "zeros"}, "padding_mode must be border, got 'zeros'"),
    ],
)
def test_what_is_not_done_axis_by_axis_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        SeparableSpacing(1.0, **arguments)
    with pytest.raises(ValueError, match=message):
        SeparableSpacingd("image", 1.0, **arguments)
