"""What ``plan.md`` says of orientation, anisotropy and volumes, on facts made up by hand."""

from __future__ import annotations

import json
from types import SimpleNamespace

import phantoms
from facts import channel, facts

from medimg3d.data.datalist_file import load_datalist
from medimg3d.planning.data_facts import gather_facts
from medimg3d.planning.fingerprint import fingerprint_cases
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


def test_an_ignored_value_is_called_so(tmp_path):
    study = phantoms.write_decathlon(tmp_path / "study", 3)
    label = phantoms.two_part_phantom(0)[1]
    label[:, :, 20:] = 255
    phantoms.write_nifti(study / "labelsTr" / "phantom_000.nii.gz", label)
    file = study / "dataset.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"ignore_label": 255}))
    listed = load_datalist(file)
    prints = fingerprint_cases(listed, tmp_path / "cache", workers=1, ignore_label=255)
    assert gather_facts(prints, listed).labels == {0: "background", 1: "front", 2: "rear", 255: "ignored"}
