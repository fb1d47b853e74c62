"""The command ``medimg3d plan``."""

from __future__ import annotations

import json

import phantoms
import pytest

from medimg3d.cli.main import run


@pytest.fixture
def study(tmp_path):
    return phantoms.write_decathlon(tmp_path / "study", num_cases=3) / "dataset.json"


def test_json_holds_the_decisions(study, tmp_path, capsys):
    arguments = [
        "plan",
        str(study),
        "--out",
        str(tmp_path / "planned"),
        "--no-trial",
        "--workers",
        "1",
        "--json",
    ]
    with pytest.raises(SystemExit) as stopped:
        run([*arguments, "--folds", "3", "--mirror", "none", "--set", "width=8"])
    assert stopped.value.code == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["decisions"]["task"] == "segmentation"
    assert summary["decisions"]["mirroring"] == []
    assert summary["decisions"]["depth and width"]["filters"] == 8


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--spacing", "1,wide,1"], "--spacing is 1,wide,1; expected numbers with commas"),
        (["--network", "vnet"], "network is 'vnet'"),
        (["--set", "width"], "--set width has no '='"),
        (["--settings", "absent.yaml"], "Found no settings at absent.yaml"),
    ],
)
def test_a_wrong_option_is_one_line_and_exit_code_2(study, tmp_path, capsys, more, message):
    with pytest.raises(SystemExit) as stopped:
        run(["plan", str(study), "--out", str(tmp_path / "planned"), *more])
    assert stopped.value.code == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "Traceback" not in error
