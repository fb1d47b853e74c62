"""The command that writes the code that bundles carry."""

from __future__ import annotations

import subprocess
import sys

import pytest


def carried_code(*arguments, cwd):
    command = [sys.executable, "-m", "medimg3d.bundle.carried_code", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


@pytest.fixture
def bundle(tmp_path):
    root = tmp_path / "mine"
    (root / "configs").mkdir(parents=True)
    (root / "configs" / "train.json").write_text('{"folds": {"_target_": "medimg3d_mine.folds.select_fold"}}')
    return root


def test_what_the_configs_name_is_copied_under_its_hash(bundle, tmp_path):
    assert carried_code(bundle, cwd=tmp_path).returncode == 0
    copied = bundle / "medimg3d_mine"
    assert {path.name for path in copied.iterdir()} == {"__init__.py", "folds.py"}
    assert "# Source sha256: " in (copied / "folds.py").read_text()


def test_help_and_folders_that_are_no_bundles_write_nothing(bundle, tmp_path):
    shown = carried_code("--help", cwd=tmp_path)
    assert (shown.returncode, "usage:" in shown.stdout) == (0, True)
    refused = carried_code(bundle, "nothing", cwd=tmp_path)
    assert refused.returncode == 2
    assert "found no configs/ in nothing; expected the folder of a bundle" in refused.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    assert [path.name for path in bundle.iterdir()] == ["configs"]
