import json
from collections import Counter

import pytest
from phantoms import two_part_phantom, write_decathlon, write_nifti

from medimg3d.data.datalist_file import load_datalist
from medimg3d.data.folds import assign_folds
from medimg3d.data.set_description import SetDescription
from medimg3d.errors import DataError, UsageError
from medimg3d.workflows.ingest import make_datalist


def pairs(root, *names):
    for seed, name in enumerate(names):
        image, label = two_part_phantom(seed)
        write_nifti(root / "images" / f"{name}.nii.gz", image)
        write_nifti(root / "labels" / f"{name}.nii.gz", label)
    return root


def test_a_decathlon_folder_becomes_a_datalist_with_folds(tmp_path):
    result = make_datalist([write_decathlon(tmp_path / "set", num_cases=10)], tmp_path / "out.json")
    datalist = load_datalist(tmp_path / "out.json")
    assert datalist == result.datalist
    assert Counter(case.fold for case in datalist.training) == dict.fromkeys(range(5), 2)
    assert {key: datalist.split[key] for key in ("by", "num_folds", "seed")} == {
        "by": "case",
        "num_folds": 5,
        "seed": 0,
    }
    assert "Patients are not known" in datalist.split["note"]
    assert (result.rejected, result.rejected_path) == ({}, None)


def test_the_written_folds_are_those_of_assign_folds(tmp_path):
    make_datalist([write_decathlon(tmp_path / "set", num_cases=6)], tmp_path / "o.json", num_folds=3, seed=7)
    entries = json.loads((tmp_path / "o.json").read_text())["training"]
    bare = [{key: entry[key] for key in ("id", "image")} for entry in entries]
    assert [entry["fold"] for entry in entries] == assign_folds(bare, num_folds=3, seed=7)


def test_the_same_call_writes_the_same_bytes(tmp_path):
    folder = write_decathlon(tmp_path / "set", num_cases=5)
    first = make_datalist([folder], tmp_path / "o.json").path.read_bytes()
    assert make_datalist([folder], tmp_path / "o.json").path.read_bytes() == first


def test_patients_stay_in_one_fold(tmp_path):
    root = pairs(tmp_path / "set", *(f"p{n}_{t}" for n in range(4) for t in "ab"))
    datalist = make_datalist([root], tmp_path / "o.json", num_folds=2, patient_pattern=r"(p\d)").datalist
    assert len({(case.patient, case.fold) for case in datalist.training}) == 4
    assert datalist.split["by"] == "patient"


def test_a_table_in_which_every_case_has_its_fold_says_how_many_there_are(tmp_path):
    root = pairs(tmp_path / "set", *(f"p{n}" for n in range(7)))
    table = tmp_path / "table.csv"
    table.write_text("id,fold\n" + "".join(f"p{n},{n}\n" for n in range(7)))
    result = make_datalist([root], tmp_path / "o.json", description=SetDescription(table=table))
    assert [case.fold for case in result.datalist.training] == list(range(7))
    assert result.datalist.split["num_folds"] == 7
    with pytest.raises(DataError, match=r"Cases carry fold 3; expected 0 to 2.*another number of folds"):
        make_datalist([root], tmp_path / "o.json", num_folds=3, description=SetDescription(table=table))


def test_rejects_of_folders_and_checks_stand_beside_the_datalist(tmp_path):
    root = pairs(tmp_path / "set", "a", "b", "c", "d")
    (root / "labels" / "a.nii.gz").unlink()
    (root / "images" / "b.nii.gz").write_bytes(b"broken")
    result = make_datalist([root], tmp_path / "o.json", num_folds=2)
    written = json.loads((tmp_path / "o.rejected.json").read_text())
    assert written == result.rejected
    assert written["images/a.nii.gz"] == "image without a label"
    assert "image cannot be read" in written["b"]
    assert [case.name for case in result.datalist.training] == ["c", "d"]


def test_an_old_list_of_rejects_is_removed(tmp_path):
    (tmp_path / "o.rejected.json").write_text("{}")
    make_datalist([write_decathlon(tmp_path / "set", num_cases=2)], tmp_path / "o.json", num_folds=2)
    assert not (tmp_path / "o.rejected.json").exists()


def test_labels_without_names_are_named_by_their_value(tmp_path):
    datalist = make_datalist([pairs(tmp_path / "set", "a", "b")], tmp_path / "o.json", num_folds=2).datalist
    assert datalist.labels == {0: "background", 1: "label 1", 2: "label 2"}


def test_without_check_files_are_not_read(tmp_path):
    root = pairs(tmp_path / "set", "a", "b")
    (root / "images" / "a.nii.gz").write_bytes(b"broken")
    assert make_datalist([root], tmp_path / "o.json", num_folds=2, check=False).rejected == {}


def test_with_nothing_left_the_rejects_are_written_all_the_same(tmp_path):
    root = pairs(tmp_path / "set", "a")
    (root / "labels" / "a.nii.gz").unlink()
    with pytest.raises(DataError, match=r"1 rejected, such as images/a\.nii\.gz: image without a label"):
        make_datalist([root], tmp_path / "o.json")
    assert not (tmp_path / "o.json").exists()
    assert json.loads((tmp_path / "o.rejected.json").read_text()) == {
        "images/a.nii.gz": "image without a label"
    }


def test_fewer_cases_than_folds(tmp_path):
    with pytest.raises(DataError, match=r"Found 2 patients or cases; 5 folds.*--num-folds"):
        make_datalist([pairs(tmp_path / "set", "a", "b")], tmp_path / "o.json")


@pytest.mark.parametrize(
    ("out", "options", "message"),
    [
        ("dataset.json", {}, "cannot be called dataset.json"),
        ("o.json", {"num_folds": 1}, "expected at least 2"),
    ],
)
def test_bad_options(tmp_path, out, options, message):
    with pytest.raises(UsageError, match=message):
        make_datalist([pairs(tmp_path / "set", "a")], tmp_path / out, **options)


@pytest.mark.realdata
def test_hippocampus_with_its_bad_files(data_root, hippocampus, tmp_path):
    result = make_datalist([hippocampus, data_root / "hippocampus_bad"], tmp_path / "o.json")
    assert len(result.datalist.training) == 220
    assert sorted(name.split("_")[-1][:3] for name in result.rejected) == ["010", "118", "281"]
    assert result.summary()["fold_sizes"] == [44] * 5


@pytest.mark.realdata
@pytest.mark.slow
def test_chest_films_by_patient(data_root, tmp_path):
    """62 of 5,840 films are pixel-identical copies (30 groups); most of them are in this part."""
    pattern = r"(NORMAL2-IM-\d+|IM-\d+|person\d+_[a-z]+)"
    result = make_datalist([data_root / "chest_xray"], tmp_path / "o.json", patient_pattern=pattern)
    assert result.warnings == {}  # no patient is in two parts
    assert all("same content" in reason for reason in result.rejected.values())
    assert len(result.datalist.cases()) + len(result.rejected) == 5544
    assert len(result.rejected) <= 32
