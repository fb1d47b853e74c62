"""``medimg3d plan``: from a labelled data set to a bundle for it, with every decision explained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medimg3d.cli.findings import CheckOption, DropOption, data_check, refusal_as_json
from medimg3d.cli.output import (
    EXIT_REJECTS,
    DebugOption,
    JsonOption,
    console,
    errors_console,
    print_json,
    print_rejects,
    progress_bar,
)
from medimg3d.errors import UsageError

if TYPE_CHECKING:
    from medimg3d.workflows.plan import PlanResult

_HELP = """Plan a bundle for a labelled data set: what network, at what voxel size, on what patches, for how long.

Every case is checked and read once. Each decision follows from the data by a rule, stands with its reason in
[bold]docs/plan.md[/] of the bundle, and can be decided otherwise by a flag or a line of [bold]--settings[/]
(copy [bold]configs/plan.yaml[/]). Patch and batch are fitted to the memory by short trials. The bundle runs with stock
MONAI and with [bold]medimg3d train[/].

[bold]Examples[/]

  medimg3d plan hippocampus/dataset.json --out bundles/hippocampus

  medimg3d plan heart.json --out bundles/heart --network swinunetr --memory-gb 6

  [dim]# again, with one thing changed and the rest kept[/]
  medimg3d plan heart.json --out bundles/heart --resume --spacing 1.5,1.5,8
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("plan", help=_HELP, no_args_is_help=True)(plan_command)


def plan_command(
    datalist: Annotated[Path, typer.Argument(metavar="DATALIST", help="As 'medimg3d datalist' makes it.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="BUNDLE", help="Folder of the planned bundle.")],
    network: Annotated[
        str | None,
        typer.Option("--network", help="auto, dynunet, unet, segresnet, mednext, swinunetr or densenet."),
    ] = None,
    memory_gb: Annotated[
        float | None, typer.Option("--memory-gb", help="Memory that training and prediction may use.")
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            "--device", help="cpu or cuda, where it will train; by default cuda, if this machine has it."
        ),
    ] = None,
    spacing: Annotated[str | None, typer.Option("--spacing", metavar="X,Y,Z", help="Voxel size, mm.")] = None,
    patch: Annotated[str | None, typer.Option("--patch", metavar="I,J,K", help="Patch, voxels.")] = None,
    image_size: Annotated[
        str | None, typer.Option("--image-size", metavar="I,J", help="Image size of a classifier.")
    ] = None,
    batch: Annotated[int | None, typer.Option("--batch", help="Patches (images) of a step.")] = None,
    modality: Annotated[
        str | None,
        typer.Option("--modality", help="ct, mri, pet, film or other; with commas, one a channel."),
    ] = None,
    window: Annotated[
        str | None,
        typer.Option("--window", metavar="LOW,HIGH", help="Values that CT or PET is clipped to: -100,400."),
    ] = None,
    task: Annotated[str | None, typer.Option("--task", help="segmentation or classification.")] = None,
    dimension: Annotated[str | None, typer.Option("--dimension", help="2d or 3d.")] = None,
    mirror: Annotated[
        str | None, typer.Option("--mirror", metavar="AXES", help="Axes to mirror: 0, 0,1 or none.")
    ] = None,
    finder: Annotated[
        str | None,
        typer.Option("--finder", help="yes, no or auto: find a region at low resolution first."),
    ] = None,
    folds: Annotated[int | None, typer.Option("--folds", help="Number of folds.")] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", help="Length of a training.")] = None,
    settings: Annotated[
        Path | None,
        typer.Option("--settings", metavar="YAML", help="A copy of configs/plan.yaml; flags go before it."),
    ] = None,
    values: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Any setting of configs/plan.yaml."),
    ] = None,
    no_trial: Annotated[
        bool, typer.Option("--no-trial", help="Estimate the memory instead of measuring it.")
    ] = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Plan again in --out: keep what was decided but for what is asked now."
        ),
    ] = False,
    cache: Annotated[
        Path | None,
        typer.Option("--cache", metavar="DIR", help="Fingerprints of the cases, shared by plans."),
    ] = None,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="Processes that read.")] = None,
    check: CheckOption = True,
    drop_rejected: DropOption = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Parse, plan, show the decisions."""
    from medimg3d.planning.settings import read_settings
    from medimg3d.workflows.plan import plan_bundle

    given: dict[str, Any] = {
        "network": network,
        "memory_gb": memory_gb,
        "device": device,
        "spacing_mm": _numbers(spacing, "--spacing", float),
        "patch_size": _numbers(patch, "--patch", int),
        "image_size": _numbers(image_size, "--image-size", int),
        "batch_size": batch,
        "modality": _words(modality),
        "window": _numbers(window, "--window", float),
        "task": task,
        "dimension": dimension,
        "mirror_axes": () if mirror == "none" else _numbers(mirror, "--mirror", int),
        "finder": finder,
        "num_folds": folds,
        "epochs": epochs,
        "trial": False if no_trial else None,
    }
    asked = read_settings(settings) if settings else {}
    asked |= dict(_setting(text) for text in values or [])
    asked |= {name: value for name, value in given.items() if value is not None}
    errors = errors_console()
    with refusal_as_json(as_json=as_json), progress_bar("Reading cases") as progress:
        result = plan_bundle(
            datalist,
            out,
            asked,
            resume=resume,
            cache=cache,
            workers=workers,
            check=data_check(drop_rejected=drop_rejected, quiet=as_json) if check else None,
            progress=progress,
            say=lambda line: errors.print(f"Trial: {line}", markup=False),
        )
    if as_json:
        print_json(result.summary())
    else:
        _show(result)
    print_rejects(result.rejected)
    if result.rejected:
        raise typer.Exit(EXIT_REJECTS)


def _show(result: PlanResult) -> None:
    from rich.table import Table
    from rich.text import Text

    from medimg3d.planning.pages import value_words

    out = console()
    table = Table(title=f"Plan of {result.bundle.name}", title_justify="left")
    for column in ("what", "decided", "why"):
        table.add_column(column, overflow="fold")
    for one in result.plan.decisions:
        table.add_row(one.name, Text(value_words(one.value, one.name), "bold"), Text(one.reason))
    out.print(table)
    for note in result.plan.notes:
        out.print(f"Mind: {note}", markup=False, soft_wrap=True, highlight=False)
    out.print(
        f"Bundle: {result.bundle}; every decision: {result.bundle / 'docs' / 'plan.md'}",
        markup=False,
        soft_wrap=True,
    )


def _numbers(text: str | None, flag: str, kind: type) -> tuple[Any, ...] | None:
    if text is None:
        return None
    try:
        return tuple(kind(part) for part in text.replace("x", ",").split(","))
    except ValueError as err:
        raise UsageError(f"{flag} is {text}; expected numbers with commas, such as 1,1,2.") from err


def _words(text: str | None) -> str | tuple[str, ...] | None:
    return text if text is None or "," not in text else tuple(part.strip() for part in text.split(","))


def _setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"--set {text} has no '='; expected NAME=VALUE, for example --set width=24.")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value
