"""Arrays in compressed files: the same bits come back, and labels and positions take next to nothing."""

from __future__ import annotations

import numpy as np
import pytest

from medimg3d.data.packed_array import read_packed, write_packed
from medimg3d.errors import DataError

RANDOM = np.random.default_rng(0)
ARRAYS = {
    "half": RANDOM.normal(size=(1, 9, 8, 7)).astype(np.float16),
    "single with gaps": np.array([[0.1, np.nan], [np.inf, -0.0]], np.float32),
    "labels": RANDOM.integers(0, 5, (1, 9, 8, 7)).astype(np.uint8),
    "truth": RANDOM.random((5, 6)) > 0.5,
    "positions": np.flatnonzero(RANDOM.random(1000) > 0.3),
    "falling numbers": np.array([5, -7, 2**62, -(2**62)]),
    "one number": np.array(3.5),
    "none": np.zeros((0,), np.int64),
    "none of two axes": np.zeros((3, 0), np.float32),
    "turned": RANDOM.normal(size=(4, 5, 6)).transpose(2, 0, 1)[::2],
}


@pytest.mark.parametrize("name", ARRAYS)
def test_the_same_bits_come_back(tmp_path, name):
    array = ARRAYS[name]
    read = read_packed(tmp_path / "a.gz", write_packed(tmp_path / "a.gz", array))
    assert read.dtype == array.dtype
    assert read.shape == array.shape
    assert read.flags.writeable
    assert np.ascontiguousarray(read).tobytes() == np.ascontiguousarray(array).tobytes()


def test_labels_and_positions_take_next_to_nothing(tmp_path):
    label = np.zeros((1, 60, 60, 60), np.uint8)
    label[:, 20:40, 20:40, 20:40] = 1
    for array in (label, np.flatnonzero(label == 0)):
        write_packed(tmp_path / "a.gz", array)
        assert (tmp_path / "a.gz").stat().st_size < 0.02 * label.size


def test_a_damaged_file_is_named(tmp_path):
    described = write_packed(tmp_path / "a.gz", ARRAYS["half"])
    (tmp_path / "a.gz").write_bytes((tmp_path / "a.gz").read_bytes()[:-30])
    with pytest.raises(DataError, match=r"a\.gz is damaged"):
        read_packed(tmp_path / "a.gz", described)
