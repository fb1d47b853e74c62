import csv
import json

import pytest
from phantoms import write_class_predictions, write_film_study

from medimg3d.data.content_hash import content_sha256
from medimg3d.errors import DataError, UsageError
from medimg3d.workflows.evaluate_classification import evaluate_classification

# Films 0 to 5 are normal, 6 to 9 bacterial, 10 and 11 viral. Wrong at 0.5: 4 (0.7) and 10 (0.3).
CHANCES = [0.05, 0.1, 0.15, 0.2, 0.7, 0.45, 0.9, 0.85, 0.8, 0.95, 0.3, 0.55]


def files():
    return [f"{'normal' if n < 6 else 'pneumonia'}/film_{n:02d}.png" for n in range(12)]


@pytest.fixture
def study(tmp_path):
    """Twelve films, and predictions that are wrong on two of them."""
    predict(tmp_path)
    return write_film_study(tmp_path / "study") / "chest.json"


def predict(tmp_path, chances=None, **settings):
    chances = chances or dict(zip(files(), CHANCES, strict=True))
    return write_class_predictions(tmp_path / "predictions", chances, **settings)


def run(tmp_path, references, **settings):
    return evaluate_classification(
        tmp_path / "predictions", references, tmp_path / "out", **{"num_resamples": 200} | settings
    )


def write_bundle(folder, *trained_on, threshold=0.5):
    decision = {"format": 1, "classes": ["normal", "pneumonia"], "positive": "pneumonia", "temperature": 1.0}
    decision |= {"threshold": threshold, "rule": "youden", "chosen_on": "fold 0", "weights_sha256": "w"}
    cases = [{"name": f"seen_{n}", "image_sha256": content_sha256(path)} for n, path in enumerate(trained_on)]
    (folder / "models").mkdir(parents=True)
    (folder / "models" / "decision.json").write_text(json.dumps(decision))
    record = {"format": 1, "cases": cases, "weights_sha256": "w"}
    (folder / "models" / "training_cases.json").write_text(json.dumps(record))
    (folder / "configs").mkdir()
    (folder / "configs" / "metadata.json").write_text('{"version": "0.3.0"}')
    return folder


def write_run_record(tmp_path, study, weights="w"):
    films = [study.parent / "test" / file for file in files()]
    cases = [{"case": film.stem, "input_sha256": content_sha256(film)} for film in films]
    record = {"bundle": {"name": "xray", "weights_sha256": weights}, "cases": cases}
    (tmp_path / "predictions" / "run.json").write_text(json.dumps(record))


def value(result, name):
    return result.summary["metrics"][name]["value"]


def table(result):
    with result.files["cases"].open(newline="") as handle:
        return list(csv.DictReader(handle))


def test_figures_of_twelve_films_worked_out_by_hand(tmp_path, study):
    result = run(tmp_path, study)
    assert result.summary["confusion"] == [[5, 1], [1, 5]]
    for name in ("accuracy", "balanced_accuracy", "sensitivity", "specificity", "precision", "f1"):
        assert value(result, name) == pytest.approx(5 / 6)
    # of 36 pairs, film 10 (0.3) loses to 4 and 5, film 11 (0.55) to 4
    assert value(result, "auc") == pytest.approx(33 / 36)
    assert result.rejected == {}
    assert result.summary["settings"]["resampled_by"] == "patient"
    assert result.summary["settings"]["num_patients"] == 6


def test_decisions_are_those_of_the_table_whatever_the_probabilities(tmp_path, study):
    predict(tmp_path, threshold=0.75)
    result = run(tmp_path, study)
    assert value(result, "specificity") == 1
    assert value(result, "sensitivity") == pytest.approx(4 / 6)


