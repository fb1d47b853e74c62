import itertools
import random

import pytest
import torch
from monai.inferers import SlidingWindowInferer, sliding_window_inference

from medimg3d.inference.mirroring import MirroringInferer
from medimg3d.inference.sliding_window import SlidingWindow
from medimg3d.inference.streaming import SkipAir, orientations, stream_windows

SIZES = (1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 13, 17)
CASES = 200


class PositionedConv(torch.nn.Module):
    """A padded convolution times a fixed random field of the window: a misplaced window shows."""

    def __init__(self, channels, classes, roi, seed):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        kernel = torch.randn((classes, channels, *[3] * len(roi)), generator=generator)
        self.kernel = kernel / (3 ** (len(roi) / 2))
        self.field = torch.rand(roi, generator=generator) + 0.5
        self.convolve = torch.nn.functional.conv2d if len(roi) == 2 else torch.nn.functional.conv3d

    def forward(self, windows):
        return self.convolve(windows, self.kernel, padding=1) * self.field


def assembled(blocks, spatial):
    """The full prediction; every voxel must come once."""
    count = torch.zeros(spatial, dtype=torch.int)
    whole = None
    for block in blocks:
        if whole is None:
            whole = torch.full((block.values.shape[0], *spatial), torch.nan)
        assert block.values.dtype == torch.float32
        whole[(slice(None), *block.slices)] = block.values
        count[block.slices] += 1
    assert (count == 1).all()
    return whole


