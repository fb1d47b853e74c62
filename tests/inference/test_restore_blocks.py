from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import (
    Activationsd,
    AsDiscreted,
    Compose,
    CropForegroundd,
    Invertd,
    Orientationd,
    Spacingd,
    SpatialPadd,
)

from medimg3d.geometry.axis_map import AxisMap
from medimg3d.inference import block_seams, restore_blocks
from medimg3d.inference.restore_blocks import restore_labels, restore_probabilities, restore_regions
from medimg3d.inference.sliding_window import SlidingWindow, regions
from medimg3d.inference.streaming import Block, stream_windows
from medimg3d.transforms.separable_spacing import SeparableSpacingd
from tests.phantoms import oblique_affine

CLASSES = 4


def blob(rng: np.random.Generator, shape) -> torch.Tensor:
    """Smooth bumps inside a rim of zeros, shape (1, *shape)."""
    image = np.zeros(shape, np.float32)
    inner = tuple(slice(size // 5, size - size // 6) for size in shape)
    coarse = torch.from_numpy(rng.normal(0, 1, (1, 1, *(4,) * len(shape)))).float()
    size = image[inner].shape
    mode = "trilinear" if len(shape) == 3 else "bilinear"
    image[inner] = torch.nn.functional.interpolate(coarse, size=size, mode=mode)[0, 0].numpy() ** 2 + 0.1
    return torch.from_numpy(image)[None]


def network(image: torch.Tensor) -> torch.Tensor:
    """A fixed 1x1 convolution to four classes, of images (batch, 1, ...)."""
    shape = (1, CLASSES, *(1,) * (image.ndim - 2))
    slope, shift = torch.tensor([0.0, 6, 12, -9]), torch.tensor([2.0, 0, -4, 1])
    return image * slope.view(shape) + shift.view(shape)


def some_affine(rng: np.random.Generator, axes: int) -> np.ndarray:
    """Anisotropic, with axes exchanged and flipped, and oblique every second time."""
    spacing = rng.choice([0.6, 0.8, 1.0, 1.3, 2.0, 3.1], 3)
    order = np.eye(4)
    order[:axes, :axes] = np.eye(axes)[rng.permutation(axes)] * rng.choice([-1, 1], axes)
    oblique = axes == 3 and rng.random() < 0.5
    return oblique_affine(degrees=13.0 if oblique else 0.0) @ order @ np.diag([*spacing, 1.0])


def preprocessing(rng: np.random.Generator, axes: int, *, crop: str) -> Compose:
    pixdim = rng.choice([0.9, 1.0, 1.5, 2.2], axes).tolist()
    spacing = Spacingd("image", pixdim=pixdim, mode="bilinear")
    crops = [CropForegroundd("image", source_key="image", margin=int(rng.integers(0, 3)), allow_smaller=True)]
    return Compose(
        [
            *([Orientationd("image", axcodes="RAS", labels=None)] if axes == 3 else []),
            *(crops if crop == "before" else []),
            spacing,
            *(crops if crop == "after" else []),
            *([SpatialPadd("image", spatial_size=[31] * axes)] if crop == "pad" else []),
        ]
    )


def stock(item: dict, scores: torch.Tensor, transform: Compose) -> torch.Tensor:
    """MONAI's way: softmax of the whole, inverted; probabilities of shape (classes, ...)."""
    prepared = {"image": item["image"], "pred": MetaTensor(scores)}
    steps = [
        Activationsd("pred", softmax=True),
        Invertd("pred", transform=transform, orig_keys="image", nearest_interp=False),
    ]
    return Compose(steps)(prepared)["pred"].as_tensor()


def cut(values: torch.Tensor, axis: int, planes: int, tile=None) -> list[Block]:
    """The blocks that a streaming predictor would give."""
    blocks = []
    for region in regions(values.shape[1:], axis, tile):
        for start in range(0, values.shape[axis + 1], planes):
            edges = list(region)
            edges[axis] = (start, min(start + planes, values.shape[axis + 1]))
            place = (slice(None), *(slice(*edge) for edge in edges))
            blocks.append(Block(*map(tuple, zip(*edges, strict=True)), values[place].clone()))
    return blocks


def cropped_of(image: MetaTensor, axes: int) -> list[tuple[int, int]] | None:
    """Voxels that the last step cropped from (or, negative, padded to) every axis; None if it resampled."""
    info = image.applied_operations[-1]["extra_info"]
    if "padded" in info:
        return [(-low, -high) for low, high in info["padded"][1:]]
    if "cropped" not in info:
        return None
    numbers = info["cropped"]
    return [(numbers[2 * axis], numbers[2 * axis + 1]) for axis in range(axes)]


def box_of(source: MetaTensor, prepared: MetaTensor, axes: int) -> list[tuple[int, int]]:
    """The part of the source that a crop before resampling left, found by cropping voxel numbers."""
    index = torch.stack(torch.meshgrid(*map(torch.arange, source.shape[1:]), indexing="ij")).float()
    numbers = MetaTensor(index, affine=source.affine)
    for step in prepared.applied_operations:
        if step["class"] == "Orientation":
            numbers = Orientationd("image", axcodes="RAS", labels=None)({"image": numbers})["image"]
        elif "cropped" in step["extra_info"]:
            off = step["extra_info"]["cropped"]
            place = [slice(off[2 * a], size - off[2 * a + 1]) for a, size in enumerate(numbers.shape[1:])]
            numbers = numbers[(slice(None), *place)]
    return [(int(one.min()), int(one.max()) + 1) for one in numbers.as_tensor()]


def configurations():
    for seed in range(60):
        yield seed, (2 if seed % 5 == 4 else 3), ("none", "after", "before", "pad")[seed % 4]


@pytest.mark.parametrize(("seed", "axes", "crop"), list(configurations()))
def test_labels_are_those_of_monai_wherever_two_classes_do_not_tie(seed, axes, crop, tmp_path):
    rng = np.random.default_rng(seed)
    shape = tuple(int(size) for size in rng.integers(9, 21, axes))
    source = MetaTensor(blob(rng, shape), affine=some_affine(rng, axes))
    transform = preprocessing(rng, axes, crop=crop)
    item = transform({"image": source})
    scores = network(item["image"].as_tensor()[None])[0]
    probabilities = stock(item, scores, transform)

    axis_map = AxisMap.between(item["image"].affine, scores.shape[1:], source.affine, shape)
    axis = int(rng.integers(axes))
    tile = [int(size) for size in rng.integers(3, 12, axes - 1)] if rng.random() < 0.5 else None
    how = {
        "axis": axis,
        "cropped": cropped_of(item["image"], axes) if crop in ("after", "pad") else None,
        "box": box_of(source, item["image"], axes) if crop == "before" else None,
    }
    blocks = cut(scores, axis, int(rng.integers(1, 9)), tile)

    labels = restore_labels(blocks, axis_map, softmax=True, **how)
    best = probabilities.topk(2, dim=0).values
    is_clear = ((best[0] - best[1]) > 1e-4).numpy() | (probabilities == 0).all(0).numpy()
    expected = AsDiscreted("pred", argmax=True)({"pred": probabilities})["pred"][0].numpy()
    assert labels.dtype == np.uint8
    assert labels.shape == shape
    assert len(np.unique(expected)) > 1
    np.testing.assert_array_equal(labels[is_clear], expected[is_clear])

    restore_probabilities(blocks, axis_map, tmp_path / "p.npy", dtype=np.float32, softmax=True, **how)
    np.testing.assert_allclose(np.load(tmp_path / "p.npy"), probabilities.numpy(), atol=2e-5)

    masks = restore_regions(blocks, axis_map, [0.5, 0.3, 0.2, 0.1], softmax=True, **how)
    for mask, one, limit in zip(masks, probabilities.numpy(), [0.5, 0.3, 0.2, 0.1], strict=True):
        away = np.abs(one - limit) > 1e-4
        np.testing.assert_array_equal(mask[away], one[away] >= limit)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_an_image_preprocessed_axis_by_axis_and_streamed_is_that_of_stock_monai(axis):
    rng = np.random.default_rng(7)
    source = MetaTensor(blob(rng, (24, 20, 18)), affine=oblique_affine((1.2, 0.8, 2.5)))
    stock_steps = Compose([Orientationd("image", axcodes="LPS", labels=None), Spacingd("image", 1.0)])
    steps = Compose([Orientationd("image", axcodes="LPS", labels=None), SeparableSpacingd("image", 1.0)])
    item = stock_steps({"image": source})
    probabilities = stock(item, network(item["image"].as_tensor()[None])[0], stock_steps)

    image = steps({"image": source})["image"]
    blocks = stream_windows(image, network, SlidingWindow((8, 8, 8)), axis=axis, tile=(9, 11))
    axis_map = AxisMap.between(image.affine, image.shape[1:], source.affine, source.shape[1:])
    labels = restore_labels(blocks, axis_map, softmax=True, axis=axis)
    best = probabilities.topk(2, dim=0).values
    is_clear = ((best[0] - best[1]) > 1e-4).numpy()
    np.testing.assert_array_equal(labels[is_clear], probabilities.argmax(0).numpy()[is_clear])


def identity(shape) -> AxisMap:
    return AxisMap(tuple(range(len(shape))), (1.0,) * len(shape), (0.0,) * len(shape), shape, shape)


def test_the_same_grid_gives_the_argmax_of_the_scores():
    scores = torch.randn((5, 9, 8, 7), generator=torch.Generator().manual_seed(0))
    labels = restore_labels(cut(scores, 1, 3), identity((9, 8, 7)), softmax=True)
    np.testing.assert_array_equal(labels, scores.argmax(0).numpy())


def test_between_two_voxels_the_nearer_one_wins():
    scores = torch.tensor([[10.0, 0.0], [0.0, 10.0]])[:, :, None].expand(2, 2, 3)
    axis_map = AxisMap((0, 1), (0.2, 1.0), (0.0, 0.0), (2, 3), (6, 3))  # voxels at 0, 0.2, 0.4, 0.6, 0.8, 1
    labels = restore_labels(cut(scores, 0, 1), axis_map, axis=0)
    assert labels[:, 0].tolist() == [0, 0, 0, 1, 1, 1]


def test_beyond_half_a_voxel_the_outside_label_stands():
    scores = torch.tensor([[0.0], [1.0]])[:, :, None].expand(2, 1, 3)
    axis_map = AxisMap((0, 1), (0.25, 1.0), (-1.0, 0.0), (1, 3), (9, 3))  # -1, -0.75, -0.5, ... 1
    labels = restore_labels(cut(scores, 0, 1), axis_map, outside_label=7, axis=0)
    assert labels[:, 0].tolist() == [7, 7, 1, 1, 1, 1, 1, 7, 7]


def test_beyond_a_crop_probabilities_fade_and_labels_hold_for_less_than_a_voxel(tmp_path):
    scores = torch.tensor([[0.0], [1.0]])[:, :, None].expand(2, 1, 3)
    axis_map = AxisMap((0, 1), (0.25, 1.0), (-1.0, 0.0), (1, 3), (9, 3))
    blocks = cut(scores, 0, 1)
    cropped = [(1, 0), (0, 0)]  # cropped before the grid, not after it
    labels = restore_labels(blocks, axis_map, cropped=cropped, axis=0)
    assert labels[:, 0].tolist() == [0, 1, 1, 1, 1, 1, 1, 1, 1]
    restore_probabilities(blocks, axis_map, tmp_path / "p.npy", cropped=cropped, axis=0)
    assert np.load(tmp_path / "p.npy")[1, :, 0].tolist() == [0, 0.25, 0.5, 0.75, 1, 1, 1, 1, 1]


def test_of_equal_scores_the_first_class_wins_and_a_hundred_classes_are_told_apart():
    winners = torch.arange(6 * 7).view(6, 7) * 7 % 300
    scores = torch.nn.functional.one_hot(winners, 300).movedim(-1, 0).float()
    labels = restore_labels(cut(scores, 0, 2), identity((6, 7)))
    assert labels.dtype == np.uint16
    np.testing.assert_array_equal(labels, winners.numpy())
    assert not restore_labels(cut(torch.ones(3, 4, 5), 0, 2), identity((4, 5))).any()


def test_the_shortcut_changes_no_label():
    generator = torch.Generator().manual_seed(1)
    coarse = torch.randn((40, 5, 5, 5), generator=generator)
    scores = 6 * torch.nn.functional.interpolate(coarse[None], size=(30, 30, 30), mode="trilinear")[0]
    axis_map = AxisMap((2, 0, 1), (0.6, -0.55, 0.7), (0.1, 29.0, -0.3), (30, 30, 30), (48, 53, 42))
    labels = restore_labels(cut(scores, 0, 5), axis_map, softmax=True)
    places = np.meshgrid(*(np.clip(axis_map.coordinates(a), 0, 29) for a in range(3)), indexing="ij")
    grid = torch.from_numpy(
        np.stack([places[0], places[2], places[1]], -1) / 14.5 - 1
    )  # (k, j, i) = axes 2, 1, 0
    whole = torch.nn.functional.grid_sample(
        scores.softmax(0).double()[None], grid[None], align_corners=True, padding_mode="border"
    )[0]
    best = whole.topk(2, dim=0).values
    is_clear = ((best[0] - best[1]) > 1e-6).numpy()
    np.testing.assert_array_equal(labels[is_clear], whole.argmax(0).numpy()[is_clear])


def test_memory_is_a_few_planes_whatever_the_depth(monkeypatch):
    made: list[int] = []

    def counted(function):
        def call(*arguments):
            result = function(*arguments)
            made.append(result.numel())
            return result

        return call

    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)  # one tile at a time
    monkeypatch.setattr(block_seams.SeamedBlock, "cut", counted(block_seams.SeamedBlock.cut))
    monkeypatch.setattr(restore_blocks, "interpolate_tile", counted(restore_blocks.interpolate_tile))

    def most(depth: int) -> tuple[int, int]:
        scores = torch.randn((6, depth, 90, 90), generator=torch.Generator().manual_seed(0))
        blocks = cut(scores, 0, 2)
        axis_map = AxisMap((0, 1, 2), (0.5,) * 3, (0.0,) * 3, (depth, 90, 90), (2 * depth, 180, 180))
        made.clear()
        tracemalloc.start()
        labels = restore_labels(iter(blocks), axis_map, softmax=True)
        peak = tracemalloc.get_traced_memory()[1] - labels.nbytes
        tracemalloc.stop()
        return max(made), peak

    (few, few_bytes), (many, many_bytes) = most(6), most(20)
    assert many == few <= 6 * 5 * 96 * 96  # a tile of the five planes that a block of two completes
    assert many_bytes <= few_bytes + 20_000  # NumPy's


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_labels_do_not_depend_on_the_number_of_threads(workers, torch_threads):
    scores = torch.randn((4, 9, 60, 50), generator=torch.Generator().manual_seed(0))
    axis_map = AxisMap((0, 1, 2), (0.5,) * 3, (0.0,) * 3, (9, 60, 50), (18, 120, 100))
    one = restore_labels(iter(cut(scores, 0, 2)), axis_map, softmax=True)
    torch_threads(workers)
    np.testing.assert_array_equal(restore_labels(iter(cut(scores, 0, 2)), axis_map, softmax=True), one)


def test_tiles_without_the_streaming_axis_are_refused():
    scores = torch.zeros((2, 6, 6, 6))
    with pytest.raises(ValueError, match=r"cut along axes \[0, 1\]: pass axis"):
        restore_labels(cut(scores, 0, 2, (3, 6)), identity((6, 6, 6)))


def test_blocks_out_of_order_or_missing_are_refused():
    blocks = cut(torch.zeros((2, 6, 6)), 0, 2)
    with pytest.raises(ValueError, match=r"begins at \(4, 0\); expected voxel 2 along axis 0"):
        restore_labels([blocks[0], blocks[2]], identity((6, 6)))
    with pytest.raises(ValueError, match="hold 24 voxels; expected the 36"):
        restore_labels(blocks[:2], identity((6, 6)))


def test_a_single_class_needs_a_threshold():
    blocks = cut(torch.tensor([[[0.2, 0.5, 0.9]]]), 1, 1)
    with pytest.raises(ValueError, match="1 classes; expected 2 to 65536, or use restore_regions"):
        restore_labels(blocks, identity((1, 3)))
    assert restore_regions(blocks, identity((1, 3)), 0.5).tolist() == [[[0, 1, 1]]]


def test_arguments_that_do_not_fit_are_refused(tmp_path):
    blocks = cut(torch.zeros((3, 4, 4)), 0, 2)
    with pytest.raises(ValueError, match="2 thresholds; expected 1, or 3"):
        restore_regions(blocks, identity((4, 4)), [0.5, 0.5])
    with pytest.raises(ValueError, match="softmax and sigmoid are both"):
        restore_regions(blocks, identity((4, 4)), softmax=True, sigmoid=True)
    with pytest.raises(ValueError, match="float16 or float32, got float64"):
        restore_probabilities(blocks, identity((4, 4)), tmp_path / "p.npy", dtype=np.float64)
    with pytest.raises(ValueError, match="cropped has 3 axes; expected 2"):
        restore_labels(blocks, identity((4, 4)), cropped=[(0, 0)] * 3)


def test_a_failed_run_leaves_no_file(tmp_path):
    blocks = cut(torch.zeros((2, 6, 6)), 0, 2)
    with pytest.raises(ValueError, match="expected the 36"):
        restore_probabilities(blocks[:1], identity((6, 6)), tmp_path / "p.npy")
    assert not list(tmp_path.iterdir())
