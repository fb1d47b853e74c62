from pathlib import Path

from phantoms import write_picture

from medimg3d.data.class_pairs import pair_up
from medimg3d.data.class_predictions import ClassPrediction
from medimg3d.data.class_references import ClassReference


def said(file, case=""):
    return ClassPrediction(file, case, "a", (0.9, 0.1), False)


def film(path, case="", section=None):
    return ClassReference(Path(path), case or Path(path).stem, "a", section)


def matched(result):
    return {pair.prediction.file: str(pair.reference.path) for pair in result.pairs}


def test_the_path_decides_where_a_file_name_occurs_twice():
    films = [film("/d/test/A/x.png"), film("/d/test/B/x.png")]
    result = pair_up([said("B/x.png"), said("A/x.png")], films)
    assert matched(result) == {"B/x.png": "/d/test/B/x.png", "A/x.png": "/d/test/A/x.png"}
    assert result.unmatched == {}


def test_a_file_name_of_its_own_is_enough_whatever_the_folders():
    result = pair_up([said("elsewhere/x.png"), said("y.png")], [film("/d/A/x.png"), film("/d/B/y.png")])
    assert len(result.pairs) == 2


def test_the_case_is_tried_last():
    result = pair_up([said("copy.png", case="film 1")], [film("/d/x.png", case="film 1")])
    assert matched(result) == {"copy.png": "/d/x.png"}


def test_a_windows_path_is_understood():
    assert len(pair_up([said("A\\x.png")], [film("/d/A/x.png"), film("/d/B/x.png")]).pairs) == 1


def test_every_file_in_no_pair_is_named_with_its_reason():
    films = [film("/d/A/x.png"), film("/d/B/x.png"), film("/d/A/lonely.png"), film("/d/A/y.png")]
    result = pair_up([said("x.png"), said("C/x.png"), said("new.png"), said("y.png"), said("A/y.png")], films)
    assert matched(result) == {"y.png": "/d/A/y.png"}
    reasons = result.unmatched
    assert "fits 2 films by its path" in reasons["x.png"]
    assert "has a file name that 2 films have, none of them at its path" in reasons["C/x.png"]
    assert reasons["new.png"] == "is not among the films with a class"
    assert reasons["A/y.png"] == "is the same film as y.png, which is scored"
    assert reasons["A/lonely.png"] == reasons["B/x.png"] == "has no prediction"


def test_a_film_of_another_section_is_no_mistake():
    result = pair_up(
        [said("x.png"), said("y.png")], [film("/d/x.png")], [film("/d/y.png", section="training")]
    )
    assert result.elsewhere == {"y.png": "training"}
    assert result.unmatched == {}


def test_a_film_whose_content_is_another_than_was_predicted_on_is_not_matched(tmp_path):
    path = write_picture(tmp_path / "x.png")
    result = pair_up([said("x.png", case="x")], [film(path)], hashes={"x": "another"})
    assert list(result.unmatched) == ["x.png"]
    assert "made of other content" in result.unmatched["x.png"]
