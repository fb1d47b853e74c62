import csv
import json

import pytest
import typer
from phantoms import affine, two_boxes, write_nifti, write_threshold_bundle
from typer.testing import CliRunner

from medimg3d.cli import demo as demo_command
from medimg3d.cli import predict as predict_command
from medimg3d.errors import UsageError


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_threshold_bundle(tmp_path_factory.mktemp("bundles") / "thresholds")


@pytest.fixture
def run():
    """Runs the command as the ``medimg3d`` application would."""
    app = typer.Typer(rich_markup_mode="rich")
    predict_command.register(app)
    demo_command.register(app)
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_good_images_end_with_0_and_a_table_of_volumes(run, bundle, tmp_path):
    image = write_nifti(tmp_path / "case.nii.gz", two_boxes(), affine((2.0, 2.0, 2.0)))
    result = run("predict", bundle, image, "--out", tmp_path / "out", "--no-overlays")
    assert result.exit_code == 0, result.output
    for word in ("grey", "white", "case", "0.960", "0.216"):
        assert word in result.stdout
    assert "index.html" in result.stderr
    assert not (tmp_path / "out" / "overlays").exists()
    assert (tmp_path / "out" / "reports" / "case.html").is_file()


def test_some_rejects_end_with_3_and_are_named(run, bundle, tmp_path):
    write_nifti(tmp_path / "in" / "good.nii.gz", two_boxes())
    (tmp_path / "in" / "bad.nii.gz").write_text("hello")
    result = run(
        "predict", bundle, tmp_path / "in", "--out", tmp_path / "out", "--no-overlays", "--no-reports"
    )
    assert result.exit_code == 3
    assert "bad.nii.gz: is no NIfTI file" in result.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        ".finished",
        "good_seg.nii.gz",
        "measurements.csv",
        "run.json",
    ]


def test_all_rejected_ends_with_1_and_says_so(run, bundle, tmp_path):
    (tmp_path / "bad.nii.gz").write_text("hello")
    result = run("predict", bundle, tmp_path / "bad.nii.gz", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "every input was rejected" in result.stderr
    assert "Traceback" not in result.stderr
    with (tmp_path / "out" / "measurements.csv").open(newline="") as file:
        assert len(list(csv.reader(file))) == 1  # the header


def test_an_empty_folder_is_bad_usage(run, bundle, tmp_path):
    (tmp_path / "in").mkdir()
    result = run("predict", bundle, tmp_path / "in", "--out", tmp_path / "out")
    assert isinstance(result.exception, UsageError)
    assert result.exception.exit_code == 2
    assert not (tmp_path / "out").exists()


def test_json_prints_one_object_on_standard_output(run, bundle, tmp_path):
    image = write_nifti(tmp_path / "case.nii.gz", two_boxes())
    result = run(
        "predict", bundle, image, "--out", tmp_path / "out", "--json", "--no-overlays", "--no-reports"
    )
    assert json.loads(result.stdout)["cases"][0]["voxels"] == {"grey": 120, "white": 27}


@pytest.mark.parametrize(("command", "word"), [("predict", "measurements.csv"), ("demo", "MNI152")])
def test_help_teaches_by_example(run, command, word):
    result = run(command, "--help")
    assert result.exit_code == 0
    assert word in result.stdout
    assert f"medimg3d {command}" in result.stdout
