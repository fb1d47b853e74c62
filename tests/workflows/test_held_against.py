"""``medimg3d evaluate --against``: other predictions of the same films."""

from __future__ import annotations

import pytest
from phantoms import write_class_predictions, write_film_study

from medimg3d.errors import DataError, UsageError
from medimg3d.workflows.evaluate_classification import evaluate_classification

# Films 0 to 5 are normal, 6 to 9 bacterial, 10 and 11 viral. Wrong at 0.5: 4 (0.7) and 10 (0.3).
CHANCES = [0.05, 0.1, 0.15, 0.2, 0.7, 0.45, 0.9, 0.85, 0.8, 0.95, 0.3, 0.55]
FILES = [f"{'normal' if n < 6 else 'pneumonia'}/film_{n:02d}.png" for n in range(12)]


@pytest.fixture
def study(tmp_path):
    write_class_predictions(
        tmp_path / "predictions", dict(zip(FILES, CHANCES, strict=True)), unsure=(0.25, 0.6)
    )
    return write_film_study(tmp_path / "study") / "chest.json"


def against(tmp_path, study, chances):
    other = write_class_predictions(tmp_path / "old" / "test_predictions", chances)
    return evaluate_classification(
        tmp_path / "predictions", study, tmp_path / "out", against=[other], num_resamples=200
    )


def test_one_false_alarm_fewer_of_six_at_the_same_five_films_found(tmp_path, study):
    worse = dict(zip(FILES, CHANCES, strict=True)) | {FILES[3]: 0.6}
    result = against(tmp_path, study, worse)
    (entry,) = result.summary["against"]
    assert (entry["name"], entry["n"], entry["lacking"]) == ("old/test_predictions", 12, 0)
    # both may miss film 10 (0.3): the cut lies below 0.55, under which 5 of 6 normal films lie here, 4 there
    assert entry["false_alarms"] == {"here": 1, "there": 2}
    assert entry["estimates"]["specificity_gain"]["value"] == pytest.approx(1 / 6)
    assert entry["estimates"]["sensitivity"]["value"] == pytest.approx(5 / 6)
    page = result.files["page"].read_text()
    assert "False alarms at equal sensitivity" in page
    assert "+0.167" in page


def test_films_that_the_other_lacks_are_left_out_and_counted(tmp_path, study):
    known = {file: chance for file, chance in zip(FILES, CHANCES, strict=True) if file != FILES[4]}
    result = against(tmp_path, study, known)
    (entry,) = result.summary["against"]
    assert (entry["n"], entry["lacking"], entry["negatives"]) == (11, 1, 5)
    assert "1 without a prediction there, left out" in result.files["page"].read_text()


def test_predictions_of_other_films_are_refused(tmp_path, study):
    with pytest.raises(DataError, match="has 0 of the 12 scored films"):
        against(tmp_path, study, {"elsewhere/a.png": 0.5, "elsewhere/b.png": 0.7})


def test_more_than_two_classes_are_refused(tmp_path, study):
    rows = [
        "file,probability,decision,unsure,probability_normal,probability_bacterial,probability_viral,case"
    ]
    rows += [f"{file},0.5,normal,no,0.5,0.25,0.25,{n}" for n, file in enumerate(FILES)]
    (tmp_path / "predictions" / "predictions.csv").write_text("\n".join(rows) + "\n")
    with pytest.raises(UsageError, match="have 3 classes; --against needs two"):
        against(tmp_path, study, dict(zip(FILES, CHANCES, strict=True)))


def test_mistakes_left_to_a_human_are_counted(tmp_path, study):
    result = against(tmp_path, study, dict(zip(FILES, CHANCES, strict=True)))
    # unsure from 0.25 to 0.6: films 5, 10, 11; film 10 is missed, film 4 (0.7) a false alarm outside the band
    mistakes = result.summary["unsure"]["mistakes"]
    assert mistakes == {"false_alarms": {"all": 1, "unsure": 0}, "missed": {"all": 1, "unsure": 1}}
    assert (
        "Mistakes among them: 0 of 1 false\nalarms, 1 of 1 missed films" in result.files["page"].read_text()
    )
