import numpy as np
import pytest
from matplotlib.image import imread

from medimg3d.report.heat_overlay import SCALES, film_heat_figure, hottest_slice, volume_heat_figure


def film() -> np.ndarray:
    return np.tile(np.linspace(0, 200, 40), (30, 1))


def spot(shape, at, value=1.0) -> np.ndarray:
    heat = np.zeros(shape, np.float32)
    heat[tuple(slice(n, n + 4) for n in at)] = value
    return heat


def coloured(path) -> np.ndarray:
    """Where the picture is not grey, shape (rows, columns); the colour bar and what is right of it left out."""
    rgb = imread(path)[..., :3]
    colour = rgb.max(axis=2) - rgb.min(axis=2) > 0.1
    return colour[:, : int(colour.shape[1] * 0.88)]


def test_heat_colours_the_right_panel_where_it_is_and_not_the_plain_one(tmp_path):
    colour = coloured(film_heat_figure(film(), spot((30, 40), (2, 30)), path=tmp_path / "a.png", title="a"))
    rows, columns = np.nonzero(colour)
    assert len(rows) > 100
    assert rows.mean() < colour.shape[0] / 2  # row 2 of 30: at the top
    assert columns.min() > colour.shape[1] / 2


def test_a_map_without_heat_colours_nothing(tmp_path):
    path = film_heat_figure(film(), np.zeros((30, 40)), path=tmp_path / "a.png", title="a")
    assert not coloured(path).any()


def test_evidence_for_is_red_and_against_is_blue(tmp_path):
    heat = spot((30, 40), (2, 30)) + spot((30, 40), (20, 5), -1.0)
    path = film_heat_figure(film(), heat, path=tmp_path / "a.png", title="a", scale=SCALES["occlusion"])
    colour, rgb = coloured(path), imread(path)[..., :3]
    picture = rgb[:, : colour.shape[1]]
    red, blue = colour & (picture[..., 0] > picture[..., 2]), colour & (picture[..., 2] > picture[..., 0])
    assert np.nonzero(red)[0].mean() < np.nonzero(blue)[0].mean()
    assert np.nonzero(red)[1].mean() > np.nonzero(blue)[1].mean()


def test_log_odds_of_next_to_nothing_do_not_look_like_evidence(tmp_path):
    heat = spot((30, 40), (2, 30), 0.001)
    path = film_heat_figure(film(), heat, path=tmp_path / "a.png", title="a", scale=SCALES["occlusion"])
    assert not coloured(path).any()


def test_pixels_twice_as_high_as_wide_make_a_taller_picture(tmp_path):
    heat = spot((30, 40), (2, 30))
    square, tall = (
        imread(film_heat_figure(film(), heat, path=tmp_path / "a.png", title="a", spacing_mm=spacing)).shape
        for spacing in (None, (2.0, 1.0))
    )
    assert tall[0] / tall[1] > 1.3 * square[0] / square[1]


def test_of_a_volume_the_slices_with_the_most_heat_are_drawn(tmp_path):
    heat = spot((10, 12, 8), (1, 6, 3), 0.5)
    heat[8, 1, 0] = 1.0  # the hottest point, but less heat in all its slices
    assert [hottest_slice(heat, axis) for axis in range(3)] == [1, 6, 3]
    assert hottest_slice(heat * 0, 1) == 6
    path = volume_heat_figure(heat, heat, np.eye(4), path=tmp_path / "a.png", title="a")
    colour = coloured(path)
    assert colour[colour.shape[0] // 2 :].sum() > 100
    assert not colour[: int(colour.shape[0] * 0.45)].any()


def test_a_volume_stored_as_lps_gives_the_picture_of_ras(tmp_path):
    image, heat = np.random.default_rng(0).normal(size=(10, 12, 8)), spot((10, 12, 8), (1, 6, 3))
    first = volume_heat_figure(image, heat, np.eye(4), path=tmp_path / "ras.png", title="a")
    lps = np.diag([-1.0, -1.0, 1.0, 1.0])
    flipped = (image[::-1, ::-1], heat[::-1, ::-1])
    second = volume_heat_figure(*flipped, lps, path=tmp_path / "lps.png", title="a")
    assert first.read_bytes() == second.read_bytes()


def test_shapes_that_differ_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"image of shape \(30, 40\) and a heat map of \(40, 30\)"):
        film_heat_figure(film(), film().T, path=tmp_path / "a.png", title="a")
    with pytest.raises(ValueError, match="expected one 3D shape"):
        volume_heat_figure(film(), film(), np.eye(4), path=tmp_path / "a.png", title="a")
