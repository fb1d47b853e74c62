import json

import pytest
from phantoms import write_film_study

from medimg3d.data.class_references import check_section, find_class_references
from medimg3d.errors import DataError, UsageError

TABLE = "file,label,subtype,patient_group,split\ntest/a.png,NORMAL,none,g1,test\ntrain/b.png,SICK,x,,train\n"


def test_a_datalist_gives_class_patient_section_and_values(tmp_path):
    found = find_class_references(write_film_study(tmp_path) / "chest.json")
    assert (found.name, found.classes, len(found.films)) == ("chest", ("normal", "pneumonia"), 12)
    film = found.films[-1]
    assert (film.truth, film.section, film.patient) == ("pneumonia", "test", "p5")
    assert film.values["subtype"] == "viral"


def test_a_class_index_becomes_its_name(tmp_path):
    content = {"classes": ["well", "sick"], "test": [{"image": "a.png", "label": 1}, {"image": "b.png"}]}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    found = find_class_references(tmp_path)
    assert [film.truth for film in found.films] == ["sick"]
    assert found.without_class == 1


def test_a_table_gives_the_same_and_its_words_for_a_split_are_understood(tmp_path):
    (tmp_path / "labels.csv").write_text(TABLE)
    for source in (tmp_path, tmp_path / "labels.csv"):
        found = find_class_references(source)
        assert [film.section for film in found.films] == ["test", "training"]
        assert [film.patient for film in found.films] == ["g1", None]
        assert found.films[0].path == tmp_path / "test" / "a.png"
        assert found.films[0].values == {"subtype": "none"}
        assert found.name == f"{tmp_path.name}/labels.csv"
    assert [film.truth for film in found.in_section("training")] == ["SICK"]
    assert len(found.in_section("all")) == 2


def test_one_folder_a_class_has_no_sections(tmp_path):
    found = find_class_references(write_film_study(tmp_path) / "test")
    assert len(found.in_section("test")) == 12
    assert {film.truth for film in found.films} == {"normal", "pneumonia"}


def test_what_cannot_be_read_or_has_no_class_is_refused(tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        find_class_references(tmp_path / "nothing")
    (tmp_path / "a.txt").touch()
    with pytest.raises(UsageError, match="neither a datalist"):
        find_class_references(tmp_path / "a.txt")
    (tmp_path / "a.csv").write_text("name,class\nx,1\n")
    with pytest.raises(DataError, match="has the columns name, class; expected at least file and label"):
        find_class_references(tmp_path / "a.csv")
    (tmp_path / "a.json").write_text('{"test": [{"image": "a.png"}]}')
    with pytest.raises(UsageError, match="has no film with a class"):
        find_class_references(tmp_path / "a.json")
    with pytest.raises(
        UsageError, match="no section 'exam'; expected one of training, validation, test, all"
    ):
        check_section("exam")
