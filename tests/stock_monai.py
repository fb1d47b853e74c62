"""Runs `python -m monai.bundle` in a process where medimg3d cannot be imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_BLOCKED = """
import runpy, sys
sys.modules["medimg3d"] = None
sys.argv = ["monai.bundle", *sys.argv[1:]]
runpy.run_module("monai.bundle", run_name="__main__", alter_sys=True)
"""


def monai_bundle(*arguments: object, cwd: Path, **values: object) -> str:
    """Run a subcommand with ``--name value`` options from another folder; fails with the output's end."""
    options = [str(part) for name, value in values.items() for part in (f"--{name}", value)]
    return run([sys.executable, "-W", "ignore", "-c", _BLOCKED, *map(str, arguments), *options], cwd=cwd)


def run(command: list[str], *, cwd: Path) -> str:
    """Run a command with one thread; its output, or an error that shows it."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-6000:]
    return done.stdout + done.stderr