def small_case(seed):
    """A random small configuration with at most 200 windows."""
    rng = random.Random(seed)
    dims = 2 + seed % 2
    while True:
        spatial = tuple(rng.choice(SIZES if dims == 2 else SIZES[:-2]) for _ in range(dims))
        roi = tuple(rng.randint(1, 8) for _ in range(dims))
        shared = round(rng.uniform(0, 0.8), 2)
        overlap = shared if rng.random() < 0.5 else tuple(round(rng.uniform(0, 0.8), 2) for _ in range(dims))
        pads = [max(want - size, 0) for want, size in zip(roi, spatial, strict=True)]
        bends = all((pad + 1) // 2 < size for pad, size in zip(pads, spatial, strict=True))
        bend = rng.choice(["constant", "reflect", "replicate", "circular"] if bends else ["constant"])
        window = SlidingWindow(
            roi,
            overlap=overlap,
            mode=rng.choice(["constant", "gaussian"]),
            sigma_scale=rng.choice([0.125, 0.3]),
            sw_batch_size=rng.randint(1, 4),
            padding_mode=bend,
            cval=rng.choice([0.0, -1.5]) if bend == "constant" else 0.0,  # MONAI takes no other
        )
        counts = [len(one.starts) for one in window.axes(spatial)]
        if torch.tensor(counts).prod() <= 200:
            break
    axis = rng.choice([None, *range(dims)])
    tile = tuple(rng.randint(1, 9) for _ in range(dims - 1)) if rng.random() < 0.4 else None
    channels, classes = rng.randint(1, 2), rng.randint(1, 5)
    order = {"axis": axis, "tile": tile, "block": rng.choice([None, 1, 2, 5])}
    averaged = {
        "flips": tuple(along for along in range(dims) if rng.random() < 0.35),
        "softmax": rng.random() < 0.4,
        "merge": rng.choice(["volume", "volume", "window"]),
    }
    image = torch.randn((channels, *spatial), generator=torch.Generator().manual_seed(seed))
    networks = [PositionedConv(channels, classes, roi, seed + n) for n in range(rng.choice([1, 1, 2]))]
    return window, image, networks, order, averaged


def by_monai(window, image, network, inferer=None):
    arguments = {
        "roi_size": window.roi_size,
        "sw_batch_size": window.sw_batch_size,
        "overlap": window.overlap,
        "mode": window.mode,
        "sigma_scale": window.sigma_scale,
        "padding_mode": window.padding_mode,
        "cval": window.cval,
    }
    if inferer is None:
        return sliding_window_inference(image[None], predictor=network, **arguments)[0]
    return inferer(SlidingWindowInferer(**arguments))(image[None], network)[0]


def expected_of(window, image, networks, flips, softmax, merge):
    """MONAI's own sliding window, inside MirroringInferer or around flips of each window."""
    if merge == "volume":
        parts = [
            by_monai(window, image, one, lambda inner: MirroringInferer(inner, axes=flips, softmax=softmax))
            for one in networks
        ]
        return torch.stack(parts).mean(0)

    def averaged(windows):
        outputs = []
        for network, flipped in itertools.product(networks, orientations(flips)):
            dims = [along + 2 for along in flipped]
            output = network(windows.flip(dims))
            outputs.append((output.softmax(1) if softmax else output).flip(dims))
        return torch.stack(outputs).mean(0)

    return by_monai(window, image, averaged)


def assert_same(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    if len(theirs) > 1:
        best = theirs.topk(2, dim=0).values
        clear = best[0] - best[1] > 2e-5
        assert torch.equal(ours.argmax(0)[clear], theirs.argmax(0)[clear])


@pytest.mark.parametrize("seed", range(CASES))
def test_a_random_small_case_is_monais_prediction(seed):
    window, image, networks, order, averaged = small_case(seed)
    theirs = expected_of(window, image, networks, **averaged)
    ours = assembled(stream_windows(image, networks, window, **order, **averaged), image.shape[1:])
    assert_same(ours, theirs)


def test_the_random_cases_hold_every_kind():
    """Guards the generator: each kind of case that matters is among them several times."""
    cases = [small_case(seed) for seed in range(CASES)]
    kinds = {
        "smaller than the window": lambda w, i, n, o, a: any(
            x < y for x, y in zip(i.shape[1:], w.roi_size, strict=True)
        ),
        "odd padding and flips": lambda w, i, n, o, a: any(
            (w.roi_size[x] - i.shape[x + 1]) % 2 and w.roi_size[x] > i.shape[x + 1] for x in a["flips"]
        ),
        "tiles smaller than the image": lambda w, i, n, o, a: o["tile"] and max(i.shape[1:]) > max(o["tile"]),
        "three flips": lambda w, i, n, o, a: len(a["flips"]) == 3,
        "several networks, softmax, stitched first": lambda w, i, n, o, a: (
            len(n) > 1 and a["softmax"] and a["merge"] == "volume"
        ),
        "flips within windows": lambda w, i, n, o, a: a["flips"] and a["merge"] == "window",
        "more than three slabs": lambda w, i, n, o, a: max(len(x.starts) for x in w.axes(i.shape[1:])) > 3,
    }
    found = {name: sum(bool(test(*case)) for case in cases) for name, test in kinds.items()}
    assert all(count >= 3 for count in found.values()), found


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_blocks_come_in_order_along_the_named_axis(axis):
    image = torch.zeros(1, 10, 11, 12)
    window = SlidingWindow((4, 4, 4), overlap=0.5)
    blocks = list(stream_windows(image, lambda x: x, window, axis=axis, block=3))
    assert blocks[0].start == (0, 0, 0)
    assert blocks[-1].stop == (10, 11, 12)
    assert all(a.stop[axis] == b.start[axis] for a, b in itertools.pairwise(blocks))
    assert max(block.values.shape[axis + 1] for block in blocks) <= 3


def test_a_block_comes_before_the_windows_that_do_not_touch_it():
    calls = []
    window = SlidingWindow((4, 4), overlap=0.5)  # starts 0, 2, 4, 6 along the first axis
    stream = stream_windows(torch.zeros(1, 10, 4), lambda x: calls.append(1) or x, window, axis=0)
    block = next(stream)
    assert (block.start, block.stop) == ((0, 0), (2, 4))
    assert len(calls) == 1


@pytest.mark.parametrize("wrap", [lambda x: (x, -x), lambda x: [x, -x], lambda x: {"a": x, "b": -x}])
def test_of_several_heads_the_first_counts(wrap):
    image = torch.randn(1, 9, 9, generator=torch.Generator().manual_seed(0))
    window = SlidingWindow((4, 4), overlap=0.5)
    theirs = sliding_window_inference(image[None], (4, 4), 2, wrap, overlap=0.5)
    first = theirs["a"] if isinstance(theirs, dict) else theirs[0]
    assert_same(assembled(stream_windows(image, wrap, window), (9, 9)), first[0])


def test_half_precision_outputs_are_summed_in_float32():
    """2048 + 1 is not a number of float16: 25 windows of 2049 each would not give 2049 in half precision."""
    image = torch.ones(1, 9, 9, dtype=torch.float16)
    window = SlidingWindow((5, 5), overlap=0.8)
    values = assembled(stream_windows(image, lambda x: (x * 2050).half(), window), (9, 9))
    assert torch.equal(values, torch.full((1, 9, 9), 2050.0))


def test_an_image_of_bytes_reaches_the_network_as_float32():
    seen = []
    image = torch.arange(12, dtype=torch.uint8).reshape(1, 3, 4)
    values = assembled(
        stream_windows(image, lambda x: seen.append(x.dtype) or x, SlidingWindow((2, 2))), (3, 4)
    )
    assert set(seen) == {torch.float32}
    assert torch.equal(values, image.float())


def test_a_network_that_works_in_place_leaves_the_image_alone():
    image = torch.ones(1, 6, 6)
    list(stream_windows(image, lambda x: x.mul_(0), SlidingWindow((4, 4), overlap=0.5)))
    assert torch.equal(image, torch.ones(1, 6, 6))


def test_no_gradients_are_kept():
    network = torch.nn.Conv2d(1, 2, 1)
    block = next(stream_windows(torch.ones(1, 6, 6), network, SlidingWindow((4, 4))))
    assert not block.values.requires_grad


def five_and_seven(windows):
    return torch.cat([windows * 0 + 5, windows * 0 + 7], 1)


def test_skipped_windows_add_nothing_and_voxels_of_them_alone_hold_the_fill():
    """Columns 0 to 3 are air: window 0-3 is skipped, window 2-5 is run and alone in columns 2 and 3."""
    image = torch.zeros(1, 2, 8)
    image[..., 4:] = 1
    window = SlidingWindow((2, 4), overlap=0.5)
    skip = SkipAir(0.0, (1.0, 0.0))
    values = assembled(stream_windows(image, five_and_seven, window, skip=skip), (2, 8))
    assert values[0].tolist() == [[1.0, 1.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0]] * 2
    assert values[1].tolist() == [[0.0, 0.0, 7.0, 7.0, 7.0, 7.0, 7.0, 7.0]] * 2


def test_the_fill_is_set_after_softmax_and_flips_count_only_where_they_cover():
    """9 columns: windows 0-3, 2-5, 4-7, 5-8, mirrored 0-3, 1-4, 3-6, 5-8. Those without column 4 or later are air."""
    image = torch.zeros(1, 2, 9)
    image[..., 4:] = 1
    window = SlidingWindow((2, 4), overlap=0.5)
    skip = SkipAir(0.0, (0.75, 0.25))
    values = assembled(
        stream_windows(image, five_and_seven, window, skip=skip, flips=(1,), softmax=True), (2, 9)
    )
    second = torch.tensor([5.0, 7.0]).softmax(0)[1]
    assert torch.allclose(values[1, 0], torch.tensor([0.25, *[second] * 8]))
    assert torch.allclose(values.sum(0), torch.ones(2, 9))


def test_an_image_of_air_never_runs_the_network():
    def refuse(windows):
        raise AssertionError("the network ran")

    image = torch.full((2, 7, 5, 6), -1000.0)
    values = assembled(
        stream_windows(image, refuse, SlidingWindow((4, 4, 4)), skip=SkipAir(-900, (1, 0, 0))), (7, 5, 6)
    )
    assert torch.equal(values.argmax(0), torch.zeros(7, 5, 6, dtype=torch.long))


def test_an_image_without_air_is_the_same_with_and_without_skipping():
    image = torch.rand((1, 11, 9), generator=torch.Generator().manual_seed(1)) + 0.5
    network = PositionedConv(1, 3, (4, 5), 1)
    window = SlidingWindow((4, 5), overlap=0.5, mode="gaussian")
    plain = assembled(stream_windows(image, network, window), (11, 9))
    skipping = assembled(stream_windows(image, network, window, skip=SkipAir(0.0, (1, 0, 0))), (11, 9))
    assert torch.equal(plain, skipping)


@pytest.mark.parametrize("skip", [None, SkipAir(0.5, (0.0,))])
def test_progress_counts_every_window_that_is_run_or_skipped(skip):
    told = []
    image = torch.zeros(1, 10, 10)
    image[0, :, 5:] = 1
    list(
        stream_windows(
            image,
            lambda x: x,
            SlidingWindow((4, 4), overlap=0.5, sw_batch_size=3),
            axis=0,
            tile=(6,),
            flips=(0,),
            skip=skip,
            on_window=lambda done, total: told.append((done, total)),
        )
    )
    # 4 starts down; tile 0-5 touches starts 0, 2, 4 and tile 6-9 starts 4, 6: 4 x 5, twice for the flip
    assert told[-1] == (40, 40)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"flips": (2,)}, r"flips must name axes below 2, got \(2,\)"),
        ({"flips": (0, 0)}, "flips must name axes once each"),
        ({"merge": "mean"}, "merge must be volume or window, got 'mean'"),
        ({"block": 0}, "block must be at least 1, got 0"),
        ({"axis": 2}, r"axis must be in \[0, 1\], got 2"),
        ({"tile": (3, 3)}, "tile must have 1 sizes"),
    ],
)
def test_an_argument_that_does_not_fit_is_refused_at_the_call(arguments, message):
    with pytest.raises(ValueError, match=message):
        stream_windows(torch.zeros(1, 6, 6), lambda x: x, SlidingWindow((4, 4)), **arguments)


