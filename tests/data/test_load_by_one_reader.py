"""LoadImaged asks other readers when the named one refuses a file; LoadByOneReaderd does not."""

from __future__ import annotations

import numpy as np
import phantoms
import pytest
from monai.transforms import LoadImaged
from PIL import Image

from medimg3d.data.film_reader import FilmReader
from medimg3d.data.load_by_one_reader import LoadByOneReaderd


def test_a_film_is_loaded_as_loadimaged_does_it(tmp_path):
    path = phantoms.write_picture(tmp_path / "film.png", grey=70)
    own = LoadByOneReaderd("image", FilmReader())({"image": str(path)})["image"]
    stock = LoadImaged("image", FilmReader())({"image": str(path)})["image"]
    np.testing.assert_array_equal(own.numpy(), stock.numpy())
    assert own.meta["filename_or_obj"] == stock.meta["filename_or_obj"] == str(path)


def test_a_file_that_the_reader_refuses_is_refused_where_loadimaged_finds_another_reader(tmp_path):
    np.save(tmp_path / "array.npy", np.ones((8, 6), np.float32))
    item = {"image": str(tmp_path / "array.npy")}
    assert LoadImaged("image", FilmReader())(item)["image"].shape == (8, 6)
    with pytest.raises(ValueError, match="cannot be decoded as a picture"):
        LoadByOneReaderd("image", FilmReader())(item)


def test_two_pictures_in_one_file_are_refused(tmp_path):
    pictures = [Image.fromarray(np.full((8, 6), grey, np.uint8)) for grey in (10, 200)]
    pictures[0].save(tmp_path / "two.tif", save_all=True, append_images=pictures[1:])
    with pytest.raises(ValueError, match="holds 2 pictures; expected one film"):
        LoadByOneReaderd("image", FilmReader())({"image": str(tmp_path / "two.tif")})
