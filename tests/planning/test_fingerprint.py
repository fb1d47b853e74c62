"""Fingerprints of cases: what they hold, and that nothing is read twice."""

from __future__ import annotations

import numpy as np
import phantoms
import pytest

from medimg3d.data.datalist_file import load_datalist
from medimg3d.planning import fingerprint as module
from medimg3d.planning.data_facts import gather_facts
from medimg3d.planning.fingerprint import fingerprint_cases


@pytest.fixture
def study(tmp_path):
    return load_datalist(phantoms.write_decathlon(tmp_path / "study", 3) / "dataset.json")


def test_facts_of_three_phantoms(study, tmp_path):
    facts = gather_facts(fingerprint_cases(study, tmp_path / "cache", workers=1), study)
    assert facts.num_cases == facts.num_labelled == 3
    assert facts.median_shape == (30, 42, 28)
    assert facts.spacings_mm == ((1, 1, 1),) * 3
    assert facts.label_voxels[1] == 10 * 12 * 8
    assert facts.channels[0].inside["mean"] == pytest.approx(200, abs=3)  # 100 + (80 + 120) / 2
    assert facts.channels[0].inside_is_labelled


def test_a_second_time_no_image_is_read(study, tmp_path, monkeypatch):
    first = fingerprint_cases(study, tmp_path / "cache", workers=1)
    monkeypatch.setattr(module, "read_pixels", None)
    assert fingerprint_cases(study, tmp_path / "cache", workers=1) == first


def test_axes_are_counted_in_ras_order(tmp_path):
    turned = np.zeros((4, 4))
    turned[0, 2], turned[1, 0], turned[2, 1], turned[3, 3] = 3.0, 1.0, 2.0, 1.0  # array axes run A, S, R
    image = np.arange(5 * 6 * 7, dtype=np.float32).reshape(5, 6, 7)
    phantoms.write_nifti(tmp_path / "image.nii.gz", image, turned)
    (tmp_path / "list.json").write_text('{"training": [{"image": "image.nii.gz"}]}')
    one = fingerprint_cases(load_datalist(tmp_path / "list.json"), tmp_path / "cache", workers=1)[0]
    assert one.images["image"].shape == (7, 5, 6)
    assert one.images["image"].spacing_mm == pytest.approx((3.0, 1.0, 2.0))


def test_a_missing_file_is_a_problem_of_its_case(tmp_path):
    (tmp_path / "list.json").write_text('{"training": [{"image": "absent.nii.gz"}]}')
    one = fingerprint_cases(load_datalist(tmp_path / "list.json"), tmp_path / "cache", workers=1)[0]
    assert "cannot be read" in one.problem


def test_the_box_of_what_is_labelled_is_counted_in_ras_order_without_ignored_voxels(tmp_path):
    turned = np.zeros((4, 4))
    turned[0, 2], turned[1, 0], turned[2, 1], turned[3, 3] = 3.0, 1.0, 2.0, 1.0  # array axes run A, S, R
    label = np.zeros((5, 6, 7), np.uint8)
    label[1:3, 4, 2:6] = 1
    label[0, 0, 0] = 255
    for name, array in (("image", np.ones((5, 6, 7), np.float32)), ("label", label), ("empty", 0 * label)):
        phantoms.write_nifti(tmp_path / f"{name}.nii.gz", array, turned)
    cases = ", ".join(
        f'{{"id": "{name}", "image": "image.nii.gz", "label": "{name}.nii.gz"}}'
        for name in ("label", "empty")
    )
    (tmp_path / "list.json").write_text(f'{{"labels": {{"0": "b", "1": "x"}}, "training": [{cases}]}}')
    found = fingerprint_cases(
        load_datalist(tmp_path / "list.json"), tmp_path / "cache", workers=1, ignore_label=255
    )
    assert [one.box for one in found] == [((2, 6), (1, 3), (4, 5)), ()]
