"""Patch, poolings and kernels, against values worked out by nnU-Net's rules by hand."""

from __future__ import annotations

import pytest

from medimg3d.planning.topology import even_topology, first_patch, fit_topology, shrink


def test_hippocampus_is_halved_three_times_on_40_56_40():
    # 35 -> 18 -> 9 -> 5; 5 < 2 * 4 ends it
    topology = fit_topology((35, 50, 36), (1, 1, 1))
    assert topology.patch == (40, 56, 40)
    assert topology.strides == ((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2))
    assert topology.divisors == (8, 8, 8)
    assert all(kernel == (3, 3, 3) for kernel in topology.kernels)


def test_thick_slices_wait_until_voxels_are_about_cubes():
    # 1.5 x 1.5 x 10 mm: 1.5, 3 and 6 mm in the plane; at 6 mm the slices are less than twice as long
    topology = fit_topology((128, 128, 12), (1.5, 1.5, 10.0))
    assert topology.strides[:4] == ((1, 1, 1), (2, 2, 1), (2, 2, 1), (2, 2, 2))
    assert topology.kernels[0] == (3, 3, 1)
    assert topology.kernels[2] == (3, 3, 3)
    assert topology.divisors == (32, 32, 2)


def test_one_kernel_for_all_levels_is_3_along_an_axis_that_is_halved():
    topology = fit_topology((128, 128, 12), (1.5, 1.5, 10.0)).with_one_kernel()
    assert set(topology.kernels) == {(3, 3, 3)}
    assert len(topology.kernels) == topology.num_levels


def test_one_kernel_is_3_along_an_axis_that_is_halved_under_kernels_of_1():
    # in the plane 16 -> 8 -> 4 ends it at 4 mm; then 40 mm slices are halved alone, ten times as long as the shortest
    topology = fit_topology((16, 16, 16), (1, 1, 40))
    assert topology.divisors == (4, 4, 4)
    assert all(kernel[2] == 1 for kernel in topology.kernels)
    assert set(topology.with_one_kernel().kernels) == {(3, 3, 3)}


def test_one_kernel_stays_1_along_an_axis_that_is_never_halved_or_mixed():
    # 5 slices cannot be halved; 20 mm are 5 times the 4 mm of the lowest level
    topology = fit_topology((64, 64, 5), (1, 1, 20), max_poolings=2)
    assert set(topology.with_one_kernel().kernels) == {(3, 3, 1)}


def test_one_kernel_of_cubes_changes_nothing():
    topology = fit_topology((35, 50, 36), (1, 1, 1))
    assert topology.with_one_kernel() == topology


def test_no_axis_is_halved_more_often_than_asked():
    assert fit_topology((256, 256), (1, 1), max_poolings=3).divisors == (8, 8)


def test_a_patch_of_a_network_that_halves_all_axes_is_widened_to_its_multiple():
    topology = even_topology((35, 50, 10), levels=6)
    assert topology.patch == (64, 64, 32)
    assert topology.divisors == (32, 32, 32)


def test_two_voxels_stay_at_the_bottom():
    assert even_topology((20, 30), levels=6).patch == (32, 64)


def test_first_patch_is_the_whole_image_where_that_is_small():
    assert first_patch((35, 50, 36), (1, 1, 1), most_voxels=1e6) == (35, 50, 36)


def test_first_patch_is_as_long_in_mm_along_every_axis():
    # 64 000 voxels of 1 x 1 x 4 mm: a cube of a mm with a³ / 4 = 64 000, a = 63.5
    assert first_patch((500, 500, 500), (1, 1, 4), most_voxels=64_000) == (63, 63, 16)


def test_what_a_short_axis_leaves_over_the_others_use():
    # 10 slices are all there are: 64 000 / 10 = 6 400 = 80 x 80
    assert first_patch((500, 500, 10), (1, 1, 1), most_voxels=64_000) == (80, 80, 10)


def test_the_axis_that_covers_most_of_the_image_shrinks_first():
    assert shrink((64, 64, 32), (128, 100, 200), (8, 8, 8)) == (64, 56, 32)


def test_a_patch_of_8_voxels_shrinks_no_more():
    assert shrink((8, 8, 8), (8, 8, 8), (4, 4, 4)) == pytest.approx((8, 8, 8))
