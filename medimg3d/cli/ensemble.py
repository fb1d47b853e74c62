"""``medimg3d ensemble``: the best of cross-validated configurations as one bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medimg3d.cli.output import (
    DebugOption,
    JsonOption,
    errors_console,
    print_json,
    print_table,
    progress_bar,
)

_HELP = """Make one bundle of the folds of a cross-validation, or of several configurations on the same folds.

Chooses the best configuration, or the mean of two of them, and cleans label maps (largest component, least volume,
hole filling, class by class) only where that surely helps. The figures come from nested cross-validation: the cases
that chose do not judge. Stopped or killed, the same command goes on.

[bold]Examples[/]

  medimg3d cross-validate bundles/mri_hippocampus_unet --datalist mine.json --softmax --out runs/dynunet

  medimg3d ensemble runs/dynunet --out bundles/mine

  medimg3d ensemble runs/dynunet runs/segresnet --out bundles/mine
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("ensemble", help=_HELP)(ensemble_command)


def ensemble_command(
    folders: Annotated[
        list[Path], typer.Argument(metavar="CV_FOLDER...", help="Folders of 'medimg3d cross-validate'.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder of the new bundle.")],
    most: Annotated[
        int, typer.Option("--most", min=1, max=5, help="Most configurations that are averaged.")
    ] = 2,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Parse, run, show the choice and its figures."""
    from medimg3d.workflows.ensemble import ensemble

    say = errors_console().print
    with progress_bar("Scoring") as progress:
        result = ensemble(folders, out, most_combined=most, say=say, progress=progress)
    if as_json:
        print_json({"bundle": result.bundle, "page": result.page, **result.summary})
        return
    from medimg3d.report.ensemble_page import nested_rows

    choice = result.summary["choice"]
    print_table(
        "Nested cross-validation", ["metric", "class", "mean (interval)", "n"], nested_rows(result.summary)
    )
    print(
        f"Chosen: {choice['candidate']}; cleaning: {'; '.join(choice['in_words']) or 'none helped surely'}."
    )
    for warning in result.summary["warnings"]:
        say(f"[bold yellow]Warning:[/] {warning}")
    print(f"Bundle: {result.bundle}\nReport: {result.page}")
