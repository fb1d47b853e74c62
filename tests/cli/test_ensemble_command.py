import json

import phantoms
import pytest
from cross_validations import cross_validated
from typer.testing import CliRunner

from medimg3d.cli.main import app, run

runner = CliRunner()


def test_the_command_makes_a_bundle_that_predict_uses_with_its_warning(tmp_path, monkeypatch):
    study = phantoms.write_specked_study(tmp_path / "study", num_cases=4)
    cv = cross_validated(tmp_path / "cv", study, monkeypatch)
    made = runner.invoke(app, ["ensemble", str(cv), "--out", str(tmp_path / "out"), "--json"])
    assert made.exit_code == 0, made.output
    summary = json.loads(made.stdout)
    assert summary["choice"]["candidate"] == "cv"
    assert summary["choice"]["rules"] == []  # four cases make nothing sure
    image = study.parent / "images" / "case_0.nii.gz"
    options = ["--out", str(tmp_path / "p"), "--uncertainty", "--no-overlays", "--no-reports", "--json"]
    predicted = runner.invoke(app, ["predict", str(tmp_path / "out"), str(image), *options])
    assert predicted.exit_code == 0, predicted.output
    assert (tmp_path / "p" / "uncertainty" / "case_0_uncertainty.nii.gz").is_file()
    row = (tmp_path / "p" / "uncertainty.csv").read_text().splitlines()[1].split(",")
    assert row[0] == "case_0"
    assert row[2] != ""  # two members can disagree


def test_a_folder_without_folds_is_bad_usage(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        run(["ensemble", str(tmp_path), "--out", str(tmp_path / "out")])
    assert ended.value.code == 2
    assert "0 folds" in capsys.readouterr().err
