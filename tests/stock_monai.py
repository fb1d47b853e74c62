"""Runs `python -m monai.bundle` in a process where medimg3d cannot be imported.

MONAI and torch take five seconds to import: a process that has imported them, and nothing else, is forked for each run.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

_SERVER = """
import atexit, json, os, runpy, sys, traceback
sys.modules["medimg3d"] = None
import ignite, monai.bundle, nibabel, torch

def run(asked):
    os.chdir(asked["cwd"])
    out = os.open(asked["out"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(out, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.argv = ["monai.bundle", *asked["arguments"]]
    code = 0
    try:
        runpy.run_module("monai.bundle", run_name="__main__", alter_sys=True)
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else int(left.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)

for line in sys.stdin:
    child = os.fork()
    if child == 0:
        run(json.loads(line))
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


ONE_STEP = {"iterations_per_epoch": 1, "batch_size": 2, "num_workers": 0, "train#trainer#max_epochs": 1}
"""A training of one epoch of one step."""


def train_evaluate_infer(bundle: Path, data: Path, folder: Path, images: Path | None = None) -> Path:
    """One step of training, the held-out cases, and a prediction of every image; the folder of the predictions.

    Args:
        bundle: A planned bundle.
        data: Folder with ``dataset.json``.
        folder: Where everything is written.
        images: What is predicted; ``imagesTr`` of the data where it has one, else the data's folder.
    """
    configs, weights = bundle / "configs", folder / "training" / "models" / "model.pt"
    if images is None:
        images = data / "imagesTr" if (data / "imagesTr").is_dir() else data
    runs: tuple[tuple[str, str, Path, dict[str, object]], ...] = (
        ("train", "training", data, ONE_STEP),
        ("evaluate", "evaluation", data, {"checkpoint": weights}),
        ("inference", "predictions", images, {"checkpoint": weights}),
    )
    for config, out, place, more in runs:
        monai_bundle(
            "run",
            cwd=folder,
            config_file=configs / f"{config}.json",
            bundle_root=bundle,
            dataset_dir=place,
            output_dir=folder / out,
            **more,
        )
    return folder / "predictions"


def monai_bundle(*arguments: object, cwd: Path, **values: object) -> str:
    """Run a subcommand with ``--name value`` options from another folder; fails with the output's end."""
    options = [str(part) for name, value in values.items() for part in (f"--{name}", value)]
    server = _server()
    with tempfile.NamedTemporaryFile() as log:
        asked = {"cwd": str(cwd), "out": log.name, "arguments": [*map(str, arguments), *options]}
        server.stdin.write(json.dumps(asked) + "\n")
        server.stdin.flush()
        code = server.stdout.readline().strip()
        output = Path(log.name).read_text(errors="replace")
    assert code == "0", f"exit code {code or 'none'}\n{output[-10000:]}"
    return output


@cache
def _server() -> subprocess.Popen[str]:
    """One for each process of the tests, with one thread."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    server = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", _SERVER], env=environment, text=True, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )  # fmt: skip
    atexit.register(server.terminate)
    return server


def run(command: list[str], *, cwd: Path) -> str:
    """Run a command with one thread; its output, or an error that shows it."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-6000:]
    return done.stdout + done.stderr
