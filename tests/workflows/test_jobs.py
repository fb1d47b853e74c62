"""What SLURM and Ray share, and the process of one job."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from medimg3d.errors import UsageError
from medimg3d.workflows.jobs import Job, TrainingTask, training_job, training_tasks


def test_two_folds_and_two_seeds_are_four_trainings_into_folders_of_their_own(tmp_path):
    tasks = training_tasks(tmp_path, [0, -1], [7, 8])
    assert [(task.fold, task.seed, task.folder.name) for task in tasks] == [
        (0, 7, "fold_0_seed_7"),
        (-1, 7, "fold_none_seed_7"),
        (0, 8, "fold_0_seed_8"),
        (-1, 8, "fold_none_seed_8"),
    ]


def test_no_seed_is_bad_usage(tmp_path):
    with pytest.raises(UsageError, match="No fold or no seed"):
        training_tasks(tmp_path, [0], [])


def test_a_training_job_resumes_and_names_all_paths_in_full(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    task = TrainingTask(-1, None, tmp_path / "run")
    job = training_job(Path("bundle"), Path("list.json"), task, ["--epochs", "3"])
    assert job.words == (
        *("train", str(tmp_path / "bundle"), "--datalist", str(tmp_path / "list.json"), "--fold", "none"),
        *("--out", str(tmp_path / "run"), "--resume", "--no-check", "--epochs", "3"),
    )


def test_a_job_is_either_a_command_or_a_call():
    with pytest.raises(ValueError, match="give either words or a call"):
        Job("both", words=("train",), call="os:abort")


def start(job: Job) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "medimg3d.workflows.job_process"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    process.stdin.write(job.as_line())
    process.stdin.flush()
    return process


@pytest.mark.skipif(sys.platform == "win32", reason="signals are others there")
def test_a_job_ends_when_its_starter_is_gone():
    process = start(Job("waits", call="signal:pause"))
    process.stdin.close()  # as the system does for a starter that is killed
    assert process.wait(60) == -signal.SIGKILL
    process.stdout.close()


def test_a_command_that_fails_says_so_and_keeps_its_exit_code():
    process = start(Job("lost", words=("predict", "no_bundle", "no_image", "--out", "nowhere")))
    with process.stdout:
        output = process.stdout.read()
    assert process.wait(60) == 2
    process.stdin.close()
    assert "Error:" in output
