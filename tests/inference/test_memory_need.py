import weakref
from math import prod

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from medimg3d.errors import UsageError
from medimg3d.inference.memory_need import (
    Averaging,
    default_block,
    gigabytes,
    least_memory_axis,
    memory_need,
    plan_stream,
)
from medimg3d.inference.sliding_window import SlidingWindow
from medimg3d.inference.streaming import stream_windows


class Held(TorchDispatchMode):
    """Counts the bytes of all tensors made within it that are alive, and their peak."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self.known = WeakIdKeyDictionary()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        before = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        given = {leaf.untyped_storage().data_ptr() for leaf in before}
        output = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(output):
            if isinstance(leaf, torch.Tensor) and leaf.untyped_storage().data_ptr() not in given:
                self._count(leaf.untyped_storage())
        return output

    def _count(self, storage):
        if storage not in self.known:
            self.known[storage] = True
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._release, storage.nbytes())

    def _release(self, count):
        self.now -= count


def peak_of(spatial, window, *, classes, channels=1, dtype=torch.float32, networks=1, **arguments):
    """Peak bytes of a stream whose blocks are drawn and dropped one by one; the image is not among them."""
    image = torch.zeros((channels, *spatial))

    def network(windows):
        output = torch.empty((windows.shape[0], classes, *windows.shape[2:]), dtype=dtype)
        return output.zero_()

    with Held() as held:
        for block in stream_windows(image, [network] * networks, window, **arguments):
            assert block.values.shape[0] == classes
        del block
    return held


WINDOW = SlidingWindow((8, 6, 10), overlap=0.5, mode="gaussian", sw_batch_size=2)


@pytest.mark.parametrize(
    ("order", "averaging", "dtype", "networks"),
    [
        ({}, {}, torch.float32, 1),
        ({"axis": 0}, {}, torch.float32, 1),
        ({"axis": 2, "block": 1}, {}, torch.float32, 1),
        ({"axis": 1, "tile": (9, 7)}, {}, torch.float32, 1),
        ({}, {"softmax": True}, torch.float32, 1),
        ({}, {"flips": (0, 2)}, torch.float32, 1),
        ({"block": 2}, {"flips": (1,), "softmax": True}, torch.float32, 2),
        ({}, {"flips": (0, 1, 2), "softmax": True, "merge": "window"}, torch.float32, 1),
        ({}, {}, torch.float16, 1),
        ({}, {"merge": "window", "flips": (0,)}, torch.float16, 2),
    ],
)
def test_the_peak_of_a_real_run_stays_below_the_need_and_near_it(order, averaging, dtype, networks):
    spatial = (21, 17, 23)
    need = memory_need(
        WINDOW,
        spatial,
        classes=5,
        channels=2,
        averaging=Averaging(networks=networks, **averaging),
        output_bytes=dtype.itemsize,
        **order,
    )
    held = peak_of(
        spatial, WINDOW, classes=5, channels=2, dtype=dtype, networks=networks, **order, **averaging
    )
    assert 0.7 * need.streaming < held.peak <= need.streaming
    assert held.now == 0


def test_the_peak_does_not_grow_with_the_length_of_the_volume():
    peaks = {
        length: peak_of((length, 12, 12), SlidingWindow((8, 8, 8), overlap=0.5), classes=4).peak
        for length in (24, 96)
    }
    assert peaks[24] == peaks[96]


def test_every_part_of_the_need_by_hand():
    """Image 10 x 20 x 30, window 4 x 5 x 6, 3 classes, along axis 2 in tiles of 5 x 10."""
    window = SlidingWindow((4, 5, 6), overlap=0.0, sw_batch_size=2)
    need = memory_need(window, (10, 20, 30), classes=3, axis=2, tile=(5, 10), block=2, network=1000)
    assert need.volume == 10 * 20 * 30 * 4
    assert need.buffers == (3 + 1) * (5 * 10 * 6) * 4
    assert need.importance == 4 * 5 * 6 * 4
    assert need.windows == 2 * (1 + 3) * (4 * 5 * 6) * 4
    assert need.held == 3 * (5 * 10 * 2) * 4
    assert need.finishing == (3 + 1) * (5 * 10 * 2) * 4
    assert need.streaming == 4800 + 480 + 1200 + max(3840, 1600)
    assert need.total == 24000 + 10320 + 1000


def test_four_orientations_need_four_buffers_stitched_apart_and_one_together():
    window = SlidingWindow((4, 4, 4), overlap=0.5)
    sizes = {
        merge: memory_need(window, (16, 16, 16), classes=2, averaging=Averaging((0, 1), merge=merge)).buffers
        for merge in ("volume", "window")
    }
    assert sizes["volume"] == 4 * sizes["window"]


def test_passes_and_calls_of_two_networks_and_two_orientations():
    assert (Averaging((0,), 2).passes, Averaging((0,), 2).calls) == (2, 2)
    assert (Averaging((0,), 2, softmax=True).passes, Averaging((0,), 2, softmax=True).calls) == (4, 1)
    assert (Averaging((0,), 2, merge="window").passes, Averaging((0,), 2, merge="window").calls) == (1, 4)


def test_a_head_of_105_classes_in_512_by_512_by_400_takes_an_eighth_of_all_classes_at_once():
    """MONAI's buffer and count map are 106 x 512 x 512 x 400 x 4 bytes, 44 GB."""
    window = SlidingWindow((96, 96, 96), overlap=0.5, mode="gaussian")
    whole = 106 * 512 * 512 * 400 * 4
    plan = plan_stream(window, (512, 512, 400), whole // 8, classes=105)
    assert plan.need.total <= whole // 8


def test_the_axis_of_least_memory_is_the_longest_for_a_cubic_window():
    assert least_memory_axis(SlidingWindow(16), (40, 50, 90)) == 2
    assert least_memory_axis(SlidingWindow(16), (40, 40, 40)) == 0
    assert least_memory_axis(SlidingWindow((40, 8, 40)), (64, 64, 64)) == 1


def test_a_block_is_a_sixteenth_of_the_ring_and_more_while_small():
    assert default_block(100, (96, 512, 512), 0) == 6
    assert default_block(2, (96, 10, 10), 0) == 96
    assert default_block(2, (8, 4000, 4000), 0) == 1


def test_a_plan_without_a_tight_cap_runs_each_window_once():
    window = SlidingWindow((8, 8, 8), overlap=0.5)
    plan = plan_stream(window, (20, 20, 20), 10**9, classes=3, averaging=Averaging((0,)))
    assert plan.tile is None
    assert plan.windows == 2 * 4**3


def test_a_tighter_cap_tiles_the_plane_and_a_run_of_it_stays_within():
    spatial, window = (40, 36, 30), SlidingWindow((8, 8, 8), overlap=0.5)
    free = plan_stream(window, spatial, 10**9, classes=6)
    cap = free.need.volume + free.need.streaming // 3
    plan = plan_stream(window, spatial, cap, classes=6)
    assert plan.tile is not None
    assert plan.windows > free.windows
    done = []
    held = peak_of(
        spatial,
        window,
        classes=6,
        axis=plan.axis,
        tile=plan.tile,
        block=plan.block,
        on_window=lambda count, total: done.append((count, total)),
    )
    assert prod(spatial) * 4 + held.peak <= cap
    assert done[-1] == (plan.windows, plan.windows)


def test_a_cap_that_nothing_fits_is_refused_with_the_least_that_would():
    spatial, window = (300, 300, 300), SlidingWindow((64, 64, 64), overlap=0.5)
    with pytest.raises(UsageError, match="300 x 300 x 300 voxels in 50 classes needs at least") as error:
        plan_stream(window, spatial, 10**8, classes=50)
    least = float(str(error.value).split("at least ")[1].split(" GB")[0])
    assert plan_stream(window, spatial, round(least * 10**9), classes=50).need.total <= least * 10**9


def test_figures_in_messages_are_rounded_to_the_safe_side():
    assert gigabytes(1_230_000_001) == "1.24 GB"
    assert gigabytes(1_239_999_999, down=True) == "1.23 GB"
