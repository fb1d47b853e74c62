from __future__ import annotations

import json

import pytest
from monai.data import load_decathlon_datalist

from medimg3d.data.class_index import class_weights, with_class_index

NAMES = ["normal", "pneumonia"]


def test_names_become_indices_whatever_their_case():
    cases = [{"image": "a", "class_label": "PNEUMONIA"}, {"image": "b", "class_label": "normal"}]
    found = with_class_index(cases, class_names=NAMES)
    assert found == [{"image": "a", "label": 1}, {"image": "b", "label": 0}]


def test_an_index_stays_and_a_value_can_be_the_class():
    assert with_class_index([{"image": "a", "class_label": 1}], class_names=NAMES)[0]["label"] == 1
    cases = [{"image": "a", "class_label": "pneumonia", "values": {"subtype": "virus"}}]
    found = with_class_index(cases, class_names=["normal", "bacteria", "virus"], class_key="subtype")
    assert found == [{"image": "a", "label": 2}]


@pytest.mark.parametrize("label", ["tumour", 2, -1, None])
def test_a_class_that_is_none_of_the_names_is_refused(label):
    with pytest.raises(ValueError, match="expected one of normal, pneumonia"):
        with_class_index([{"image": "a", "class_label": label}], class_names=NAMES)


def test_weights_make_three_of_one_class_count_as_much_as_one_of_the_other():
    cases = [{"label": 0}, {"label": 1}, {"label": 1}, {"label": 1}]
    # 4 / (2 * 1) and 4 / (2 * 3)
    assert class_weights(cases, num_classes=2) == [2.0, pytest.approx(2 / 3)]


def test_a_class_without_a_case_has_no_weight():
    with pytest.raises(ValueError, match="Class 1 has no training case"):
        class_weights([{"label": 0}], num_classes=2)


def test_a_class_whose_folder_lies_beside_the_datalist_is_still_a_class(tmp_path):
    (tmp_path / "PNEUMONIA").mkdir()
    content = {"training": [{"image": "a.png", "class_label": "PNEUMONIA"}]}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    cases = load_decathlon_datalist(tmp_path / "dataset.json", data_list_key="training")
    assert cases[0]["class_label"] == str(tmp_path / "PNEUMONIA"), "MONAI no longer makes a path of it"
    assert with_class_index(cases, class_names=NAMES)[0]["label"] == 1
