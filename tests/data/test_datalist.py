import json
from pathlib import Path

import pytest
from monai.data import load_decathlon_datalist
from phantoms import write_decathlon

from medimg3d.data.datalist import Case, Datalist
from medimg3d.data.datalist_file import load_datalist, parse_labels, parse_regions, save_datalist
from medimg3d.errors import DataError


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def study(root: Path) -> Datalist:
    return Datalist(
        name="study",
        modality={"0": "CT"},
        labels={0: "background", 1: "liver"},
        classes=("normal", "ill"),
        split={"by": "patient", "num_folds": 2, "seed": 0},
        extra={"release": "1.0"},
        training=(
            Case(image=root / "a.nii.gz", label=root / "a_seg.nii.gz", id="a", patient="p1", fold=1),
            Case(image=(root / "b_0.nii.gz", root / "b_1.nii.gz"), class_label="ill", fold=0),
            Case(
                images={"ct": root / "c" / "ct.nii.gz", "pet": root / "c" / "pet.nii.gz"},
                id="c",
                class_label=0,
            ),
        ),
        test=(Case(image=root / "t", id="t", values={"age": 61.5, "sex": "F", "died": None}),),
    )


def test_a_plain_decathlon_file_loads_unchanged(tmp_path):
    folder = write_decathlon(tmp_path / "set", num_cases=3)
    datalist = load_datalist(folder / "dataset.json")
    assert [case.name for case in datalist.training] == ["phantom_000", "phantom_001", "phantom_002"]
    assert datalist.training[0].image == folder / "imagesTr" / "phantom_000.nii.gz"
    assert datalist.labels == {0: "background", 1: "front", 2: "rear"}
    assert datalist.test == ()


def test_plain_strings_in_test_are_images(tmp_path):
    path = write(tmp_path / "d.json", {"training": [], "test": ["./imagesTs/t1.nii.gz"]})
    assert load_datalist(path).test == (Case(image=tmp_path / "imagesTs" / "t1.nii.gz"),)


def test_everything_survives_saving_and_loading(tmp_path):
    before = study(tmp_path)
    assert load_datalist(save_datalist(before, tmp_path / "d.json")) == before


def test_paths_below_the_file_are_relative_and_others_absolute(tmp_path):
    inside, outside = tmp_path / "set" / "a.nii.gz", tmp_path / "b.nii.gz"
    path = save_datalist(
        Datalist(training=(Case(image=inside), Case(image=outside))), tmp_path / "set" / "d.json"
    )
    written = json.loads(path.read_text())["training"]
    assert [case["image"] for case in written] == ["a.nii.gz", str(outside)]


def test_a_saved_set_can_be_moved(tmp_path):
    save_datalist(study(tmp_path / "old"), tmp_path / "old" / "d.json")
    (tmp_path / "old").rename(tmp_path / "new")
    assert load_datalist(tmp_path / "new" / "d.json").training[0].image == tmp_path / "new" / "a.nii.gz"


@pytest.mark.parametrize("section", ["training", "test"])
def test_monai_reads_what_we_write(tmp_path, section):
    items = load_decathlon_datalist(save_datalist(study(tmp_path), tmp_path / "d.json"), True, section)
    ours = study(tmp_path).as_monai(section)
    assert [item.get("image") for item in items] == [item.get("image") for item in ours]
    assert [item.get("label") for item in items] == [item.get("label") for item in ours]


def test_as_monai_gives_absolute_paths_named_images_and_class_indices(tmp_path):
    first, second, third = study(tmp_path).as_monai("training")
    assert first == {
        "id": "a",
        "image": str(tmp_path / "a.nii.gz"),
        "label": str(tmp_path / "a_seg.nii.gz"),
        "patient": "p1",
        "fold": 1,
    }
    assert (second["image"], second["class_label"]) == ([str(tmp_path / f"b_{n}.nii.gz") for n in (0, 1)], 1)
    assert (third["pet"], third["class_label"]) == (str(tmp_path / "c" / "pet.nii.gz"), 0)


def test_image_keys_are_the_names_under_which_as_monai_gives_images(tmp_path):
    assert study(tmp_path).image_keys == ("image", "ct", "pet")


def test_a_number_as_label_is_the_class(tmp_path):
    path = write(tmp_path / "d.json", {"training": [{"image": "a.png", "label": 1}]})
    case = load_datalist(path).training[0]
    assert (case.label, case.class_label) == (None, 1)


