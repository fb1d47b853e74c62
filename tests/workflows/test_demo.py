import json
import shutil
import sys

import nibabel
import numpy as np
import pytest
from phantoms import affine, write_threshold_bundle

from medimg3d.data.nifti_header import geometry_header
from medimg3d.data.volume_file import Volume, read_volume
from medimg3d.errors import MissingExtraError
from medimg3d.workflows import demo as demo_module
from medimg3d.workflows.demo import cut_regions, demo, hippocampal_boxes


def _head(spacing_mm=1.0):
    """A made-up head on the template's grid: 100 in a ball of 6 mm about each hippocampus, else 0."""
    matrix = affine((spacing_mm,) * 3, (-98.0, -134.0, -72.0))
    shape = tuple(int(size / spacing_mm) for size in (197, 233, 189))
    i, j, k = np.indices(shape, dtype=np.float32) * spacing_mm
    array = np.zeros(shape, np.float32)
    for x, y, z in ((-28, -22, -14), (28, -22, -14)):
        array[(i - 98 - x) ** 2 + (j - 134 - y) ** 2 + (k - 72 - z) ** 2 <= 36] = 100
    return Volume(array, matrix, geometry_header(shape, matrix, code="mni"), has_known_size=True)


def test_boxes_are_36_by_52_by_36_mm_about_each_hippocampus():
    boxes = hippocampal_boxes(_head())
    assert {side: box.shape for side, box in boxes.items()} == {"left": (36, 52, 36), "right": (36, 52, 36)}
    for side, x in (("left", -28), ("right", 28)):
        middle = boxes[side].affine(_head().affine) @ [17.5, 25.5, 17.5, 1]
        np.testing.assert_allclose(middle[:3], (x, -22, -14), atol=0.51)


def test_boxes_at_2_mm_have_half_as_many_voxels():
    assert hippocampal_boxes(_head(2.0))["left"].shape == (18, 26, 18)


def test_regions_are_saved_where_they_lie_in_the_head(tmp_path):
    head = _head()
    boxes = hippocampal_boxes(head)
    for file in cut_regions(head, boxes, tmp_path):
        region = read_volume(file)
        box = boxes[file.name.removesuffix(".nii.gz")]
        np.testing.assert_array_equal(region.array, head.array[box.slices])
        ijk = np.argwhere(region.array > 0).mean(axis=0)
        x = -28 if "left" in file.name else 28
        np.testing.assert_allclose((region.affine @ [*ijk, 1])[:3], (x, -22, -14), atol=1e-3)


@pytest.fixture
def made_up_head(monkeypatch):
    head = _head()
    monkeypatch.setattr(demo_module, "mni152_t1", lambda: head)
    return head


def test_label_maps_are_pasted_back_onto_the_head(made_up_head, tmp_path):
    bundle = write_threshold_bundle(tmp_path / "bundle")
    result = demo(bundle, tmp_path / "out", train_minutes=0)
    labels, head = nibabel.load(result.label_map), nibabel.load(result.template)
    np.testing.assert_array_equal(np.asanyarray(labels.dataobj), made_up_head.array > 50)
    np.testing.assert_allclose(labels.affine, head.affine, atol=1e-3)
    ball_ml = np.count_nonzero(made_up_head.array) / 2 / 1000
    for side in ("left", "right"):
        assert result.volumes_ml()[side] == pytest.approx({"grey": ball_ml, "white": 0, "total": ball_ml})
    assert (tmp_path / "out" / "prediction" / "index.html").is_file()
    assert result.skipped == "no training was asked for"


def test_training_is_skipped_with_a_word_where_no_data_is(made_up_head, tmp_path, monkeypatch):
    monkeypatch.delenv("MEDIMG3D_DATA", raising=False)
    result = demo(write_threshold_bundle(tmp_path / "bundle"), tmp_path / "out")
    assert result.training is None
    assert "MEDIMG3D_DATA" in result.skipped
    assert json.dumps(result.summary())


def test_a_missing_template_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nilearn.datasets", None)
    with pytest.raises(MissingExtraError, match=r"medimg3d\[demo\]"):
        demo(write_threshold_bundle(tmp_path / "bundle"), tmp_path / "out", train_minutes=0)


def test_the_template_has_1_mm_voxels_and_both_boxes_inside():
    pytest.importorskip("nilearn")
    from medimg3d.data.template import mni152_t1

    head = mni152_t1()
    assert head.spacing_mm == pytest.approx((1, 1, 1))
    for box in hippocampal_boxes(head).values():
        assert head.array[box.slices].min() >= 0
        assert head.array[box.slices].std() > 0.05


@pytest.mark.slow
@pytest.mark.realdata
def test_a_few_seconds_of_training_give_a_scored_bundle(
    made_up_head, data_root, bundle_root, tmp_path, monkeypatch
):
    monkeypatch.setattr(demo_module, "HELD_OUT_CASES", 2)
    recipe = tmp_path / "recipe"
    shutil.copytree(bundle_root, recipe, ignore=shutil.ignore_patterns("__pycache__"))
    _shorten(recipe / "configs" / "train.json")
    _draw_weights(recipe)
    result = demo(recipe, tmp_path / "out", train_minutes=0.05, data_root=data_root)
    assert result.training.held_out_cases == 2
    assert set(result.training.dice) >= {"Anterior", "Posterior"}  # as the data names them
    assert result.training.page.is_file()


def _shorten(config):
    content = json.loads(config.read_text())
    config.write_text(json.dumps(content | {"iterations_per_epoch": 1, "num_workers": 0}))


def _draw_weights(bundle):
    """Weights by lot: how good the shipped ones are is not the question here."""
    import torch
    from monai.bundle import ConfigParser

    parser = ConfigParser()
    parser.read_config(str(bundle / "configs" / "inference.json"))
    torch.manual_seed(0)
    (bundle / "models").mkdir(exist_ok=True)
    torch.save(parser.get_parsed_content("network_def").state_dict(), bundle / "models" / "model.pt")
