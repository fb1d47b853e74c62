"""The script for a cluster: valid shell, a task a fold and seed, and two nodes that meet and train."""

import json
import os
import re
import shutil
import subprocess

import phantoms
import pytest
import torch

from medimg3d.errors import UsageError
from medimg3d.workflows.data_check import RefusedDataError
from medimg3d.workflows.slurm import SlurmJob, write_slurm


@pytest.fixture(scope="module")
def list_file(tmp_path_factory):
    return phantoms.write_decathlon(tmp_path_factory.mktemp("data of mine"), num_cases=10) / "dataset.json"


def run_script(path, tmp_path, srun, *, task=0, nodes=1, returncode=0):
    """Run the script as SLURM would, with an ``srun`` and an ``scontrol`` of our own."""
    tools = tmp_path / "tools"
    tools.mkdir(exist_ok=True)
    for name, text in (("srun", srun), ("scontrol", "echo localhost; echo other")):
        (tools / name).write_text(f"#!/bin/bash\n{text}\n")
        (tools / name).chmod(0o755)
    environment = {
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "SLURM_ARRAY_TASK_ID": str(task),
        "SLURM_JOB_ID": str(os.getpid()),  # chooses the port
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_NNODES": str(nodes),
    }
    command = ["bash", str(path)]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    assert done.returncode == returncode, done.stdout[-3000:] + done.stderr[-6000:]
    return done.stdout


def assert_valid_shell(path):
    done = subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_task_a_fold_and_seed_on_one_gpu(bundle_root, list_file, tmp_path):
    path, out = tmp_path / "train.sbatch", tmp_path / "runs of mine"
    written = write_slurm(
        path,
        bundle_root,
        out=out,
        list_file=list_file,
        folds=[0, 1, 2],
        seeds=[7, 8],
        options=["--epochs", "3", "--set", 'name="a b"'],
    )
    assert_valid_shell(path)
    assert [folder.name for folder in written.folders][:4] == [
        "fold_0_seed_7",
        "fold_1_seed_7",
        "fold_2_seed_7",
        "fold_0_seed_8",
    ]
    text = path.read_text()
    assert "#SBATCH --array=0-5\n" in text
    assert "#SBATCH --requeue\n" in text
    assert run_script(path, tmp_path, 'echo "$SRUN_CPUS_PER_TASK"') == "8\n"
    words = run_script(path, tmp_path, 'printf "%s\\n" "$@"', task=4).splitlines()
    assert words[1:5] == ["-m", "medimg3d.cli.main", "train", str(bundle_root)]
    options = dict(zip(words[5:-6:2], words[6:-6:2], strict=False))
    assert options["--datalist"] == str(list_file)
    assert (options["--fold"], options["--seed"]) == ("1", "8")
    assert options["--out"] == str(written.folders[4])
    assert words[-6:] == ["--resume", "--no-check", "--epochs", "3", "--set", 'name="a b"']


def test_several_gpus_run_torchrun_on_copies_that_are_made_beforehand(bundle_root, list_file, tmp_path):
    path, out = tmp_path / "train.sbatch", tmp_path / "runs"
    overrides = {"train#trainer#accumulation_steps": 4}
    written = write_slurm(
        path,
        bundle_root,
        out=out,
        list_file=list_file,
        folds=[1],
        seeds=[5],
        job=SlurmJob(nodes=2, gpus=4, cpus=16, hours=3),
        overrides=overrides,
    )
    assert_valid_shell(path)
    text = path.read_text()
    for line in (
        "--nodes=2",
        "--ntasks-per-node=1",
        "--gpus-per-node=4",
        "--cpus-per-task=16",
        "--time=3:00:00",
    ):
        assert f"#SBATCH {line}\n" in text
    assert "#SBATCH --requeue\n" in text
    words = run_script(path, tmp_path, 'printf "%s\\n" "$@"', nodes=2).splitlines()
    assert words[-2:] == ["--resume", "True"]
    assert "--nnodes=2" in words
    assert "--nproc_per_node=4" in words
    assert any(re.fullmatch(r"--rdzv_endpoint=localhost:\d{4,5}", word) for word in words)
    recipe = json.loads((written.folders[0] / "configs" / "train.json").read_text())
    assert (recipe["fold"], recipe["seed"]) == (1, 5)
    assert recipe["train"]["trainer"]["accumulation_steps"] == 4
    assert (written.folders[0] / "models" / "training_cases.json").is_file()


