"""A SLURM array script over folds and seeds: the data are checked here, the trainings run on the cluster."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medimg3d.atomic import write_text
from medimg3d.bundle.folder import BundleFolder, read_json, set_config_values
from medimg3d.errors import UsageError
from medimg3d.workflows.data_check import DataCheck, check_list
from medimg3d.workflows.jobs import COMMAND_MODULE, TrainingTask, fold_word, training_tasks
from medimg3d.workflows.training_copy import CHECKPOINT, prepare_copy, read_training_list, record_cases

FIRST_PORT = 29400
PORTS = 1000
_OVERLAY = "train_fast"


@dataclass(frozen=True)
class SlurmJob:
    """What one training asks of the cluster.

    Attributes:
        nodes: Machines.
        gpus: GPUs of each machine; 0 trains on CPUs.
        cpus: Processors of each machine.
        hours: Time limit.

    Raises:
        UsageError: A number is too small.
    """

    nodes: int = 1
    gpus: int = 1
    cpus: int = 8
    hours: int = 24

    def __post_init__(self) -> None:
        for name, least in (("nodes", 1), ("gpus", 0), ("cpus", 1), ("hours", 1)):
            if getattr(self, name) < least:
                raise UsageError(f"{name} is {getattr(self, name)}; expected at least {least}.")

    @property
    def is_distributed(self) -> bool:
        """Whether several processes train together."""
        return self.nodes > 1 or self.gpus > 1

    @property
    def processes(self) -> int:
        """Processes on each machine."""
        return max(self.gpus, 1)


@dataclass(frozen=True)
class SlurmScript:
    """What a script trains.

    Attributes:
        folders: Folder of each task, in the order of the array.
        rejected: Cases of the datalist that were left out, with the reason.
    """

    folders: list[Path]
    rejected: dict[str, str]


def write_slurm(
    path: Path,
    bundle: Path,
    *,
    out: Path,
    list_file: Path,
    folds: Sequence[int],
    seeds: Sequence[int],
    job: SlurmJob | None = None,
    options: Sequence[str] = (),
    overrides: Mapping[str, Any] | None = None,
    overlay: str | None = None,
    check: DataCheck | None = DataCheck(),
    resume: bool = False,
) -> SlurmScript:
    """Check the data and write a script for ``sbatch``: an array with a task for each fold and seed.

    On one GPU a task runs ``medimg3d train --resume``; on several GPUs or nodes ``torchrun`` with MONAI's own
    command on a copy of the bundle that is made here, and its ``train_fast.json``, which keeps checkpoints. A task
    that the cluster stopped and queued again goes on from its last whole epoch.

    Args:
        path: The script.
        bundle: The bundle whose recipe is followed.
        out: Gets ``fold_<k>_seed_<s>/``, a trained bundle each, and the logs.
        list_file: The datalist; like ``out`` and ``bundle`` it must be seen by all nodes under the same path.
        folds: Held-out folds; -1 trains on all cases.
        seeds: Seeds of each fold.
        job: What a task asks for.
        options: Further arguments of ``medimg3d train``, for one GPU.
        overrides: Values of ``train.json`` by id, for several GPUs.
        overlay: A variant of the bundle, for several GPUs.
        check: How the data are checked; None to go unchecked.
        resume: Keep copies for several GPUs whose training has begun; one GPU keeps them anyway.

    Returns:
        Folders that the tasks train in, in the order of the array, and the rejected cases.

    Raises:
        UsageError: No fold or seed.
        RefusedDataError: The check refuses cases.
    """
    tasks = training_tasks(out, folds, seeds)
    job, source = job or SlurmJob(), BundleFolder(bundle)
    rejected: dict[str, str] = {}
    if check is not None:
        checked = check_list(list_file, out, check, bundle=source)
        list_file, rejected = checked.list_file.resolve(), checked.report.rejected
    if job.is_distributed:
        for task in tasks:
            values = dict(overrides or {}) | {"fold": task.fold, "seed": task.seed}
            _prepare(source, task.folder, list_file, values, overlay, resume=resume)
        command = _torchrun(job, list_file, resumes=_has_checkpoints(source))
    else:
        command = _train(source, list_file, options)
    out.mkdir(parents=True, exist_ok=True)
    resumes = not job.is_distributed or _has_checkpoints(source)
    write_text(path, _head(job, out, len(tasks), resumes=resumes) + _tasks(tasks, out) + command)
    return SlurmScript([task.folder for task in tasks], dict(rejected))


def _prepare(
    source: BundleFolder,
    folder: Path,
    list_file: Path,
    values: Mapping[str, Any],
    overlay: str | None,
    *,
    resume: bool,
) -> None:
    """Make the copy that a distributed task trains, with its recipe and its record of the cases."""
    variant = read_json(source.config(overlay)) if overlay else {}
    training_list = read_training_list(
        list_file, of_classes=source.is_classifier, class_names=variant.get("class_names")
    )
    copy = prepare_copy(source, folder, training_list, variant | dict(values), resume=resume)
    set_config_values(copy.config("evaluate"), {"fold": values["fold"]})
    begun = (copy.root / CHECKPOINT).is_file()
    record_cases(copy, training_list, values["fold"], resumed=begun)


def _has_checkpoints(source: BundleFolder) -> bool:
    """Whether the bundle has the overlay of medimg3d; others begin anew."""
    return (source.root / "configs" / f"{_OVERLAY}.json").is_file()


def _head(job: SlurmJob, out: Path, num_tasks: int, *, resumes: bool) -> str:
    settings = {
        "job-name": "medimg3d",
        "array": f"0-{num_tasks - 1}",
        "nodes": job.nodes,
        "ntasks-per-node": 1,
        "cpus-per-task": job.cpus,
        **({"gpus-per-node": job.gpus} if job.gpus else {}),
        "time": f"{job.hours}:00:00",
        "open-mode": "append",
        "output": f'"{out.resolve()}/slurm-%A_%a.log"',
    }
    lines = [f"#SBATCH --{name}={value}" for name, value in settings.items()]
    requeue = ["#SBATCH --requeue"] if resumes else []
    note = "# Written by medimg3d, a task a fold and seed. Add your cluster's account and partition; then: sbatch FILE"
    steps = [
        "set -euo pipefail",
        "# srun(1): since Slurm 22.05 it does not take over what sbatch was asked for",
        f"export SRUN_CPUS_PER_TASK={job.cpus}",
    ]
    return "\n".join(["#!/bin/bash", note, *lines, *requeue, "", *steps, ""])


def _tasks(tasks: Sequence[TrainingTask], out: Path) -> str:
    folds = " ".join(fold_word(task.fold) for task in tasks)
    seeds = " ".join(str(task.seed) for task in tasks)
    return (
        f"folds=({folds})\n"
        f"seeds=({seeds})\n"
        'fold="${folds[$SLURM_ARRAY_TASK_ID]}"\n'
        'seed="${seeds[$SLURM_ARRAY_TASK_ID]}"\n'
        f'out={shlex.quote(str(out.resolve()))}/fold_"$fold"_seed_"$seed"\n\n'
    )


def _train(source: BundleFolder, list_file: Path, options: Sequence[str]) -> str:
    """One process: ``medimg3d train``, which goes on by itself after a stop."""
    python, bundle, datalist = map(shlex.quote, (sys.executable, str(source.root), str(list_file.resolve())))
    return _lines(
        "# the data were checked when this script was written",
        f"srun {python} -m {COMMAND_MODULE} train {bundle}",
        f"--datalist {datalist}",
        '--fold "$fold" --seed "$seed" --out "$out" --resume --no-check',
        *([shlex.join(options)] if options else []),
    )


def _torchrun(job: SlurmJob, list_file: Path, *, resumes: bool) -> str:
    """Several processes: ``torchrun`` on every node meets at the first one and runs stock MONAI."""
    python, datalist, folder = map(
        shlex.quote, (sys.executable, str(list_file.resolve()), str(list_file.resolve().parent))
    )
    names = [
        "train",
        *([_OVERLAY] if resumes else []),
        "multi_gpu_train",
    ]  # in this order: the last has the rank
    configs = ",".join(f"'$out/configs/{name}.json'" for name in names)
    return (
        """first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | awk 'NR == 1')\n"""
        f"port=$(({FIRST_PORT} + (SLURM_JOB_ID + SLURM_ARRAY_TASK_ID) % {PORTS}))\n"
    ) + _lines(
        "# Ignite would take the local rank from SLURM's one task a node: it must not see the job\n"
        "# (https://github.com/pytorch/ignite, distributed/comp_models/native.py: SLURM_LOCALID)",
        f"srun env --unset=SLURM_JOB_ID {python} -m torch.distributed.run",
        f'--nnodes="$SLURM_NNODES" --nproc_per_node={job.processes}',
        '--rdzv_backend=c10d --rdzv_id="$SLURM_JOB_ID" --rdzv_endpoint="$first:$port"',
        "-m monai.bundle run",
        f'--config_file "[{configs}]"',
        f'--bundle_root "$out" --dataset_dir {folder} --datalist_file {datalist}',
        '--output_dir "$out/training" --ckpt_dir "$out/models"' + (" --resume True" if resumes else ""),
    )


def _lines(comment: str, *parts: str) -> str:
    return comment + "\n" + " \\\n    ".join(parts) + "\n"