def test_writes_table_summary_pictures_and_a_page_that_is_one_file(tmp_path, study):
    result = run(tmp_path, study)
    rows = table(result)
    assert list(rows[0]) == [
        *("file", "case", "truth", "decision", "probability_normal", "probability_pneumonia"),
        *("correct", "unsure", "seen_in_training"),
    ]
    wrong = [row["file"] for row in rows if row["correct"] == "no"]
    assert wrong == ["normal/film_04.png", "pneumonia/film_10.png"]
    assert json.loads(result.files["summary"].read_text()) == result.summary
    page = result.files["page"].read_text()
    assert page.count("data:image/png;base64,") == 5
    assert "Research use only, not for diagnosis" in page
    assert "http" not in page
    for name in ("roc", "pr", "reliability", "confusion", "mistakes"):
        assert (tmp_path / "out" / f"{name}.png").is_file()
    assert "p0" not in result.files["cases"].read_text()  # no patient


def test_same_seed_gives_the_same_summary(tmp_path, study):
    assert run(tmp_path, study).summary == run(tmp_path, study).summary


def test_mistakes_are_named_the_most_confident_first(tmp_path, study):
    mistakes = run(tmp_path, study).summary["mistakes"]
    assert [(case["file"], case["probability"]) for case in mistakes] == [
        ("normal/film_04.png", 0.7),
        ("pneumonia/film_10.png", 0.7),
    ]


def test_a_subtype_within_pneumonia_is_held_against_all_normal_films_and_the_page_says_so(tmp_path, study):
    result = run(tmp_path, study)
    bacterial, viral = result.summary["subgroups"]["subtype"]
    assert (bacterial["value"], bacterial["n"]) == ("bacterial", 4)
    assert bacterial["figures"]["auc"]["value"] == 1
    assert viral["figures"]["sensitivity"]["value"] == 0.5
    assert viral["figures"]["auc"]["value"] == pytest.approx(9 / 12)
    assert viral["compared_with"] == "all 6 films of other classes"
    assert "compare it with ALL films of the other classes" in result.files["page"].read_text()


def test_the_unsure_are_counted_and_the_figures_without_them_shown(tmp_path, study):
    predict(tmp_path, unsure=(0.25, 0.6))
    unsure = run(tmp_path, study).summary["unsure"]
    assert (unsure["n"], unsure["share"]["value"]) == (3, 0.25)
    assert unsure["confusion_without"] == [[4, 1], [0, 4]]
    assert unsure["without"]["accuracy"]["value"] == pytest.approx(8 / 9)


def test_films_without_prediction_and_predictions_without_film_are_named(tmp_path, study):
    chances = dict(zip(files()[1:], CHANCES[1:], strict=True)) | {"new.png": 0.5}
    predict(tmp_path, chances)
    result = run(tmp_path, study)
    assert result.rejected == {
        "new.png": "is not among the films with a class",
        "normal/film_00.png": "has no prediction",
    }
    assert (
        "1 of 12 films of the section are not scored; the figures are those of the rest." in result.warnings
    )


def test_a_film_of_an_unknown_class_is_rejected(tmp_path, study):
    study.write_text(study.read_text().replace('"classes": ["normal", "pneumonia"], ', ""))
    text = study.read_text().replace('"class_label": "normal"', '"class_label": "Nodule"', 1)
    study.write_text(text.replace('"class_label": "normal"', '"class_label": "NORMAL"'))
    result = run(tmp_path, study)
    assert result.rejected == {
        "normal/film_00.png": "its class is 'Nodule'; expected one of normal, pneumonia"
    }
    assert result.summary["num_scored"] == 11


def test_few_films_of_a_class_and_a_section_that_may_have_chosen_are_warned_of(tmp_path, study):
    assert any(
        "Fewer than 50 films of a class (6 of normal, 6" in text for text in run(tmp_path, study).warnings
    )
    study.write_text(study.read_text().replace('"test": [', '"validation": ['))
    result = run(tmp_path, study, section="validation")
    assert any("Section 'validation' may have chosen" in text for text in result.warnings)