def test_no_network_is_refused():
    with pytest.raises(ValueError, match="networks must be at least 1, got 0"):
        stream_windows(torch.zeros(1, 6, 6), [], SlidingWindow((4, 4)))


def test_an_output_of_another_size_than_the_window_is_refused():
    with pytest.raises(ValueError, match="expected 1 predictions of the windows' own size"):
        list(stream_windows(torch.zeros(1, 6, 6), lambda x: x[..., ::2], SlidingWindow((4, 4))))


def test_a_fill_for_another_number_of_classes_is_refused():
    image = torch.ones(1, 6, 6)
    with pytest.raises(ValueError, match="gives 1 classes; expected 2"):
        list(stream_windows(image, lambda x: x, SlidingWindow((4, 4)), skip=SkipAir(0, (1, 0))))
    with pytest.raises(ValueError, match="fill must have one number for each class, got none"):
        SkipAir(0, ())


def test_networks_of_different_classes_are_refused():
    networks = [lambda x: x, five_and_seven]
    with pytest.raises(ValueError, match="Networks give 1 and 2 classes"):
        list(stream_windows(torch.zeros(1, 6, 6), networks, SlidingWindow((4, 4))))


def test_a_batch_is_filled_up_with_mirrored_windows():
    window = SlidingWindow(roi_size=(6, 6), sw_batch_size=4, overlap=0.5, mode="gaussian")
    image = torch.randn(
        1, 6, 9, generator=torch.Generator().manual_seed(3)
    )  # two windows, and their mirror images
    network = PositionedConv(1, 2, (6, 6), seed=1)
    sizes = []

    def counted(windows):
        sizes.append(len(windows))
        return network(windows)

    result = assembled(stream_windows(image, counted, window, flips=(0,), axis=1), (6, 9))
    assert max(sizes) <= 4
    assert len(sizes) < 4  # as many as there are windows, one by one
    assert sum(sizes) == 4
    expected = expected_of(window, image, [network], (0,), False, "volume")
    assert torch.allclose(result, expected.reshape(result.shape), atol=1e-5)
