from __future__ import annotations

import numpy as np
import phantoms
import pytest
from monai.transforms import LoadImage
from PIL import Image

from medimg3d.data.film_reader import FilmReader, read_film


@pytest.fixture
def film() -> np.ndarray:
    """A film of 24 x 32 with 12-bit values that 8 bits hold exactly: multiples of 16."""
    values = np.random.default_rng(0).integers(0, 256, (24, 32))
    return (values * 16).astype(np.uint16)


def test_rows_come_first(tmp_path):
    path = phantoms.write_picture(tmp_path / "a.png", size=(12, 8))
    assert read_film(path).pixels.shape == (8, 12)


def test_grey_stored_as_colour_has_the_same_pixels(tmp_path, film):
    grey = Image.fromarray((film // 16).astype(np.uint8))
    grey.save(tmp_path / "grey.png")
    grey.convert("RGB").save(tmp_path / "colour.png")
    np.testing.assert_array_equal(
        read_film(tmp_path / "grey.png").pixels, read_film(tmp_path / "colour.png").pixels
    )


def test_sixteen_bit_png_keeps_its_values(tmp_path, film):
    Image.fromarray(film).save(tmp_path / "deep.png")
    np.testing.assert_array_equal(read_film(tmp_path / "deep.png").pixels, film.astype(np.float32))


def test_colours_become_their_luma(tmp_path):
    Image.new("RGB", (4, 4), (100, 50, 200)).save(tmp_path / "c.png")
    # 0.299 * 100 + 0.587 * 50 + 0.114 * 200
    np.testing.assert_allclose(read_film(tmp_path / "c.png").pixels, 82.05, rtol=1e-6)


def test_monochrome1_is_turned_round(tmp_path, film):
    plain = phantoms.write_dicom_film(tmp_path / "two.dcm", film, photometric="MONOCHROME2")
    inverted = phantoms.write_dicom_film(tmp_path / "one.dcm", film.max() - film, photometric="MONOCHROME1")
    one, two = read_film(inverted).pixels, read_film(plain).pixels
    np.testing.assert_array_equal(one - one.min(), two - two.min())


def test_the_files_window_shuts_out_what_lies_beyond(tmp_path, film):
    path = phantoms.write_dicom_film(tmp_path / "w.dcm", film, window=(2048, 1024))
    windowed = read_film(path).pixels
    outside = film > 2048 + 512
    assert windowed[outside].min() == windowed.max()
    np.testing.assert_array_equal(read_film(path, window="none").pixels, film.astype(np.float32))


def test_dicom_is_known_by_its_content_and_tells_its_spacing(tmp_path, film):
    path = phantoms.write_dicom_film(tmp_path / "no_ending", film, spacing_mm=(0.2, 0.3))
    assert read_film(path).spacing_mm == (0.2, 0.3)


def test_padding_becomes_black(tmp_path, film):
    padded = film.copy()
    padded[:4] = 60000
    pixels = read_film(phantoms.write_dicom_film(tmp_path / "p.dcm", padded, padding=60000)).pixels
    assert (pixels[:4] == pixels[4:].min()).all()


def test_the_reader_gives_monai_the_same_pixels(tmp_path, film):
    Image.fromarray(film).save(tmp_path / "deep.png")
    image = LoadImage(reader=FilmReader(), ensure_channel_first=True, image_only=True)(tmp_path / "deep.png")
    assert image.shape == (1, 24, 32)
    np.testing.assert_array_equal(image.numpy()[0], film.astype(np.float32))


def test_several_films_become_channels(tmp_path, film):
    Image.fromarray(film).save(tmp_path / "a.png")
    image = LoadImage(reader=FilmReader(), ensure_channel_first=True)(
        [tmp_path / "a.png", tmp_path / "a.png"]
    )
    assert image.shape == (2, 24, 32)


def test_files_that_are_no_film_say_why(tmp_path, film):
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "text.dcm").write_text("no DICOM")
    frames = [Image.new("L", (4, 4), value) for value in (1, 2)]
    frames[0].save(tmp_path / "two.tif", save_all=True, append_images=frames[1:])
    whole = phantoms.write_dicom_film(tmp_path / "whole.dcm", film)
    (tmp_path / "cut.dcm").write_bytes(whole.read_bytes()[:-400])
    for name, reason in {
        "text.png": "cannot be decoded as a picture",
        "text.dcm": "is none, or is damaged",
        "two.tif": "holds 2 pictures",
        "cut.dcm": "cannot be decoded",
        "absent.png": "is missing",
    }.items():
        with pytest.raises(ValueError, match=reason):
            read_film(tmp_path / name)


def test_an_unknown_window_is_refused(tmp_path):
    with pytest.raises(ValueError, match="window must be one of voi, none, got 'lung'"):
        FilmReader(window="lung")


@pytest.mark.realdata
@pytest.mark.parametrize("picture", ["CT1", "CT2", "MR1", "MR4", "NM1"])
def test_every_lossless_codec_gives_the_uncompressed_pixels(data_root, picture):
    folder = data_root / "dicom_codecs" / picture
    expected = read_film(folder / f"{picture}_UNC.dcm", window="none").pixels
    for codec in ("J2KR", "JLSL", "JPLL", "RLE"):
        found = read_film(folder / f"{picture}_{codec}.dcm", window="none").pixels
        np.testing.assert_array_equal(found, expected, err_msg=codec)


@pytest.mark.realdata
def test_a_real_monochrome1_film_comes_out_with_bright_bones(data_root):
    import pydicom

    path = data_root / "dicom_xray" / "dx_monochrome1_crop.dcm"
    stored = pydicom.dcmread(path).pixel_array.astype(float)
    assert np.corrcoef(stored.ravel(), read_film(path, window="none").pixels.ravel())[0, 1] < -0.999
