"""``medimg3d cross-validate``: what a bundle's recipe reaches on cases it has not seen."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medimg3d.cli.findings import CheckOption, DropOption, data_check, refusal_as_json
from medimg3d.cli.output import (
    DebugOption,
    JsonOption,
    errors_console,
    print_json,
    print_rejects,
)
from medimg3d.cli.ray_options import (
    JobCpusOption,
    JobGpusOption,
    RayOption,
    exit_with,
    print_failures,
    ray_cluster,
)
from medimg3d.errors import UsageError

_HELP = """Train each fold of a bundle's recipe, predict what it held out, and pool the scores.

The recipe has a fixed length and the held-out cases choose nothing. A second run goes on where the first stopped.
All folds of the datalist are run; [bold]--folds[/] runs and pools some of them.

[bold]Example[/]

  medimg3d cross-validate bundles/mri_hippocampus_unet --dataset-dir hippocampus --out runs/cv

  medimg3d cross-validate bundles/mri_hippocampus_unet --dataset-dir hippocampus --folds 0,1 --out runs/two_folds

  [dim]# the folds beside each other on the machines of a Ray cluster[/]
  medimg3d cross-validate bundles/mri_hippocampus_unet --dataset-dir hippocampus --out runs/cv --ray auto
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("cross-validate", help=_HELP)(cross_validate_command)


def cross_validate_command(
    bundle: Annotated[
        Path, typer.Argument(metavar="BUNDLE", help="Folder of the bundle whose recipe is judged.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder of the trained folds and the table.")],
    dataset_dir: Annotated[Path | None, typer.Option("--dataset-dir", help="Decathlon root.")] = None,
    datalist: Annotated[Path | None, typer.Option("--datalist", help="Datalist file instead.")] = None,
    folds: Annotated[
        str | None,
        typer.Option("--folds", help="Folds to run, with commas; all of the datalist by default."),
    ] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="Length of each run.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Seed of each run.")] = None,
    compiled: Annotated[bool, typer.Option("--compile", help="Use torch.compile.")] = False,
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
    try:
        numbers = None if folds is None else [int(number) for number in folds.split(",")]
    except ValueError as err:
        raise UsageError(f"--folds is {folds}; expected numbers with commas, such as 0,1,2.") from err
    from medimg3d.workflows.cross_validate import cross_validate

    with refusal_as_json(as_json=as_json):
        result = cross_validate(
            bundle,
            out=out,
            folds=numbers,
            dataset_dir=dataset_dir,
            datalist=datalist,
            softmax=softmax,
            cluster=ray_cluster(ray, job_cpus, job_gpus),
            check=data_check(drop_rejected=drop_rejected, quiet=as_json) if check else None,
            epochs=epochs,
            seed=seed,
            compiled=compiled,
            num_workers=workers,
            progress=not as_json,
            say=errors_console().print,
        )
    if as_json:
        found = {"folds": result.folds, "pooled": result.pooled, "rejected": result.rejected}
        print_json(found | ({"failed": result.failed} if ray else {}))
    elif result.table:
        print(result.table)
    print_rejects(result.rejected)
    print_failures(result.failed)
    exit_with(rejected=bool(result.rejected), failed=bool(result.failed), any_done=bool(result.folds))
