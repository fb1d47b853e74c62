"""The options of commands whose work a Ray cluster can do, and how they end when a part of it failed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from medimg3d.cli.output import EXIT_FAILED, EXIT_REJECTS, errors_console
from medimg3d.errors import UsageError

if TYPE_CHECKING:
    from medimg3d.workflows.ray_jobs import RayCluster

RayOption = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="ADDRESS|local",
        help="Spread the work over a Ray cluster (auto, HOST:6379), or over processes of this machine (local).",
    ),
]
JobCpusOption = Annotated[
    int | None,
    typer.Option("--job-cpus", min=1, help="With --ray: processors of a job; by default a whole machine's."),
]
JobGpusOption = Annotated[
    int | None,
    typer.Option("--job-gpus", min=0, help="With --ray: GPUs of a job; by default one where there are any."),
]


def ray_cluster(address: str | None, cpus: int | None, gpus: int | None) -> RayCluster | None:
    """What the options ask for; None without ``--ray``.

    Raises:
        UsageError: A job's processors were given without ``--ray``.
        MissingExtraError: Ray is not installed.
    """
    if address is None:
        if cpus is not None or gpus is not None:
            raise UsageError(
                "--job-cpus and --job-gpus are for --ray; give --ray ADDRESS or --ray local, too."
            )
        return None
    from medimg3d.workflows.ray_jobs import RayCluster

    return RayCluster(address, cpus=cpus, gpus=gpus)


def print_failures(failed: dict[str, str]) -> None:
    """Name each job that failed with its reason on standard error."""
    if not failed:
        return
    out = errors_console()
    out.print(f"[bold yellow]{len(failed)} failed:[/]")
    for name, reason in failed.items():
        out.print(f"  {name}: {reason}", markup=False, soft_wrap=True)
    out.print("The same command tries them again and keeps what is done.", markup=False)


def exit_with(*, rejected: bool, failed: bool, any_done: bool = True) -> None:
    """End with exit code 1 if nothing was done, 3 if a part failed or was rejected; return otherwise."""
    if failed and not any_done:
        raise typer.Exit(EXIT_FAILED)
    if failed or rejected:
        raise typer.Exit(EXIT_REJECTS)
