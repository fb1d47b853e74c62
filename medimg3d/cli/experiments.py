"""``medimg3d experiments``: recipes, settings and seeds cross-validated and compared."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medimg3d.cli.findings import CheckOption, DropOption, data_check, refusal_as_json
from medimg3d.cli.output import DebugOption, JsonOption, errors_console, print_json, print_rejects
from medimg3d.cli.ray_options import (
    JobCpusOption,
    JobGpusOption,
    RayOption,
    exit_with,
    print_failures,
    ray_cluster,
)

_HELP = """Cross-validate every experiment of a file and compare them, paired by case.

The file names a datalist, folds, seeds, and experiments: each a bundle with settings, or a grid of settings;
[bold]configs/experiments.yaml[/] explains it. A second run goes on where the first stopped, and runs what was added
to the file.

[bold]Examples[/]

  medimg3d experiments my_experiments.yaml --out runs/compared

  [dim]# every fold of every experiment as a job of a Ray cluster[/]
  medimg3d experiments my_experiments.yaml --out runs/compared --ray auto
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("experiments", help=_HELP)(experiments_command)


def experiments_command(
    file: Annotated[Path, typer.Argument(metavar="GRID.yaml", help="The experiments.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the cross-validations and the comparison.")],
    workers: Annotated[
        int | None, typer.Option("--workers", min=0, help="Processes that load and augment.")
    ] = None,
    softmax: Annotated[
        bool,
        typer.Option("--softmax", help="Keep class probabilities too, for 'medimg3d ensemble' to combine."),
    ] = False,
    ray: RayOption = None,
    job_cpus: JobCpusOption = None,
    job_gpus: JobGpusOption = None,
    check: CheckOption = True,
    drop_rejected: DropOption = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Parse, run, print the table."""
    from medimg3d.workflows.experiments import run_experiments

    with refusal_as_json(as_json=as_json):
        result = run_experiments(
            file,
            out,
            softmax=softmax,
            check=data_check(drop_rejected=drop_rejected, quiet=as_json) if check else None,
            cluster=ray_cluster(ray, job_cpus, job_gpus),
            num_workers=workers,
            progress=not as_json,
            say=errors_console().print,
        )
    if as_json:
        print_json({"page": result.page, **result.summary, "rejected": result.rejected})
    else:
        print(result.table)
        print(f"Report: {result.page}")
    print_rejects(result.rejected)
    print_failures(result.failed)
    exit_with(rejected=bool(result.rejected), failed=bool(result.failed), any_done=result.any_done)
