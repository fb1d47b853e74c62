from __future__ import annotations

import nibabel
import numpy as np
import pytest
from PIL import Image

from medimg3d.data.datalist_file import load_datalist
from medimg3d.data.folds import select_fold
from medimg3d.data.medmnist import unpack_medmnist
from medimg3d.errors import DataError, UsageError


def _npz(path, shape, counts=(5, 2, 3)):
    rng = np.random.default_rng(0)
    content = {}
    for part, count in zip(("train", "val", "test"), counts, strict=True):
        content[f"{part}_images"] = rng.integers(0, 256, (count, *shape), dtype=np.uint8)
        content[f"{part}_labels"] = (np.arange(count) % 2).reshape(-1, 1)
    np.savez(path, **content)
    return content


def test_pixels_classes_and_the_official_split_are_kept(tmp_path):
    content = _npz(tmp_path / "pneumoniamnist.npz", (28, 28))
    datalist = load_datalist(unpack_medmnist(tmp_path / "pneumoniamnist.npz", tmp_path / "out"))
    assert datalist.classes == ("normal", "pneumonia")
    assert [case.class_label for case in datalist.test] == ["normal", "pneumonia", "normal"]
    np.testing.assert_array_equal(np.asarray(Image.open(datalist.test[1].image)), content["test_images"][1])
    held_out = select_fold(datalist.as_monai("training"), fold=0, part="validation", num_folds=2)
    assert [case["id"] for case in held_out] == ["pneumoniamnist_val_00000", "pneumoniamnist_val_00001"]


def test_volumes_become_nifti(tmp_path):
    content = _npz(tmp_path / "adrenalmnist3d_64.npz", (4, 5, 6))
    datalist = load_datalist(unpack_medmnist(tmp_path / "adrenalmnist3d_64.npz", tmp_path / "out"))
    assert datalist.classes == ("normal", "mass")
    found = np.asarray(nibabel.load(datalist.test[2].image).dataobj)
    np.testing.assert_array_equal(found, content["test_images"][2])


def test_a_file_that_is_none_is_named(tmp_path):
    (tmp_path / "text.npz").write_text("no arrays")
    with pytest.raises(DataError, match=r"text.npz cannot be read"):
        unpack_medmnist(tmp_path / "text.npz", tmp_path / "out")
    np.savez(tmp_path / "half.npz", train_images=np.zeros((1, 4, 4), np.uint8))
    with pytest.raises(DataError, match="has no train_labels"):
        unpack_medmnist(tmp_path / "half.npz", tmp_path / "out")
    with pytest.raises(UsageError, match="does not exist"):
        unpack_medmnist(tmp_path / "absent.npz", tmp_path / "out")


def test_a_folder_with_a_datalist_is_left_alone(tmp_path):
    _npz(tmp_path / "pneumoniamnist.npz", (28, 28))
    unpack_medmnist(tmp_path / "pneumoniamnist.npz", tmp_path / "out")
    with pytest.raises(UsageError, match="holds a datalist already"):
        unpack_medmnist(tmp_path / "pneumoniamnist.npz", tmp_path / "out")


@pytest.mark.realdata
def test_the_official_counts_of_pneumoniamnist(data_root, tmp_path):
    npz = data_root / "pneumoniamnist" / "pneumoniamnist.npz"
    datalist = load_datalist(unpack_medmnist(npz, tmp_path / "out"))
    counts = [
        sum(case.class_label == "pneumonia" for case in part) for part in (datalist.training, datalist.test)
    ]
    assert counts == [3494 + 389, 390]
    assert len(datalist.training) == 4708 + 524
