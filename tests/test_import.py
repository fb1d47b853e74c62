"""What importing medimg3d and asking for help load, and where the tests' medimg3d comes from."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import medimg3d

HEAVY = ("torch", "monai", "ignite", "scipy", "SimpleITK", "matplotlib", "pandas", "tensorboard", "mlflow")


def _loaded_by(code: str, folder: Path) -> set[str]:
    """Heavy packages that a fresh interpreter has loaded after running the code."""
    probe = f"import sys\n{code}\nprint('LOADED', *(name for name in {HEAVY} if name in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", probe], cwd=folder, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split()[1:])


def test_import_medimg3d_loads_nothing_heavy(tmp_path):
    assert _loaded_by("import medimg3d", tmp_path) == set()


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["train", "--help"], ["predict", "--help"]])
def test_help_and_version_load_nothing_heavy(arguments, tmp_path):
    run = f"    run({arguments})\nexcept SystemExit as end:\n    assert not end.code"
    code = f"from medimg3d.cli.main import run\ntry:\n{run}"
    assert _loaded_by(code, tmp_path) == set()


@pytest.mark.skipif(
    os.environ.get("MEDIMG3D_TEST_INSTALLED") != "1", reason="only `make test` tests the installed wheel"
)
def test_make_test_runs_against_the_installed_wheel_and_not_the_checkout(tmp_path):
    assert "site-packages" in Path(medimg3d.__file__).parts
    where = "import medimg3d; print(medimg3d.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", where], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert Path(done.stdout.strip()) == Path(medimg3d.__file__)
