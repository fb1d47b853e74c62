from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd

from medimg3d.transforms.crop_black_border import CropBlackBorder, CropBlackBorderd
from medimg3d.transforms.equalize_contrast import EqualizeContrast, EqualizeContrastd
from medimg3d.transforms.erase_markers import EraseMarkers, EraseMarkersd


@pytest.fixture
def film() -> torch.Tensor:
    """Grey tissue of 100 to 150 in rows 10 to 49 and columns 20 to 69 of 60 x 80 black pixels."""
    pixels = np.zeros((60, 80), np.float32)
    pixels[10:50, 20:70] = np.random.default_rng(0).uniform(100, 150, (40, 50))
    return torch.from_numpy(pixels)[None]


def test_the_border_goes_and_the_film_stays(film):
    cropped = CropBlackBorder()(film)
    assert cropped.shape == (1, 40, 50)
    np.testing.assert_array_equal(cropped.numpy()[0], film.numpy()[0, 10:50, 20:70])


def test_a_letter_in_the_border_does_not_keep_the_border(film):
    film[0, 2:5, 2:4] = 255.0  # 2 of 80 pixels of its rows, 3 of 60 of its columns
    assert CropBlackBorder(share=0.95)(film).shape == (1, 40, 50)


def test_a_black_film_is_left_whole():
    assert CropBlackBorder()(torch.zeros(1, 8, 9)).shape == (1, 8, 9)


def test_the_crop_is_inverted_onto_the_whole_film(film):
    transform = Compose([CropBlackBorderd("image")])
    item = transform({"image": MetaTensor(film)})
    item["pred"] = item["image"].clone()
    back = Invertd("pred", transform, orig_keys="image")(item)["pred"]
    np.testing.assert_array_equal(np.asarray(back), film.numpy())


def test_a_label_is_cropped_with_its_film(film):
    label = torch.zeros_like(film)
    label[0, 12, 22] = 1
    item = CropBlackBorderd(["image", "label"])({"image": film, "label": label})
    assert item["label"].shape == (1, 40, 50)
    assert item["label"][0, 2, 2] == 1


def test_a_burnt_in_letter_is_erased_and_the_tissue_is_not(film):
    marked = film.clone()
    marked[0, 20:26, 30:33] = 255.0
    erased = EraseMarkers()(marked)
    assert float(erased[0, 19:27, 29:34].max()) <= 150
    far = torch.ones_like(film, dtype=torch.bool)
    far[0, 18:28, 28:36] = False
    torch.testing.assert_close(erased[far], film[far])


def test_a_large_white_region_is_no_marker(film):
    film[0, 10:50, 20:45] = 255.0
    torch.testing.assert_close(EraseMarkers()(film), film)


def test_a_spot_that_fades_into_its_surroundings_is_no_marker(film):
    film[0, 10:50, 20:70] = 200.0
    film[0, 30:33, 40:43] = 255.0
    torch.testing.assert_close(EraseMarkers()(film), film)


def test_equalizing_spreads_a_narrow_range_over_the_whole():
    ramp = torch.linspace(100, 110, 64).expand(64, 64)[None].clone()
    found = EqualizeContrast()(ramp)
    assert found.shape == ramp.shape
    assert float(found.min()) >= 0
    assert float(found.max()) <= 1
    assert float(found.max() - found.min()) > 0.9


def test_a_film_of_one_value_becomes_black():
    assert float(EqualizeContrast()(torch.full((1, 16, 16), 7.0)).abs().max()) == 0


def test_dictionary_versions_equal_the_array_versions(film):
    film[0, 20:26, 30:33] = 255.0
    for pair in ((EraseMarkersd("image"), EraseMarkers()), (EqualizeContrastd("image"), EqualizeContrast())):
        torch.testing.assert_close(pair[0]({"image": film})["image"], pair[1](film))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CropBlackBorder(darkness=1.0), "darkness must be in"),
        (lambda: CropBlackBorder(share=0.0), "share must be in"),
        (lambda: EraseMarkers(whiteness=1.0), "whiteness must be between"),
        (lambda: EqualizeContrast(clip_limit=0.0), "clip_limit must be in"),
        (lambda: EqualizeContrast(tiles=0), "tiles must be at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
