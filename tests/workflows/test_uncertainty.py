import csv
import json

import nibabel
import numpy as np
import phantoms
import pytest
import torch

from medimg3d.errors import UsageError
from medimg3d.metrics.confidence import soft_dice_doubt, voxel_entropy
from medimg3d.workflows.predict import predict

PLAIN = {"overlays": False, "reports": False, "uncertainty": True}


def voxels(path) -> np.ndarray:
    return np.asanyarray(nibabel.load(path).dataobj)


@pytest.fixture
def bundle(tmp_path):
    """Thresholds whose outputs are small: probabilities between 0 and 1."""
    folder = phantoms.write_threshold_bundle(tmp_path / "bundle")
    state = torch.load(folder / "models" / "model.pt", weights_only=True)
    torch.save({name: value / 50 for name, value in state.items()}, folder / "models" / "model.pt")
    return folder


@pytest.fixture
def image(tmp_path):
    return phantoms.write_nifti(
        tmp_path / "in" / "a.nii.gz", phantoms.two_boxes(), phantoms.oblique_affine((1.0, 1.0, 1.0))
    )


def expected_probabilities() -> np.ndarray:
    x = phantoms.two_boxes()
    scores = np.stack([np.zeros_like(x), x - 50, 2 * x - 200]) / 50
    shares = np.exp(scores)
    return shares / shares.sum(0)


def with_threshold(bundle, doubt):
    stored = {"threshold": doubt, "level": 0.95, "held_out": [doubt] * 20}
    (bundle / "models" / "ensemble.json").write_text(json.dumps({"uncertainty": stored}))
    return bundle


def test_the_map_is_the_entropy_on_the_images_own_grid(bundle, image, tmp_path):
    result = predict(bundle, [image], tmp_path / "out", **PLAIN)
    made = nibabel.load(tmp_path / "out" / "uncertainty" / "a_uncertainty.nii.gz")
    np.testing.assert_allclose(made.affine, nibabel.load(image).affine, atol=1e-6)
    probabilities = expected_probabilities()
    inside = np.s_[1:-1, 1:-1, 1:-1]
    np.testing.assert_allclose(made.get_fdata()[inside], voxel_entropy(probabilities)[inside], atol=2e-3)
    np.testing.assert_array_equal(voxels(result.cases[0].label_map), probabilities.argmax(0))
    assert not list((tmp_path / "out").rglob("*_disagreement.nii.gz"))  # one network alone


def test_the_label_map_is_the_one_without_the_map(bundle, image, tmp_path):
    with_map = predict(bundle, [image], tmp_path / "with", **PLAIN)
    without = predict(bundle, [image], tmp_path / "without", overlays=False, reports=False)
    np.testing.assert_array_equal(voxels(with_map.cases[0].label_map), voxels(without.cases[0].label_map))


def test_an_unusual_case_gets_a_warning_and_a_usual_one_none(bundle, image, tmp_path):
    doubt = soft_dice_doubt(expected_probabilities())
    unusual = predict(with_threshold(bundle, doubt / 2), [image], tmp_path / "unusual", **PLAIN)
    assert "less sure of it" in unusual.cases[0].note
    assert "95% of the 20 cross-validated cases" in unusual.cases[0].note
    usual = predict(with_threshold(bundle, doubt * 2), [image], tmp_path / "usual", **PLAIN)
    assert usual.cases[0].note == ""


def test_the_table_has_a_row_a_case_and_a_resumed_run_keeps_it(bundle, image, tmp_path):
    other = phantoms.write_nifti(tmp_path / "in" / "b.nii.gz", phantoms.two_boxes() * 0.6)
    with_threshold(bundle, 0.2)
    for _ in range(2):
        predict(bundle, [image, other], tmp_path / "out", resume=True, **PLAIN)
        with open(tmp_path / "out" / "uncertainty.csv", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert [row["case"] for row in rows] == ["b", "a"]  # the least sure one first
        assert [row["unusual"] for row in rows] == ["yes", "yes"]
        assert all(row["disagreement"] == "" for row in rows)  # one network


def test_a_backend_or_a_bound_on_memory_is_refused(bundle, image, tmp_path):
    for option in ({"backend": "compile"}, {"memory_gb": 4.0}):
        with pytest.raises(UsageError, match="leave --backend and --memory-gb away"):
            predict(bundle, [image], tmp_path / "out", **option, **PLAIN)
