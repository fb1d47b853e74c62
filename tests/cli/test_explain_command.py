import json

import numpy as np
import pytest
import typer
from corner_network import write_corner_bundle
from phantoms import write_picture
from PIL import Image
from typer.testing import CliRunner

from medimg3d.cli import explain as explain_command
from medimg3d.errors import UsageError


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_corner_bundle(tmp_path_factory.mktemp("bundles") / "corners", (16, 12))


@pytest.fixture
def run():
    """Runs the command as the ``medimg3d`` application would."""
    app = typer.Typer(rich_markup_mode="rich")
    explain_command.register(app)
    app.command("other")(lambda: None)
    return lambda *arguments: CliRunner().invoke(app, ["explain", *(str(argument) for argument in arguments)])


def write_film(path):
    pixels = np.zeros((40, 60), np.uint8)
    pixels[:20, :30] = 200
    Image.fromarray(pixels).save(path)
    return path


def test_good_films_end_with_0_and_a_table(run, bundle, tmp_path):
    result = run(bundle, write_film(tmp_path / "film.png"), "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    for word in ("film", "first", "0.56", "relu"):
        assert word in result.stdout
    assert "overlays" in result.stderr
    assert "Research use only" in result.stderr


def test_both_methods_for_a_class_as_json(run, bundle, tmp_path):
    film = write_film(tmp_path / "film.png")
    result = run(
        *(bundle, film, "--out", tmp_path / "out", "--method", "both", "--class", "last", "--json"),
        "--no-overlays",
    )
    assert result.exit_code == 0, result.output
    (case,) = json.loads(result.stdout)["cases"]
    assert (case["decision"], case["class"]) == ("first", "last")
    assert [one["method"] for one in case["maps"]] == ["gradcampp", "occlusion"]


def test_some_rejects_end_with_3_and_all_rejected_with_1(run, bundle, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_text("hello")
    film = write_film(tmp_path / "film.png")
    some = run(bundle, film, bad, "--out", tmp_path / "some", "--no-overlays")
    assert some.exit_code == 3
    assert "bad.png: cannot be decoded" in some.stderr
    none = run(bundle, bad, "--out", tmp_path / "none", "--no-overlays")
    assert none.exit_code == 1
    assert "every input was rejected" in none.stderr


def test_an_unknown_class_is_bad_usage(run, bundle, tmp_path):
    picture = write_picture(tmp_path / "film.png")
    result = run(bundle, picture, "--out", tmp_path / "out", "--class", "cat")
    assert isinstance(result.exception, UsageError)
    assert result.exception.exit_code == 2


def test_help_teaches_by_example(run):
    result = run("--help")
    assert result.exit_code == 0
    assert "medimg3d explain bundles/xray_pneumonia_densenet" in result.stdout