def test_a_scored_film_that_was_trained_on_is_named_everywhere(tmp_path, study):
    bundle = write_bundle(tmp_path / "xray", study.parent / "test" / "normal" / "film_03.png")
    result = run(tmp_path, study, bundle=bundle, log=False)
    assert (
        "1 of 12 scored films were among those the weights were trained on: normal/film_03.png"
        in (result.warnings[0])
    )
    assert [row["file"] for row in table(result) if row["seen_in_training"] == "yes"] == [
        "normal/film_03.png"
    ]
    assert "among those the weights were trained on" in result.files["page"].read_text()


def test_other_weights_than_the_thresholds_are_warned_of(tmp_path, study):
    write_run_record(tmp_path, study, weights="other")
    result = run(tmp_path, study, bundle=write_bundle(tmp_path / "xray"), log=False)
    assert any("threshold was chosen for other weights" in text for text in result.warnings)


def test_a_patient_in_two_sections_and_a_film_that_is_there_twice_are_warned_of(tmp_path, study):
    content = json.loads(study.read_text())
    content["training"] = [{"image": "train/z.png", "class_label": "normal", "patient": "p0"}]
    study.write_text(json.dumps(content))
    first, second = (study.parent / "test" / "normal" / f"film_{n:02d}.png" for n in (0, 1))
    second.write_bytes(first.read_bytes())
    warnings = run(tmp_path, study).warnings
    assert "2 scored films are of patients who also have films in another section of the list." in warnings
    assert "2 scored films have the same content as another scored film." in warnings


def test_each_look_at_a_test_set_is_logged_in_the_bundle_without_a_path_of_the_machine(tmp_path, study):
    write_run_record(tmp_path, study)
    bundle = write_bundle(tmp_path / "xray")
    first = run(tmp_path, study, bundle=bundle)
    assert first.notices[-1].startswith("Logged in ")
    second = run(tmp_path, study, bundle=bundle)
    assert any("has this list 1 time already" in notice for notice in second.notices)
    lines = (bundle / "docs" / "test_evaluations.jsonl").read_text().splitlines()
    entry = json.loads(lines[0])
    del entry["date"]
    assert entry == {
        "bundle": "xray",
        "version": "0.3.0",
        "weights_sha256": "w",
        "datalist": "chest",
        "section": "test",
        "n": 12,
        "auc": pytest.approx(33 / 36),
        "accuracy": pytest.approx(10 / 12),
        "command": "medimg3d evaluate predictions chest.json --bundle xray --section test --seed 0",
    }
    assert len(lines) == 2


def test_nothing_is_logged_for_another_section_or_when_told_so(tmp_path, study):
    bundle = write_bundle(tmp_path / "xray")
    run(tmp_path, study, bundle=bundle, log=False)
    study.write_text(study.read_text().replace('"test": [', '"validation": ['))
    run(tmp_path, study, bundle=bundle, section="validation")
    assert not (bundle / "docs").exists()


def test_a_mistake_that_cannot_be_drawn_costs_no_figure(tmp_path, study):
    (study.parent / "test" / "normal" / "film_04.png").write_bytes(b"no picture")
    result = run(tmp_path, study)
    assert "normal/film_04.png" in result.summary["not_drawn"]
    assert value(result, "accuracy") == pytest.approx(10 / 12)


def test_one_class_only_gives_the_page_without_curves(tmp_path, study):
    content = json.loads(study.read_text())
    content["test"] = content["test"][:6]
    study.write_text(json.dumps(content))
    predict(tmp_path, dict(zip(files()[:6], CHANCES[:6], strict=True)))
    result = run(tmp_path, study)
    assert result.summary["metrics"]["auc"]["note"] == "undefined: no film of class pneumonia"
    assert "undefined" in result.files["page"].read_text()
    assert not (tmp_path / "out" / "roc.png").exists()


