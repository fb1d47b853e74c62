import numpy as np
import pytest
from matplotlib.image import imread
from phantoms import affine, oblique_affine

from medimg3d.data.pixels import Pixels
from medimg3d.report.colors import class_color
from medimg3d.report.explore_figures import _bar_colors, _edges, count_bars, histograms, size_scatter
from medimg3d.report.sample_grid import Sample, sample_grid, sample_of


def marked(shape=(6, 8, 4)) -> np.ndarray:
    """1,000 at the voxel at the patient's right, front and top in RAS order; else the number of the slice."""
    array = np.broadcast_to(np.arange(shape[2], dtype=float), shape).copy()
    array[0, -1, :] = 1000
    return array


def test_bars_of_parts_that_lack_a_class_or_all_cases(tmp_path):
    counts = {"training": {"a": 5000, "b": 1}, "test": {"a": 0, "b": 0}}
    assert imread(count_bars(counts, tmp_path / "bars.png", title="Cases")).size


def test_histograms_of_one_value_of_no_value_and_of_whole_numbers(tmp_path):
    panels = {
        "constant": {"a": np.zeros(5), "b": np.zeros(0)},
        "nothing": {"a": np.zeros(0)},
        "whole": {"a": np.arange(1000.0), "b": np.repeat([0.0, 255.0], 50)},
        "fractions": {"a": np.linspace(0, 1, 50)},
    }
    assert imread(histograms(panels, tmp_path / "h.png")).shape[0] == 2 * 290 * 150 // 100


def test_values_that_come_in_steps_have_as_many_steps_in_every_bin():
    shares = np.tile(np.arange(100) / 448, 10)  # shares of 448 lines, each as often
    assert set(np.histogram(shares, _edges(shares))[0][1:-2]) == {20}
    whole = np.tile(np.arange(256.0), 4)
    assert set(np.histogram(whole, _edges(whole))[0][1:-2]) == {16}
    smooth = np.random.default_rng(0).random(500)
    assert np.ptp(np.diff(_edges(smooth))) == pytest.approx(0)


def test_a_value_that_is_a_class_keeps_its_colour_and_others_are_grey():
    assert _bar_colors(["bacteria", "normal"], ["NORMAL", "PNEUMONIA"]) == ["0.65", class_color(0)]
    assert _bar_colors(["a", "b"], []) == [class_color(0), class_color(1)]


def test_the_same_sizes_give_the_same_bytes(tmp_path):
    sizes = {"training": [(10, 20), (10, 20)], "test": [(30, 5)]}
    first = size_scatter(sizes, tmp_path / "a.png").read_bytes()
    assert size_scatter(sizes, tmp_path / "b.png").read_bytes() == first


def test_a_volume_shows_its_middle_slice_with_the_patients_right_on_the_left():
    sample = sample_of("a", Pixels(marked(), (1.0,) * 3, affine()), None, (0, 1))
    assert sample.picture.shape == (8, 6)
    assert sample.picture[0, -1] == 1000  # RAS: the low end of I is the patient's left
    assert sample.picture[-1, 0] == 2


def test_a_volume_stored_the_other_way_round_shows_the_same():
    turned = affine()
    turned[0, 0] = -1
    image = Pixels(marked()[::-1], (1.0,) * 3, turned)
    assert sample_of("a", image, None, (0, 1)).picture[0, -1] == 1000


def test_a_label_map_chooses_the_slice_with_most_voxels():
    label = np.zeros((6, 8, 4))
    label[2:4, 2:4, 3] = 1
    image = Pixels(marked(), (1.0,) * 3, affine())
    sample = sample_of("a", image, Pixels(label, (1.0,) * 3, affine()), (0, 1))
    assert sample.picture[-1, 0] == 3
    assert sample.label.sum() == 4


def test_slices_lie_across_the_longest_side_of_the_voxels():
    image = Pixels(np.zeros((4, 8, 6)), (5.0, 1.0, 2.0), oblique_affine((5.0, 1.0, 2.0)))
    sample = sample_of("a", image, None, (0, 1))
    assert sample.picture.shape == (6, 8)  # sagittal: rows to the head, columns to the front
    assert sample.aspect == pytest.approx(2.0)


def test_a_picture_is_shown_as_it_is_and_a_large_one_by_the_means_of_blocks():
    columns, rows = 700, 400
    array = np.add.outer(np.arange(columns), np.zeros(rows))  # I along the columns
    sample = sample_of("a", Pixels(array, None, None), Pixels(array > 3, None, None), (0, 1))
    assert sample.picture.shape == sample.label.shape == (133, 233)
    assert sample.picture[0, :2].tolist() == [1, 4]


def test_a_grid_of_rows_of_different_length_with_outlines(tmp_path):
    sample = Sample("a name that is far too long to be written", np.eye(20), np.tri(20), (0, 0))
    path = sample_grid(
        [("ill", [sample] * 3), ("well", [sample])], tmp_path / "g.png", label_names={1: "half"}
    )
    assert imread(path).shape[:2] == (615, 862)
