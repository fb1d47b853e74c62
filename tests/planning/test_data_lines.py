"""What ``plan.md`` says of orientation, anisotropy and volumes, on facts made up by hand."""

from __future__ import annotations

from types import SimpleNamespace

from facts import channel, facts

from medimg3d.planning.pages import _data_lines


def lines(**values):
    """The table of a plan of MRI volumes, row by row."""
    return _data_lines(SimpleNamespace(facts=facts(channels=(channel(),), **values), modalities=("mri",)))


def test_orientations_are_counted_the_most_frequent_first():
    found = lines(orientations=("LPS", "RAS", "RAS"))
    assert "| orientation of the files | RAS in 2, LPS in 1 |" in found


def test_files_that_state_no_orientation_are_counted_and_named_so():
    assert "| orientation of the files | RAS in 1, not stated in 1 |" in lines(orientations=("RAS", ""))
    assert not any("orientation" in line for line in lines(orientations=("", "")))


def test_anisotropy_is_the_longest_edge_over_the_shortest():
    found = lines(spacings_mm=((1.0, 1.0, 1.0), (0.5, 0.5, 2.0), (1.0, 1.0, 3.0)), shapes=((9, 9, 9),) * 3)
    assert "| anisotropy (longest to shortest voxel edge) | 1 to 4, median 3 |" in found
    assert "| anisotropy (longest to shortest voxel edge) | 1 |" in lines()
    assert not any("anisotropy" in line for line in lines(spacings_mm=(None,) * 10))


def test_median_volumes_stand_beside_the_voxels_where_they_are_known():
    assert "| label 1: liver | in 10 cases, 4000 voxels, 4 mL (median) |" in lines(label_ml={1: 4.0})
    assert "| label 1: liver | in 10 cases, 4000 voxels, 1512 mL (median) |" in lines(label_ml={1: 1512.3})
    assert "| label 1: liver | in 10 cases, 4000 voxels (median) |" in lines()
