"""``medimg3d explore``: what a data set is, on one page, before anything is trained on it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medimg3d.cli.output import (
    EXIT_REJECTS,
    DebugOption,
    JsonOption,
    console,
    print_json,
    print_rejects,
    print_table,
    progress_bar,
)

if TYPE_CHECKING:
    from medimg3d.workflows.explore import ExploreResult

SourceArgument = Annotated[
    Path,
    typer.Argument(
        metavar="DATALIST", help="Datalist (JSON), or a folder that has no datalist yet.", show_default=False
    ),
]
OutOption = Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for the results.")]
SamplesOption = Annotated[
    int, typer.Option("--num-samples", min=0, help="Sample images of each class; 0 draws none.")
]
SeedOption = Annotated[int, typer.Option("--seed", help="Another seed gives other samples.")]
PatternOption = Annotated[
    str | None,
    typer.Option("--patient-pattern", metavar="REGEX", help="For folders: as for medimg3d datalist."),
]
WorkersOption = Annotated[
    int | None,
    typer.Option("--workers", min=1, help="Cases at once; by default one a processor, at most 4."),
]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("explore", no_args_is_help=True)(explore)


def explore(
    source: SourceArgument,
    out: OutOption,
    num_samples: SamplesOption = 6,
    seed: SeedOption = 0,
    patient_pattern: PatternOption = None,
    workers: WorkersOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    r"""Look at a data set: classes, samples, sizes, duplicates, and what would mislead a model.

    Every file is read once. The page says what a person should know before training: a part too small to
    decide anything on, classes out of balance, the same picture twice (by its pixels, whatever its name), a
    patient in two parts, numbers such as borders or file sizes that give the class away.

    Writes [bold]explore.html[/] (one file, pictures inside), [bold]explore.json[/] and
    [bold]cases.csv[/]. Files that cannot be used are named with their reason, and the exit code is 3.

    [bold]Examples[/]

      [dim]# a folder, before making a datalist of it[/]
      medimg3d explore chest_xray --out look

      [dim]# a datalist: also its folds[/]
      medimg3d explore chest.json --out look --num-samples 10

      [dim]# for machines[/]
      medimg3d explore chest.json --out look --json > look.json
    """
    from medimg3d.workflows.explore import explore as run_explore

    with progress_bar("Reading images") as progress:
        result = run_explore(
            source,
            out,
            num_samples=num_samples,
            seed=seed,
            patient_pattern=patient_pattern,
            workers=workers,
            progress=progress,
        )
    if as_json:
        print_json(result.summary)
    else:
        _show(result)
    print_rejects(result.rejected)
    if result.rejected:
        raise typer.Exit(EXIT_REJECTS)


def _show(result: ExploreResult) -> None:
    from medimg3d.report.explore_page import count_tables

    table = count_tables(result.summary)[0]
    print_table(result.summary["name"], table["columns"], table["rows"])
    out = console()
    for advice in result.summary["advice"]:
        style = "bold yellow" if advice["level"] == "warning" else "bold"
        out.print(f"[{style}]{advice['level'].capitalize()}:[/] ", end="")
        out.print(advice["text"], markup=False, soft_wrap=True, highlight=False)
    out.print(f"Page: {result.files['page']}", markup=False, soft_wrap=True, highlight=False)
