import json

import pytest
import typer
from phantoms import (
    two_part_phantom,
    write_class_predictions,
    write_decathlon,
    write_film_study,
    write_nifti,
)
from typer.testing import CliRunner

from medimg3d.cli import evaluate as command
from medimg3d.data.content_hash import content_sha256
from medimg3d.errors import UsageError


@pytest.fixture
def run():
    app = typer.Typer()
    app.callback()(lambda: None)
    command.register(app)
    return lambda *arguments: CliRunner(env={"COLUMNS": "200"}).invoke(
        app, ["evaluate", *map(str, arguments)]
    )


@pytest.fixture
def study(tmp_path):
    for n in range(2):
        write_nifti(tmp_path / "predictions" / f"phantom_{n:03d}_seg.nii.gz", two_part_phantom(n)[1])
    return write_decathlon(tmp_path / "study", num_cases=2)


def test_prints_the_table_and_where_the_page_is(run, study, tmp_path):
    result = run(tmp_path / "predictions", study, "--out", tmp_path / "out", "--num-worst", 0)
    assert result.exit_code == 0, result.output
    for part in ("HD95 (mm)", "front", "1.000 to 1.000", "evaluation.html"):
        assert part in result.stdout
    assert "Not checked whether these cases were trained on: no bundle given" in result.stderr


def test_json_is_the_summary_and_nothing_else(run, study, tmp_path):
    result = run(tmp_path / "predictions", study, "--out", tmp_path / "out", "--num-worst", 0, "--json")
    assert json.loads(result.stdout) == json.loads((tmp_path / "out" / "summary.json").read_text())


def test_a_reject_is_named_and_the_exit_code_is_3(run, study, tmp_path):
    (tmp_path / "predictions" / "phantom_001_seg.nii.gz").unlink()
    result = run(tmp_path / "predictions", study, "--out", tmp_path / "out", "--num-worst", 0)
    assert result.exit_code == 3
    assert "1 rejected:\n  phantom_001: no prediction" in result.stderr


def test_warns_on_standard_error_about_training_cases(run, study, tmp_path):
    image = study / "imagesTr" / "phantom_000.nii.gz"
    record = {"format": 1, "cases": [{"name": "phantom_000", "image_sha256": content_sha256(image)}]}
    (tmp_path / "bundle" / "models").mkdir(parents=True)
    (tmp_path / "bundle" / "models" / "training_cases.json").write_text(json.dumps(record))
    arguments = ("--out", tmp_path / "out", "--num-worst", 0, "--bundle", tmp_path / "bundle")
    result = run(tmp_path / "predictions", study, *arguments)
    assert result.exit_code == 0
    assert "Warning: 1 of 2 scored cases were among those the weights were trained on" in result.stderr


def test_an_empty_folder_is_bad_usage(run, study, tmp_path):
    (tmp_path / "empty").mkdir()
    error = run(tmp_path / "empty", study, "--out", tmp_path / "out").exception
    assert isinstance(error, UsageError)
    assert error.exit_code == 2


def test_help_teaches_with_examples(run):
    result = run("--help")
    assert "medimg3d evaluate predictions labels --images images --bundle my_bundle" in result.stdout


@pytest.fixture
def films(tmp_path):
    chances = [0.1, 0.2, 0.3, 0.2, 0.7, 0.4, 0.9, 0.8, 0.8, 0.9, 0.3, 0.6]
    names = [f"{'normal' if n < 6 else 'pneumonia'}/film_{n:02d}.png" for n in range(12)]
    write_class_predictions(tmp_path / "predictions", dict(zip(names, chances, strict=True)))
    return write_film_study(tmp_path / "study") / "chest.json"


def test_a_classifiers_table_is_known_and_its_figures_printed(run, films, tmp_path):
    result = run(tmp_path / "predictions", films, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    for part in (
        "12 films (6 normal, 6 pneumonia; 0 unsure), section test",
        "Sensitivity (pneumonia)",
        "0.833",
    ):
        assert part in result.stdout
    assert "subtype viral (n = 2, against all 6 films of other classes)" in result.stdout
    assert "Fewer than 50 films of a class" in result.stderr
    assert "not logged, since no bundle is given" in result.stderr


def test_json_of_a_classifier_is_the_summary_and_nothing_else(run, films, tmp_path):
    result = run(tmp_path / "predictions" / "predictions.csv", films, "--out", tmp_path / "out", "--json")
    assert json.loads(result.stdout) == json.loads((tmp_path / "out" / "summary.json").read_text())


def test_section_and_subgroup_reach_the_workflow(run, films, tmp_path):
    arguments = (tmp_path / "predictions", films, "--out", tmp_path / "out")
    assert isinstance(run(*arguments, "--section", "validation").exception, UsageError)
    result = run(*arguments, "--subgroup", "hospital")
    assert "The references have no column 'hospital': no figures by it." in result.stderr


def test_what_is_gained_over_other_predictions_is_printed(run, films, tmp_path):
    arguments = (tmp_path / "predictions", films, "--out", tmp_path / "out")
    result = run(*arguments, "--against", tmp_path / "predictions")
    assert result.exit_code == 0, result.output
    assert "both at sensitivity 0.833" in result.stdout
    assert "gained +0.000 (no interval)" in result.stdout


@pytest.mark.parametrize(
    "option", [("--section", "test"), ("--subgroup", "sex"), ("--against", "x"), ("--no-log",)]
)
def test_options_for_classes_are_refused_for_label_maps(run, study, tmp_path, option):
    error = run(tmp_path / "predictions", study, "--out", tmp_path / "out", *option).exception
    assert isinstance(error, UsageError)
    assert "holds predicted label maps, for which --" in str(error)


def test_options_for_label_maps_are_refused_for_classes(run, films, tmp_path):
    error = run(tmp_path / "predictions", films, "--out", tmp_path / "out", "--images", tmp_path).exception
    assert "holds predicted classes, for which --images does nothing" in str(error)


def test_regions_are_given_as_json_and_stand_in_the_table(run, study, tmp_path):
    regions = '{"whole": [1, 2], "rear": [2]}'
    options = ("--out", tmp_path / "out", "--num-worst", 0, "--regions", regions, "--predicted", "labels")
    result = run(tmp_path / "predictions", study, *options, "--json")
    assert result.exit_code == 0, result.output
    assert list(json.loads(result.stdout)["metrics"]["dice"])[:2] == ["whole", "rear"]
    wrong = run(tmp_path / "predictions", study, "--out", tmp_path / "out", "--predicted", "values")
    assert isinstance(wrong.exception, UsageError)
    assert "expected regions or labels" in str(wrong.exception)
