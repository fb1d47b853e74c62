"""nnU-Net's commands, from an environment of its own, with folders, processes and threads of a work folder's."""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path

import nnunet_data as data
from process_tree import Watched, run_watched

HERE = Path(__file__).resolve().parent
TRAINER, PLANS = "BudgetTrainer", "nnUNetPlans"
PREPROCESSED = "nnunet_preprocessed"
NNUNET_PACKAGES = (
    "nnunetv2",
    "torch",
    "batchgenerators",
    "batchgeneratorsv2",
    "dynamic-network-architectures",
)


def nnunet(
    given: argparse.Namespace,
    name: str,
    command: str,
    *options: object,
    match: str = "time",
    every_s: float = 0.5,
    more: dict[str, str] | None = None,
) -> Watched:
    """Run a command of nnU-Net's environment."""
    program = given.nnunet_python.parent / command
    if not program.is_file():
        raise SystemExit(f"{program} does not exist; install nnunetv2 beside {given.nnunet_python}")
    environment = nnunet_environment(given, match) | (more or {})
    note = note_file(given, name) if name.startswith("train") else None
    log = given.work / "logs" / f"{name}.log"
    return run_watched([program, *options], log, environment=environment, every_s=every_s, note=note)


def nnunet_environment(given: argparse.Namespace, match: str) -> dict[str, str]:
    """Folders, and as many processes and threads as there are cores; all else is nnU-Net's default."""
    folders = {
        "nnUNet_raw": data.RAW,
        "nnUNet_preprocessed": PREPROCESSED,
        "nnUNet_results": f"nnunet_results_{match}",
    }
    for folder in folders.values():
        (given.work / folder).mkdir(parents=True, exist_ok=True)
    return {
        **{name: str((given.work / folder).resolve()) for name, folder in folders.items()},
        "nnUNet_extTrainer": str(HERE / "nnunet_trainer"),
        "nnUNet_n_proc_DA": str(max(1, given.cores - 1)),
        "nnUNet_def_n_proc": str(given.cores),
        "OMP_NUM_THREADS": str(given.cores),
        **({"nnUNet_compile": "f"} if given.device == "cpu" else {}),
    }


def nnunet_versions(given: argparse.Namespace) -> dict[str, str]:
    """Of Python and of nnU-Net's packages, in its environment."""
    code = (
        "import json, platform; from importlib.metadata import version; "
        f"print(json.dumps({{'python': platform.python_version()}} | {{p: version(p) for p in {NNUNET_PACKAGES!r}}}))"
    )
    told = subprocess.run(
        [given.nnunet_python, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    found: dict[str, str] = json.loads(told)
    return found


def model_folder(given: argparse.Namespace, match: str) -> Path:
    """Where nnU-Net keeps what it trained."""
    name = f"{TRAINER}__{PLANS}__{given.configuration}"
    return Path(given.work / f"nnunet_results_{match}" / data.DATASET / name)


def note_file(given: argparse.Namespace, name: str) -> Path:
    """Where a training keeps its time while it runs."""
    folder = given.work / "steps"
    folder.mkdir(parents=True, exist_ok=True)
    return Path(folder / f"{name}.running")