def test_a_case_name_that_two_films_share_does_not_mix_up_their_hashes(tmp_path, study):
    write_run_record(tmp_path, study)
    path = tmp_path / "predictions" / "predictions.csv"
    text = path.read_text().replace(",film_01\n", ",film_00\n")
    path.write_text(text)
    assert run(tmp_path, study).rejected == {}


def test_three_classes_have_no_positive_one(tmp_path):
    rows = ["file,probability,decision,unsure,probability_a,probability_b,probability_c,case"]
    labels = ["file,label"]
    for n in range(12):
        chances = [0.2, 0.2, 0.2]
        chances[(n + (n == 0)) % 3] = 0.6  # the first is wrong
        decision = "abc"[(n + (n == 0)) % 3]
        rows.append(f"{n}.png,0.6,{decision},no,{','.join(map(str, chances))},{n}")
        labels.append(f"{n}.png,{'abc'[n % 3]}")
    (tmp_path / "predictions").mkdir()
    (tmp_path / "predictions" / "predictions.csv").write_text("\n".join(rows))
    (tmp_path / "labels.csv").write_text("\n".join(labels))
    result = run(tmp_path, tmp_path / "labels.csv")
    assert result.summary["positive"] is None
    assert value(result, "accuracy") == pytest.approx(11 / 12)
    assert result.summary["per_class"]["a"]["sensitivity"]["value"] == pytest.approx(3 / 4)
    assert "sensitivity" not in result.summary["metrics"]


def test_a_row_that_cannot_be_read_keeps_its_reason(tmp_path, study):
    path = tmp_path / "predictions" / "predictions.csv"
    path.write_text(path.read_text().replace("0.050000,normal", "0.050000,nothing"))
    assert run(tmp_path, study).rejected == {
        "normal/film_00.png": "its decision is 'nothing'; expected one of normal, pneumonia"
    }


def test_wrong_use_is_refused_with_what_is_there(tmp_path, study):
    with pytest.raises(UsageError, match=r"no film with a class in section 'training'; it has test \(12\)"):
        run(tmp_path, study, section="training")
    with pytest.raises(UsageError, match="no section 'exam'"):
        run(tmp_path, study, section="exam")
    with pytest.raises(UsageError, match="is no folder; give the folder of the bundle"):
        run(tmp_path, study, bundle=tmp_path / "nothing")
    with pytest.raises(UsageError, match="level must lie between 0 and 1"):
        run(tmp_path, study, level=95)
    predict(tmp_path, {"other.png": 0.5})
    with pytest.raises(UsageError, match=r"the first, other\.png, is not among the films with a class"):
        run(tmp_path, study)


def test_no_known_class_at_all_is_an_error(tmp_path, study):
    content = json.loads(study.read_text())
    content["classes"] = ["x", "y"]
    content["test"] = [case | {"class_label": "x"} for case in content["test"]]
    study.write_text(json.dumps(content))
    with pytest.raises(DataError, match="None of 12 films could be scored; the first: its class is 'x'"):
        run(tmp_path, study)


@pytest.mark.realdata
def test_the_public_films_are_found_by_their_table_and_their_subtypes_compared(tmp_path, data_root):
    with (data_root / "chest_xray" / "labels.csv").open(newline="") as handle:
        films = [row for row in csv.DictReader(handle) if row["split"] == "test"]
    chances = {
        row["file"].removeprefix("test/"): 0.2 + 0.6 * (row["label"] == "PNEUMONIA") + 0.0001 * n
        for n, row in enumerate(films)
    }
    predict(tmp_path, chances)
    result = run(tmp_path, data_root / "chest_xray")
    assert result.rejected == {}
    assert result.summary["n_by_class"] == {"normal": 117, "pneumonia": 195}
    assert [entry["n"] for entry in result.summary["subgroups"]["subtype"]] == [130, 65]
    assert value(result, "auc") == 1
    assert "2 scored films have the same content as another scored film." in result.warnings
