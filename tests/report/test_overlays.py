import numpy as np
import pytest
from matplotlib.image import imread

from medimg3d.report.case_overlay import case_overlay
from medimg3d.report.overlays import PLANES, _biggest_section, _planes, _section, overlay_figure

NAMES = {1: "front", 2: "rear"}


def box() -> np.ndarray:
    label = np.zeros((10, 12, 8), np.uint8)
    label[2:5, 3:9, 4:6] = 1
    return label


def test_draws_a_picture_of_one_size_whatever_the_labels(tmp_path):
    for name, label in (("full", box()), ("empty", box() * 0)):
        path = overlay_figure(
            box().astype(float), label, spacing_mm=(1, 1, 3), class_names=NAMES, path=tmp_path / f"{name}.png"
        )
        assert imread(path).shape[:2] == (660, 1650)


def test_the_class_colour_is_in_the_picture_and_the_truth_is_white(tmp_path):
    grey = np.tile(np.linspace(0, 0.6, 12)[None, :, None], (10, 1, 8))
    draw = {"spacing_mm": (1, 1, 1), "class_names": {1: "front"}}
    alone = imread(overlay_figure(grey, box(), path=tmp_path / "a.png", **draw))[..., :3]
    moved = np.roll(box(), 3, axis=1)
    both = imread(overlay_figure(grey, box(), truth=moved, path=tmp_path / "b.png", **draw))[..., :3]
    orange = np.array([0xE6, 0x9F, 0x00]) / 255
    assert (np.abs(alone - orange).max(axis=-1) < 0.02).sum() > 100
    assert np.any(alone != both)


def test_same_input_gives_the_same_bytes(tmp_path):
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path in paths:
        overlay_figure(box(), box(), spacing_mm=(1, 1, 1), class_names=NAMES, path=path)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_the_biggest_section_is_the_middle_of_the_planes_that_cut_most():
    assert [_biggest_section(box(), axis) for axis in range(3)] == [3, 6, 5]
    assert _biggest_section(box() * 0, 0) == 5


@pytest.mark.parametrize(("plane", "shape"), list(zip(PLANES, [(12, 10), (8, 10), (8, 12)], strict=True)))
def test_rows_of_a_section_run_up_the_page_and_columns_across_it(plane, shape):
    assert _section(box(), plane, 4).shape == shape


def test_axes_that_run_to_the_left_and_back_are_turned_to_ras(tmp_path):
    """The same anatomy stored as LPS and as RAS gives the same picture."""
    image = np.random.default_rng(0).normal(size=(10, 12, 8)) + box()
    ras, lps = np.eye(4), np.diag([-1.0, -1.0, 1.0, 1.0])
    first = case_overlay(image, box(), ras, class_names=NAMES, title="", path=tmp_path / "ras.png")
    flipped = (image[::-1, ::-1], box()[::-1, ::-1])
    second = case_overlay(*flipped, lps, class_names=NAMES, title="", path=tmp_path / "lps.png")
    assert first.read_bytes() == second.read_bytes()


def test_images_without_contrast_or_numbers_are_drawn(tmp_path):
    for value in (7.0, np.nan):
        image = np.full(box().shape, value)
        path = tmp_path / "flat.png"
        assert overlay_figure(image, box(), spacing_mm=(1, 1, 1), class_names=NAMES, path=path).stat().st_size


def test_arrays_of_different_shapes_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"shapes \(10, 12, 8\), \(9, 12, 8\); expected one 3D shape"):
        overlay_figure(box(), box()[1:], spacing_mm=(1, 1, 1), class_names=NAMES, path=tmp_path / "a.png")


def test_an_image_of_two_axes_is_one_picture_of_its_own_plane(tmp_path):
    coronal = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    draw = {"class_names": NAMES, "title": "", "affine": coronal}
    flat, thin = box()[:, 5], box()[:, 5, :, None]
    first = case_overlay(flat, flat, path=tmp_path / "two.png", **draw)
    second = case_overlay(thin, thin, path=tmp_path / "three.png", **draw)
    assert imread(first).shape[:2] == (660, 750)
    assert first.read_bytes() == second.read_bytes()
    assert [plane.name for plane in _planes((10, 1, 8))] == ["coronal"]
    assert _planes((10, 12, 8)) == PLANES