def test_a_script_for_several_gpus_is_written_anew_once_a_task_has_begun(bundle_root, list_file, tmp_path):
    asked = {"out": tmp_path / "runs", "list_file": list_file, "folds": [1], "seeds": [5], "check": None}
    job = SlurmJob(gpus=4, hours=3)
    (folder,) = write_slurm(tmp_path / "train.sbatch", bundle_root, job=job, **asked).folders
    checkpoint = folder / "training" / "checkpoint.pt"
    checkpoint.parent.mkdir(exist_ok=True)
    checkpoint.write_bytes(b"begun")
    with pytest.raises(UsageError, match="Add --resume to go on"):
        write_slurm(tmp_path / "train.sbatch", bundle_root, job=job, **asked)
    longer = SlurmJob(gpus=4, hours=9)
    write_slurm(tmp_path / "train.sbatch", bundle_root, job=longer, resume=True, **asked)
    assert "--time=9:00:00" in (tmp_path / "train.sbatch").read_text()
    assert checkpoint.read_bytes() == b"begun"


def test_defects_are_said_before_a_script_is_written(bundle_root, tmp_path):
    defects = phantoms.write_defects(tmp_path / "data")
    path = tmp_path / "train.sbatch"
    with pytest.raises(RefusedDataError, match="8 of 16 training cases cannot be used"):
        write_slurm(path, bundle_root, out=tmp_path / "runs", list_file=defects, folds=[0], seeds=[0])
    assert not path.exists()


def test_no_node_is_bad_usage():
    with pytest.raises(UsageError, match="nodes is 0; expected at least 1"):
        SlurmJob(nodes=0)


def test_the_command_writes_the_script_and_trains_nothing(bundle_root, list_file, tmp_path):
    from typer.testing import CliRunner

    from medimg3d.cli.main import app

    path = tmp_path / "train.sbatch"
    words = [
        "train",
        bundle_root,
        "--datalist",
        list_file,
        "--fold",
        "all",
        "--seeds",
        "0,1",
        "--slurm",
        path,
    ]
    words += ["--out", tmp_path / "runs", "--epochs", 2, "--accumulate", 3]
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    assert "10 trainings in" in result.stdout
    assert_valid_shell(path)
    assert "--epochs 2 --set 'train#trainer#accumulation_steps=3'" in path.read_text()
    assert not list((tmp_path / "runs").glob("fold_*"))


def test_a_bundle_without_checkpoints_begins_anew_on_several_gpus(bundle_root, list_file, tmp_path):
    bundle = tmp_path / "bundle"
    shutil.copytree(bundle_root, bundle)
    (bundle / "configs" / "train_fast.json").unlink()
    path = tmp_path / "train.sbatch"
    write_slurm(
        path, bundle, out=tmp_path / "runs", list_file=list_file, folds=[0], seeds=[0], job=SlurmJob(gpus=2)
    )
    text = path.read_text()
    assert "--requeue" not in text
    assert "--resume" not in text
    assert "['$out/configs/train.json','$out/configs/multi_gpu_train.json']" in text


TWO_NODES = '"$@" & first=$!; "$@" & second=$!; wait $first && wait $second'

KILLED_AFTER_AN_EPOCH = """
"$@" & "$@" &
until [ -f "$CHECKPOINT" ]; do sleep 0.02; done
pkill -KILL -f -- "--bundle_root ${CHECKPOINT%/training/*}"  # torchrun's agents, their workers and this shell
"""


@pytest.mark.slow
def test_two_nodes_train_with_accumulated_gradients_and_go_on_after_a_kill(
    bundle_root, list_file, tmp_path, monkeypatch
):
    """Two torchrun agents, one gloo process each, as on two nodes; both run the script's own command."""
    small = {"iterations_per_epoch": 4, "batch_size": 1, "val_interval": 9, "num_workers": 0}
    overrides = small | {
        "patch_size": [16, 24, 16],
        "train#trainer#max_epochs": 8,
        "train#trainer#accumulation_steps": 2,
        "device": "$torch.device('cpu')",
    }
    trained = {}
    for name in ("whole", "killed"):
        path = tmp_path / f"{name}.sbatch"
        written = write_slurm(
            path,
            bundle_root,
            out=tmp_path / name,
            list_file=list_file,
            folds=[0],
            seeds=[0],
            job=SlurmJob(nodes=2, gpus=0),
            overrides=overrides,
        )
        (folder,) = written.folders
        if name == "killed":
            monkeypatch.setenv("CHECKPOINT", str(folder / "training" / "checkpoint.pt"))
            run_script(path, tmp_path, KILLED_AFTER_AN_EPOCH, nodes=2, returncode=128 + 9)
            rows = (folder / "training" / "history.csv").read_text().splitlines()
            assert 2 <= len(rows) <= 8, "killed at the end, or before a whole epoch"
        run_script(path, tmp_path, TWO_NODES, nodes=2)
        trained[name] = torch.load(folder / "models" / "model.pt", weights_only=True)
        assert len((folder / "training" / "history.csv").read_text().splitlines()) == 1 + 8
    torch.testing.assert_close(trained["killed"], trained["whole"], rtol=0, atol=0)
