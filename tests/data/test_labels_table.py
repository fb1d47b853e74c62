import pytest
from phantoms import write_dicom_series

from medimg3d.data.folders import read_folder
from medimg3d.data.labels_table import read_labels_table
from medimg3d.data.section_names import section_named
from medimg3d.errors import DataError


def folder(root, table, *files):
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    root.mkdir(exist_ok=True)
    (root / "labels.csv").write_text(table, encoding="utf-8")
    return root


def test_class_split_patient_and_other_columns(tmp_path):
    table = (
        "file,label,subtype,age,patient_group,split\n"
        "a/1.png,ill,virus,3,p1,train\nb/2.png,well,,,p2,val_original\n3.png,ill,bacteria,7,p3,Test\n"
    )
    datalist, rejected = read_labels_table(folder(tmp_path, table, "a/1.png", "b/2.png", "3.png"))
    (first,), (second,), (third,) = (datalist.section(name) for name in ("training", "validation", "test"))
    assert rejected == {}
    assert datalist.classes == ("ill", "well")
    assert first.image == tmp_path / "a" / "1.png"
    assert (first.class_label, first.patient, dict(first.values)) == (
        "ill",
        "p1",
        {"subtype": "virus", "age": 3},
    )
    assert (second.class_label, dict(second.values)) == ("well", {"subtype": None, "age": None})
    assert third.patient == "p3"


def test_other_names_of_the_columns_semicolons_and_numbers_as_classes(tmp_path):
    table = "\ufeffImage;Class;patient_id\n1.png;10;x\n2.png;2;\n"
    datalist, _ = read_labels_table(folder(tmp_path, table, "1.png", "2.png"))
    assert datalist.classes == ("2", "10")
    assert [case.patient for case in datalist.training] == ["x", None]


def test_every_row_and_every_image_is_a_case_or_rejected(tmp_path):
    table = "file,label,split\n1.png,a,train\n2.png,b,train\n3.png,b,holdout\nnotes.txt,b,train\n,b,train\n"
    root = folder(tmp_path, table, "1.png", "3.png", "notes.txt", "sub/4.png", ".hidden/5.png")
    datalist, rejected = read_labels_table(root)
    assert [case.name for case in datalist.training] == ["1"]
    assert rejected == {
        "2.png": "is missing; labels.csv names it",
        "3.png": "its split is 'holdout'; expected train, val or test",
        "notes.txt": "not an image that can be read",
        "a row without a file": "a row of labels.csv names no file",
        "sub/4.png": "not listed in labels.csv",
    }


def test_a_row_may_name_a_dicom_folder_and_leave_the_class_open(tmp_path):
    write_dicom_series(tmp_path / "scan.1")
    datalist, rejected = read_labels_table(folder(tmp_path, "path,label\nscan.1,\n"))
    assert (datalist.training[0].name, datalist.training[0].class_label) == ("scan.1", None)
    assert (datalist.classes, rejected) == ((), {})


@pytest.mark.parametrize("table", ["name,age\na,3\n", "file,label\n1.png,mask_1.png\n"])
def test_a_table_of_something_else_is_not_read(tmp_path, table):
    assert read_labels_table(folder(tmp_path, table, "1.png")) is None


def test_a_table_without_rows_is_an_error(tmp_path):
    with pytest.raises(DataError, match="has no row; expected a header and one row an image"):
        read_labels_table(folder(tmp_path, "file,label\n"))


def test_the_table_comes_before_train_and_test_folders(tmp_path):
    table = "file,label,split\ntrain/a/1.png,x,test\ntrain/b/1.png,y,train\n"
    scan = read_folder(folder(tmp_path, table, "train/a/1.png", "train/b/1.png"))
    assert scan.layouts == ("table labels.csv",)
    assert [case.name for case in scan.datalist.cases()] == ["train_b_1", "train_a_1"]


@pytest.mark.parametrize(
    ("name", "section"),
    [
        ("train", "training"),
        ("Val_original", "validation"),
        ("test-2", "test"),
        ("trainer", None),
        ("", None),
    ],
)
def test_words_for_a_split(name, section):
    assert section_named(name) == section


@pytest.mark.realdata
def test_chest_films_have_the_counts_of_their_readme(data_root):
    scan = read_folder(data_root / "chest_xray")
    counts = {
        section: [
            sum(case.class_label == name for case in scan.datalist.section(section))
            for name in scan.datalist.classes
        ]
        for section in ("training", "validation", "test")
    }
    assert scan.datalist.classes == ("NORMAL", "PNEUMONIA")
    assert counts == {"training": [1341, 3875], "validation": [8, 8], "test": [117, 195]}
    assert scan.rejected == {}