def test_a_name_seen_twice_is_numbered_and_the_test_set_keeps_it():
    datalist = Datalist(training=(Case(image=Path("x/a.png")),), test=(Case(image=Path("y/a.png")),))
    assert [(name, section) for name, section, _ in datalist.named_cases()] == [
        ("a", "test"),
        ("a #2", "training"),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"training": [', "broken JSON at line 1, column 15"),
        ("[]", 'holds a list; expected an object with a list "training"'),
        ({"cases": []}, "none of the lists training, validation, test"),
        ({"training": {}}, '"training" is a object; expected a list'),
        ({"training": [{"label": "a.nii"}]}, r'training\[0\]: Case has no "image" \(found label\)'),
        ({"training": [{"image": "a.nii"}, 3]}, r"training\[1\]: Found a int"),
        ({"training": [{"image": "a.nii", "images": {"ct": "b.nii"}}]}, 'has both of "image" and "images"'),
        ({"training": [{"image": "a.nii", "fold": "1"}]}, "\"fold\" is '1'; expected a whole number"),
        ({"training": [{"image": 3}]}, '"image" is a int; expected a path'),
        ({"training": [{"images": {"label": "a.nii"}}]}, "names an image 'label', which is a key"),
        ({"training": [{"image": "a.nii", "values": {"x": [1]}}]}, "\"values\" has a list at 'x'"),
        ({"training": [], "labels": {"a": 1, "2": "b"}}, '"labels" mixes names and values'),
        ({"training": [], "labels": {"0": "a", "1": [1, 2]}}, '"labels" has a list for 1; expected a name'),
        (
            {"training": [], "labels": {"a": [1, 2], "b": 3}, "regions_class_order": [1]},
            r'"regions_class_order" is \[1\]; expected 2 whole numbers, one for each of a, b\. Correct it',
        ),
        (
            {"training": [{"image": "a.png", "class_label": "b"}], "classes": ["a"]},
            r"class_label is 'b'.*\['a'\]",
        ),
        ({"training": [], "classes": ["a", "a"]}, "names a class twice"),
    ],
)
def test_a_wrong_file_is_refused_with_the_place_and_the_reason(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        load_datalist(write(tmp_path / "d.json", content))


def test_a_missing_file_says_how_to_make_one(tmp_path):
    with pytest.raises(DataError, match=r"No datalist at .*medimg3d datalist FOLDER"):
        load_datalist(tmp_path / "none.json")


def test_nan_in_the_table_is_refused():
    with pytest.raises(DataError, match=r"nan at 'age'.*write null"):
        Case(image=Path("a.nii"), values={"age": float("nan")})


def test_a_failed_save_leaves_the_old_file_whole(tmp_path):
    path = save_datalist(study(tmp_path), tmp_path / "d.json")
    before = path.read_bytes()
    with pytest.raises(DataError, match=r"d\.json cannot be written"):
        save_datalist(Datalist(training=(Case(image=tmp_path / "a.nii", extra={"x": object()}),)), path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["d.json"]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"0": "background", "1": "liver"}, {0: "background", 1: "liver"}),
        ({"background": 0, "liver": 1}, {0: "background", 1: "liver"}),
        (["background", "liver"], {0: "background", 1: "liver"}),
        # the example of the KiTS2023 set: three nested regions
        (
            {"background": 0, "kidney": [1, 2, 3], "masses": [2, 3], "tumor": 2},
            {0: "background", 1: "label 1", 2: "tumor", 3: "label 3"},
        ),
        ({"background": [0], "liver": ["1"]}, {0: "background", 1: "liver"}),  # lists of one are no regions
        (None, {}),
    ],
)
def test_labels_in_all_their_forms(labels, expected):
    assert parse_labels(labels) == expected


@pytest.mark.parametrize(
    ("labels", "order", "expected"),
    [
        # nested: the larger first, whatever the file's order
        ({"tumor": 2, "masses": [2, 3], "kidney": [1, 2, 3]}, [2, 3, 1], ["kidney", "masses", "tumor"]),
        # of one size and apart: by nnU-Net's numbers, without them as in the file
        ({"both": [1, 2], "left": 1, "right": 2}, [1, 3, 2], ["both", "right", "left"]),
        ({"both": [1, 2], "left": 1, "right": 2}, None, ["both", "left", "right"]),
        # of one size and overlapping: nnU-Net draws rear last, so that rear has the middle
        ({"front": [1, 2], "rear": [2, 3]}, [2, 1], ["front", "rear"]),
    ],
)
def test_regions_come_in_the_order_of_their_numbers(labels, order, expected):
    assert list(parse_regions({"background": 0, **labels}, order)) == expected


@pytest.mark.parametrize(
    "labels", [None, ["background", "a"], {"0": "background", "1": "a"}, {"background": 0, "a": 1, "b": [2]}]
)
def test_labels_that_unite_no_values_have_no_regions(labels):
    assert parse_regions(labels, [1, 2]) == {}


def test_regions_of_a_datalist_in_the_form_of_nnunet_survive_saving(tmp_path):
    content = {"training": [], "labels": {"background": 0, "whole": [1, 2, 2], "core": 2}}
    datalist = load_datalist(write(tmp_path / "d.json", content))
    assert datalist.labels == {0: "background", 1: "label 1", 2: "core"}
    assert datalist.extra == {"regions": {"whole": [1, 2], "core": [2]}}
    assert load_datalist(save_datalist(datalist, tmp_path / "saved.json")) == datalist


def test_regions_that_the_datalist_has_of_its_own_count(tmp_path):
    content = {"training": [], "labels": {"background": 0, "a": [1, 2]}, "regions": {"b": [1, 2]}}
    assert load_datalist(write(tmp_path / "d.json", content)).extra["regions"] == {"b": [1, 2]}


@pytest.mark.realdata
def test_the_hippocampus_list_loads_and_monai_agrees(hippocampus):
    datalist = load_datalist(hippocampus / "dataset.json")
    theirs = load_decathlon_datalist(hippocampus / "dataset.json")
    assert len(theirs) == 220
    ours = [{key: item[key] for key in ("image", "label")} for item in datalist.as_monai("training")]
    assert ours == theirs


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("split", [1], r'"split" is a list; expected an object'),
        (
            "split",
            {"num_folds": "five"},
            r"\"split\" has 'five' as num_folds; expected a whole number from 2",
        ),
        ("split", {"num_folds": 1}, r'"split" has 1 as num_folds; expected a whole number from 2'),
        ("split", {"seed": "x"}, r"\"split\" has 'x' as seed; expected a whole number from 0"),
        ("classes", {"a": "x"}, r"\"classes\" has 'a' where an index belongs"),
    ],
)
def test_folds_and_classes_that_are_no_numbers_are_refused(tmp_path, key, value, message):
    path = write(tmp_path / "d.json", {"training": [{"image": "a.nii.gz"}], key: value})
    with pytest.raises(DataError, match=message):
        load_datalist(path)
