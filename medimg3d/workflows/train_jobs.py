"""Trainings over folds and seeds as jobs of a Ray cluster; the data are checked here, once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medimg3d.bundle.folder import BundleFolder
from medimg3d.workflows.data_check import DataCheck, check_list
from medimg3d.workflows.jobs import TrainingTask, training_job
from medimg3d.workflows.ray_jobs import RayCluster, Say, ray_jobs


@dataclass(frozen=True)
class TrainedTasks:
    """What became of the trainings.

    Attributes:
        trained: Folders that are trained bundles now.
        failed: Name of the others → reason.
        rejected: Cases of the datalist that were left out, with the reason.
    """

    trained: list[Path]
    failed: dict[str, str] = field(default_factory=dict)
    rejected: dict[str, str] = field(default_factory=dict)


def train_on_ray(
    bundle: Path,
    tasks: Sequence[TrainingTask],
    *,
    out: Path,
    list_file: Path,
    cluster: RayCluster,
    options: Sequence[str] = (),
    check: DataCheck | None = DataCheck(),
    say: Say = lambda _: None,
) -> TrainedTasks:
    """Run ``medimg3d train --resume`` for each task; one whose machine dies goes on from its last whole epoch.

    Args:
        bundle: The bundle whose recipe is followed.
        tasks: What to train, each into a folder of its own.
        out: Gets the logs in ``jobs/``; like the data it must lie where all machines see it under the same path.
        list_file: The datalist.
        cluster: Where the trainings run.
        options: Further arguments of ``medimg3d train``.
        check: How the data are checked; None to go unchecked.
        say: Called with a line as a training ends.

    Raises:
        UsageError: No cluster answers, or it has no machine for such a job.
        RefusedDataError: The check refuses cases.
    """
    rejected: dict[str, str] = {}
    if check is not None:
        checked = check_list(list_file, out, check, bundle=BundleFolder(bundle))
        list_file, rejected = checked.list_file.resolve(), checked.report.rejected
    jobs = [training_job(bundle, list_file, task, options) for task in tasks]
    with ray_jobs(cluster) as ray:
        outcomes = ray.run(jobs, out / "jobs", say=say)
    return TrainedTasks(
        trained=[task.folder for task, outcome in zip(tasks, outcomes, strict=True) if outcome.is_done],
        failed={outcome.name: outcome.reason for outcome in outcomes if not outcome.is_done},
        rejected=rejected,
    )
