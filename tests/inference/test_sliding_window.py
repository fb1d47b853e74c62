import itertools

import numpy as np
import pytest
import torch
from monai.data.utils import compute_importance_map, dense_patch_slices
from monai.inferers.utils import _get_scan_interval

from medimg3d.inference.sliding_window import AxisWindows, SlidingWindow, regions, tile_shape

OVERLAPS = (0.0, 0.1, 0.25, 0.3, 0.5, 0.625, 0.7, 0.8, 0.95)


def monai_starts(size, roi, overlap):
    """Starts along one axis as MONAI gives them, for the padded size."""
    padded = max(size, roi)
    interval = _get_scan_interval((padded, padded), (roi, roi), 2, (overlap, overlap))
    return sorted({cut[0].start for cut in dense_patch_slices((padded, padded), (roi, roi), interval)})


@pytest.mark.parametrize("overlap", OVERLAPS)
def test_starts_along_an_axis_are_monais_for_all_small_sizes(overlap):
    for size, roi in itertools.product((1, 2, 3, 5, 7, 8, 13, 16, 23), (1, 2, 3, 4, 7, 8, 11, 16)):
        (one,) = SlidingWindow((roi,), overlap=overlap).axes((size,))
        assert list(one.starts) == monai_starts(size, roi, overlap), (size, roi)


def test_windows_are_the_product_of_the_axes_in_monais_order():
    window = SlidingWindow((4, 3, 5), overlap=(0.5, 0.0, 0.7))
    axes = window.axes((11, 7, 13))
    interval = _get_scan_interval((11, 7, 13), (4, 3, 5), 3, (0.5, 0.0, 0.7))
    slices = dense_patch_slices((11, 7, 13), (4, 3, 5), interval)
    assert list(itertools.product(*(one.starts for one in axes))) == [
        tuple(int(cut.start) for cut in cuts) for cuts in slices
    ]


def test_the_last_window_is_drawn_back_to_the_border():
    (one,) = SlidingWindow((4,), overlap=0.5).axes((9,))
    assert one == AxisWindows(size=9, window=4, before=0, after=0, starts=(0, 2, 4, 5))


def test_an_axis_3_voxels_short_is_padded_by_1_before_and_2_after():
    (one,) = SlidingWindow((8,)).axes((5,))
    assert (one.before, one.after, one.padded, one.starts) == (1, 2, 8, (0,))
    assert one.cut(0) == (slice(0, 5), 1, 2)


def test_mirrored_windows_are_those_of_the_flipped_image():
    (one,) = SlidingWindow((4,), overlap=0.5).axes((9,))
    assert one.mirrored().starts == (0, 1, 3, 5)
    (short,) = SlidingWindow((8,)).axes((5,))
    assert (short.mirrored().before, short.mirrored().after) == (2, 1)
    assert one.mirrored().mirrored() == one


def test_windows_that_touch_a_range_hold_one_of_its_voxels():
    (one,) = SlidingWindow((4,), overlap=0.5).axes((9,))  # 0-3, 2-5, 4-7, 5-8
    assert one.touching(0, 2) == (0,)
    assert one.touching(3, 5) == (0, 2, 4)
    assert one.touching(8, 9) == (5,)


def test_an_axis_of_minus_one_or_none_takes_the_images_size():
    assert SlidingWindow((32, -1)).shape((40, 64)) == (32, 64)
    assert SlidingWindow((None, 16)).shape((40, 64)) == (40, 16)
    assert SlidingWindow(24).shape((40, 64, 8)) == (24, 24, 24)


@pytest.mark.parametrize("mode", ["constant", "gaussian"])
@pytest.mark.parametrize(("roi", "sigma"), [((7, 4), 0.125), ((6, 5, 9), 0.25), ((8, 8, 3), (0.1, 0.2, 0.3))])
def test_the_importance_map_is_monais(mode, roi, sigma):
    ours = SlidingWindow(roi, mode=mode, sigma_scale=sigma).importance_map([20] * len(roi))
    assert ours.dtype == torch.float32
    assert torch.equal(ours, compute_importance_map(roi, mode=mode, sigma_scale=sigma))


def test_lists_from_a_config_and_monais_enums_are_taken():
    from monai.utils import BlendMode, PytorchPadMode

    window = SlidingWindow(
        [8, 8], overlap=[0.5, 0.25], mode=BlendMode.GAUSSIAN, padding_mode=PytorchPadMode.REFLECT
    )
    assert window == SlidingWindow((8, 8), overlap=(0.5, 0.25), mode="gaussian", padding_mode="reflect")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"overlap": 1.2}, r"overlap must be in \[0, 1\), got 1.2"),
        ({"overlap": (0.5, -0.1)}, r"overlap must be in \[0, 1\)"),
        ({"mode": "hann"}, "mode must be one of constant, gaussian, got 'hann'"),
        ({"padding_mode": "wrap"}, "padding_mode must be one of"),
        ({"sw_batch_size": 0}, "sw_batch_size must be at least 1, got 0"),
        ({"sigma_scale": 0.0}, "sigma_scale must be above 0"),
    ],
)
def test_an_argument_out_of_range_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        SlidingWindow((8, 8), **arguments)


def test_a_window_of_another_dimension_is_refused():
    with pytest.raises(ValueError, match="roi_size has 2 numbers; expected 3"):
        SlidingWindow((8, 8)).axes((16, 16, 16))
    with pytest.raises(ValueError, match="overlap has 2 numbers; expected 3"):
        SlidingWindow(8, overlap=(0.5, 0.5)).axes((16, 16, 16))


def test_regions_cover_every_voxel_once_and_run_the_whole_axis():
    count = np.zeros((5, 7, 4), dtype=int)
    boxes = regions((5, 7, 4), 1, (2, 3))
    for box in boxes:
        assert box[1] == (0, 7)
        count[tuple(slice(*edge) for edge in box)] += 1
    assert (count == 1).all()
    assert len(boxes) == 6


def test_a_tile_of_the_wrong_dimension_or_empty_is_refused():
    with pytest.raises(ValueError, match="tile must have 2 sizes of at least 1"):
        tile_shape((5, 7, 4), 0, (3,))
    with pytest.raises(ValueError, match="one for each axis but axis 0, got"):
        tile_shape((5, 7, 4), 0, (3, 0))
    with pytest.raises(ValueError, match=r"axis must be in \[0, 2\], got 3"):
        tile_shape((5, 7, 4), 3, None)
