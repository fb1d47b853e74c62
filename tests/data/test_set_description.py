from pathlib import Path

import pytest

from medimg3d.data.datalist import Case, Datalist
from medimg3d.data.set_description import SetDescription, described
from medimg3d.errors import DataError, UsageError


@pytest.fixture
def found():
    """Two cases of patient p1, one of p2, one of p3."""
    return Datalist(
        name="set",
        training=tuple(
            Case(image=Path(f"/set/{name}.nii.gz"), id=name, patient=patient)
            for name, patient in (("a", "p1"), ("b", "p1"), ("c", "p2"), ("d", "p3"))
        ),
    )


def table(folder, text):
    path = folder / "table.csv"
    path.write_text(text)
    return path


def test_a_row_a_case_gives_patient_fold_and_values(found, tmp_path):
    path = table(
        tmp_path, "ID,patient,fold,hospital,age\na,q1,0,north,61\nb,q1,0,north,\nc,q2,1,south,44\nd,q3,2,,5\n"
    )
    datalist, rejected, words = described(found, SetDescription(table=path))
    assert rejected == {}
    assert words == "table table.csv: 4 rows used"
    assert [(case.patient, case.fold) for case in datalist.training] == [
        ("q1", 0),
        ("q1", 0),
        ("q2", 1),
        ("q3", 2),
    ]
    assert [dict(case.values) for case in datalist.training] == [
        {"hospital": "north", "age": 61},
        {"hospital": "north", "age": None},
        {"hospital": "south", "age": 44},
        {"hospital": None, "age": 5},
    ]


def test_a_row_a_patient_goes_for_all_its_cases(found, tmp_path):
    path = table(tmp_path, "patient;fold\np1;1\np2;0\np3;1\np9;0\n")
    datalist, rejected, words = described(found, SetDescription(table=path))
    assert [case.fold for case in datalist.training] == [1, 1, 0, 1]
    assert rejected == {}
    assert words == "table table.csv: 3 rows used, 1 without an image (p9)"


def test_a_case_without_a_row_is_named_and_left_out(found, tmp_path):
    datalist, rejected, _ = described(found, SetDescription(table=table(tmp_path, "id,age\na,1\nc,2\nd,3\n")))
    assert [case.name for case in datalist.training] == ["a", "c", "d"]
    assert rejected == {"b": "has no row in table.csv (column id)"}


def test_another_hospital_is_for_testing_and_has_no_fold(found, tmp_path):
    path = table(tmp_path, "id,fold,hospital\na,0,north\nb,0,north\nc,1,south\nd,1,north\n")
    description = SetDescription(table=path, test_where=("hospital", "south"))
    datalist, _, _ = described(found, description)
    assert [case.name for case in datalist.training] == ["a", "b", "d"]
    assert [(case.name, case.fold) for case in datalist.test] == [("c", None)]


def test_a_split_column_counts(found, tmp_path):
    path = table(tmp_path, "id,split\na,train\nb,test\nc,val\nd,\n")
    datalist, _, _ = described(found, SetDescription(table=path))
    assert [
        [case.name for case in datalist.section(name)] for name in ("training", "validation", "test")
    ] == [
        ["a", "d"],
        ["c"],
        ["b"],
    ]


def test_names_and_modalities_are_added(found):
    description = SetDescription(
        structures={2: "node", 1: "tumour"}, modality=("CT", "PET"), name="lung", licence="CC0"
    )
    datalist, _, _ = described(found, description)
    assert dict(datalist.labels) == {0: "background", 1: "tumour", 2: "node"}
    assert dict(datalist.modality) == {"0": "CT", "1": "PET"}
    assert (datalist.name, datalist.licence) == ("lung", "CC0")


def test_nothing_said_changes_nothing(found):
    assert described(found, SetDescription()) == (found, {}, "")


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("file,age\na,1\n", UsageError, "has the columns file, age; expected one called id or patient"),
        ("id,age\na,1\na,2\n", DataError, "has two rows for a; expected one"),
        ("id,fold\na,first\n", DataError, "has the fold 'first' for a; expected a whole number from 0"),
        ("id,split\na,later\n", DataError, "has the split 'later'; expected train, val or test"),
    ],
)
def test_a_table_that_cannot_be_used_is_one_line(found, tmp_path, text, error, message):
    with pytest.raises(error, match=message):
        described(found, SetDescription(table=table(tmp_path, text)))


def test_no_such_table_column_or_value(found, tmp_path):
    with pytest.raises(UsageError, match=r"No table .*; expected a CSV file"):
        described(found, SetDescription(table=tmp_path / "none.csv"))
    with pytest.raises(
        UsageError, match="No case has a value 'hospital'; there are: none; give them with --table"
    ):
        described(found, SetDescription(test_where=("hospital", "south")))
    path = table(tmp_path, "id,hospital\na,north\nb,north\nc,south\nd,north\n")
    with pytest.raises(UsageError, match="No case has hospital = 'east'; there are north, south"):
        described(found, SetDescription(table=path, test_where=("hospital", "east")))


def test_a_voxel_size_that_is_not_known_is_told_in_the_datalist(found):
    assert found.has_voxel_size
    datalist, _, _ = described(found, SetDescription(unknown_voxel_size=True))
    assert not datalist.has_voxel_size
    with pytest.raises(DataError, match='expected "unknown", or nothing'):
        _ = Datalist(extra={"voxel_size": 3}).has_voxel_size
