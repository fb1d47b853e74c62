import json
import subprocess
import sys

import pytest
import typer
from phantoms import write_decathlon, write_defects
from typer.testing import CliRunner

from medimg3d.cli import data as data_command
from medimg3d.cli import datalist as datalist_command
from medimg3d.errors import DataError, UsageError


@pytest.fixture
def run():
    """Runs the command as the ``medimg3d`` application would."""
    app = typer.Typer()
    datalist_command.register(app)
    data_command.register(app)
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_a_good_folder_ends_with_0_and_a_datalist(run, tmp_path):
    folder = write_decathlon(tmp_path / "set", num_cases=5)
    result = run("datalist", folder, "--out", tmp_path / "o.json")
    assert result.exit_code == 0, result.output
    assert "5 training" in result.stdout
    assert len(json.loads((tmp_path / "o.json").read_text())["training"]) == 5


def test_rejects_end_with_3_and_are_named_on_standard_error(run, tmp_path):
    folder = write_decathlon(tmp_path / "set", num_cases=5)
    (folder / "labelsTr" / "phantom_002.nii.gz").unlink()
    result = run("datalist", folder, "--out", tmp_path / "o.json", "--num-folds", 2)
    assert result.exit_code == 3
    assert "rejected: labelsTr/phantom_002.nii.gz: label is missing; expected a file" in result.stderr
    assert "Cases rejected: 1; accepted, but to look at: 0." in result.stderr


def test_json_prints_one_object(run, tmp_path):
    folder = write_decathlon(tmp_path / "set", num_cases=4)
    result = run("datalist", folder, "--out", tmp_path / "o.json", "--num-folds", 2, "--seed", 3, "--json")
    summary = json.loads(result.stdout)
    assert (summary["training"], summary["split"]["seed"], sum(summary["fold_sizes"])) == (4, 3, 4)
    assert summary["labels"] == {"0": "background", "1": "front", "2": "rear"}


def test_a_datalist_is_checked_and_written_without_what_cannot_be_used(run, tmp_path):
    defects = write_defects(tmp_path / "set")
    result = run("datalist", defects, "--out", tmp_path / "o.json", "--json")
    assert result.exit_code == 3
    summary = json.loads(result.stdout)
    assert (summary["training"], len(summary["rejected"]), summary["layouts"]) == (8, 8, ["datalist"])
    files = {finding["file"]: finding for finding in summary["findings"]}
    assert files["labelsTr/label_7.nii.gz"]["cure"].startswith("Correct the label map")
    assert not files["imagesTr/spacing.nii.gz"]["severe"]
    folds = {case["id"]: case["fold"] for case in json.loads((tmp_path / "o.json").read_text())["training"]}
    assert [folds[f"good_{n}"] for n in range(5)] == [0, 1, 2, 3, 4]  # as they were


def test_a_datalist_is_not_written_over_itself(run, tmp_path):
    path = write_decathlon(tmp_path, num_cases=1) / "dataset.json"
    path = path.rename(tmp_path / "study.json")
    error = run("datalist", path, "--out", path).exception
    assert isinstance(error, UsageError)
    assert "--out is the datalist that is checked" in str(error)


def test_no_check_reads_nothing(run, tmp_path):
    folder = write_decathlon(tmp_path / "set", num_cases=5)
    (folder / "imagesTr" / "phantom_002.nii.gz").write_bytes(b"broken")
    assert run("datalist", folder, "--out", tmp_path / "o.json", "--no-check").exit_code == 0


@pytest.mark.parametrize(("name", "message"), [("none", "No folder"), ("empty", "is empty")])
def test_no_such_or_an_empty_folder_is_bad_usage(run, tmp_path, name, message):
    (tmp_path / "empty").mkdir()
    error = run("datalist", tmp_path / name, "--out", tmp_path / "o.json").exception
    assert isinstance(error, UsageError)
    assert error.exit_code == 2
    assert message in str(error)


def test_nothing_accepted_is_a_failure(run, tmp_path):
    folder = write_decathlon(tmp_path / "set", num_cases=1)
    (folder / "labelsTr" / "phantom_000.nii.gz").unlink()
    error = run("datalist", folder, "--out", tmp_path / "o.json").exception
    assert isinstance(error, DataError)
    assert error.exit_code == 1


def test_the_pattern_in_the_help_can_be_copied(run):
    assert r"'(patient\d+)'" in run("datalist", "--help").stdout


def test_the_command_line_starts_without_torch_and_monai():
    code = (
        "import sys, typer; from medimg3d.cli import data, datalist; app = typer.Typer(); "
        "data.register(app); datalist.register(app); "
        "print([m for m in ('torch', 'monai', 'numpy', 'nibabel') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.realdata
def test_acdc_by_patient(run, data_root, tmp_path):
    arguments = ("--out", tmp_path / "o.json", "--patient-pattern", r"(patient\d+)", "--json")
    summary = json.loads(run("datalist", data_root / "acdc_half", *arguments).stdout)
    assert (summary["training"], summary["split"]["by"], summary["fold_sizes"]) == (80, "patient", [16] * 5)


@pytest.mark.realdata
def test_two_hospitals_from_folders_and_a_table(run, tmp_path, data_root):
    lung = data_root / "lung_cancer_ct"
    result = run(
        "datalist", lung, "--out", tmp_path / "o.json", "--image-folder", "ct", "--label-folder", "tumour",
        "--table", lung / "patients.csv", "--structure", "1=tumour", "--modality", "CT", "--no-check",
        "--test-where", "source=NSCLC-Radiogenomics", "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert (summary["training"], summary["test"], summary["labels"]) == (
        106,
        54,
        {"0": "background", "1": "tumour"},
    )
    written = json.loads((tmp_path / "o.json").read_text())
    assert written["modality"] == {"0": "CT"}
    assert {case["fold"] for case in written["training"]} == {0, 1, 2, 3, 4}
    assert {case["values"]["source"] for case in written["training"]} == {"NSCLC-Radiomics"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--image-folder", "ct"), "expected both or none"),
        (("--structure", "tumour"), "--structure is 'tumour'; expected two parts with = between them"),
        (("--structure", "0=air"), "expected a whole number from 1"),
        (("--structure", "1=a", "--structure", "1=b"), "names a value twice"),
        (("--test-where", "source"), "--test-where is 'source'; expected two parts"),
    ],
)
def test_a_description_that_says_nothing_is_refused(run, tmp_path, options, message):
    result = run(
        "datalist", write_decathlon(tmp_path / "set", num_cases=4), "--out", tmp_path / "o.json", *options
    )
    assert isinstance(result.exception, UsageError)
    assert message in str(result.exception)
