import json

import pytest
import typer
from typer.testing import CliRunner

from medimg3d.cli import data as data_command
from medimg3d.cli import datalist as datalist_command
from medimg3d.errors import DataError, UsageError


@pytest.fixture
def run(monkeypatch):
    """Runs the command as the ``medimg3d`` application would, with no mirror set."""
    monkeypatch.delenv("MEDIMG3D_DATA", raising=False)
    app = typer.Typer()
    datalist_command.register(app)
    data_command.register(app)
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def mirror(tmp_path):
    (tmp_path / "mirror" / "hippocampus").mkdir(parents=True)
    (tmp_path / "mirror" / "hippocampus" / "a.txt").write_text("a")
    return tmp_path / "mirror"


def test_list_names_each_set_with_its_licence(run):
    sets = {entry["name"]: entry for entry in json.loads(run("data", "list", "--json").stdout)}
    assert sets["hippocampus"]["licence"] == "CC BY-SA 4.0"
    assert sets["hippocampus"]["here"] is None
    assert "hippocampus" in run("data", "list").stdout


def test_list_says_which_sets_are_here(run, mirror, monkeypatch):
    monkeypatch.setenv("MEDIMG3D_DATA", str(mirror))
    sets = {entry["name"]: entry["here"] for entry in json.loads(run("data", "list", "--json").stdout)}
    assert sets["hippocampus"] == str(mirror / "hippocampus")


def test_get_copies_from_a_folder_and_shows_the_licence(run, mirror, tmp_path):
    result = run("data", "get", "hippocampus", "--out", tmp_path / "out", "--from", mirror)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out" / "hippocampus" / "a.txt").is_file()
    assert "CC BY-SA 4.0" in result.stdout


def test_get_with_json(run, mirror, tmp_path):
    result = run("data", "get", "hippocampus", "--out", tmp_path / "out", "--from", mirror, "--json")
    assert json.loads(result.stdout)["folder"] == str(tmp_path / "out" / "hippocampus")


def test_an_unknown_set_is_bad_usage(run, tmp_path):
    error = run("data", "get", "brain", "--out", tmp_path).exception
    assert isinstance(error, UsageError)
    assert error.exit_code == 2


def test_a_set_without_a_published_hash_is_not_fetched(run, tmp_path):
    error = run("data", "get", "chest_xray", "--out", tmp_path).exception
    assert isinstance(error, DataError)
    assert "--hash sha256:DIGITS" in str(error)
