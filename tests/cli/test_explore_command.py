import json

import pytest
import typer
from phantoms import write_decathlon
from typer.testing import CliRunner

from medimg3d.cli import explore as command
from medimg3d.errors import UsageError


@pytest.fixture
def run():
    app = typer.Typer()
    app.callback()(lambda: None)
    command.register(app)
    return lambda *arguments: CliRunner(env={"COLUMNS": "200"}).invoke(app, ["explore", *map(str, arguments)])


def test_prints_counts_advice_and_where_the_page_is(run, tmp_path):
    result = run(
        write_decathlon(tmp_path / "set", num_cases=2), "--out", tmp_path / "out", "--num-samples", 0
    )
    assert result.exit_code == 0, result.output
    for part in ("training", "Note: The patient is known of 0 of 2 cases", "explore.html"):
        assert part in result.stdout


def test_json_is_the_summary_and_nothing_else(run, tmp_path):
    root = write_decathlon(tmp_path / "set", num_cases=2)
    result = run(root, "--out", tmp_path / "out", "--num-samples", 0, "--json")
    assert json.loads(result.stdout) == json.loads((tmp_path / "out" / "explore.json").read_text())


def test_a_reject_is_named_and_the_exit_code_is_3(run, tmp_path):
    root = write_decathlon(tmp_path / "set", num_cases=2)
    (root / "imagesTr" / "phantom_001.nii.gz").write_bytes(b"broken")
    result = run(root, "--out", tmp_path / "out", "--num-samples", 0)
    assert result.exit_code == 3
    assert "1 rejected:\n  phantom_001: image is no NIfTI file" in result.stderr


def test_a_folder_that_is_not_there_is_bad_usage(run, tmp_path):
    (tmp_path / "empty").mkdir()
    error = run(tmp_path / "empty", "--out", tmp_path / "out").exception
    assert isinstance(error, UsageError)
    assert error.exit_code == 2


def test_help_teaches_with_examples(run):
    assert "medimg3d explore chest_xray --out look" in run("--help").stdout
