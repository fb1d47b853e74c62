"""``medimg3d evaluate``: predictions against references, as figures with intervals."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medimg3d.cli.output import (
    EXIT_REJECTS,
    DebugOption,
    JsonOption,
    console,
    errors_console,
    print_json,
    print_rejects,
    print_table,
    progress_bar,
)

if TYPE_CHECKING:
    from medimg3d.workflows.evaluate import EvaluationResult

PredictionsArgument = Annotated[
    Path,
    typer.Argument(
        metavar="PREDICTIONS", help="Folder with CASE_seg.nii.gz, one a case.", show_default=False
    ),
]
LabelsArgument = Annotated[
    Path,
    typer.Argument(
        metavar="LABELS", help="Folder of label maps, Decathlon folder, or datalist.", show_default=False
    ),
]
OutOption = Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for the results.")]
BundleOption = Annotated[
    Path | None,
    typer.Option(
        "--bundle",
        metavar="DIR",
        help="Bundle that made the predictions: warns about cases that it was trained on.",
    ),
]
ImagesOption = Annotated[
    Path | None,
    typer.Option("--images", metavar="DIR", help="Images, for the pictures; a datalist names them itself."),
]
ToleranceOption = Annotated[
    float,
    typer.Option("--tolerance-mm", min=0, help="Distance that the surface Dice still calls agreement."),
]
WorstOption = Annotated[int, typer.Option("--num-worst", min=0, help="Number of worst cases to draw.")]
SeedOption = Annotated[int, typer.Option("--seed", help="Seed of the intervals.")]
WorkersOption = Annotated[
    int | None,
    typer.Option("--workers", min=1, help="Cases at once; by default one a processor, at most 4."),
]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("evaluate", no_args_is_help=True)(evaluate)


def evaluate(
    predictions: PredictionsArgument,
    labels: LabelsArgument,
    out: OutOption,
    bundle: BundleOption = None,
    images: ImagesOption = None,
    tolerance_mm: ToleranceOption = 1.0,
    num_worst: WorstOption = 5,
    seed: SeedOption = 0,
    workers: WorkersOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    r"""Measure predictions against reference label maps.

    For each case and class: Dice, the distance that holds 95 % of both surfaces (HD95, mm), the share of the
    surfaces within a tolerance (surface Dice), and the difference of the volumes (mL). For each class: the
    mean with its 95 % interval, and how many cases are not in it and why.

    Writes [bold]evaluation.html[/] (one file, pictures inside), [bold]cases.csv[/] and
    [bold]summary.json[/]. A case without a prediction, unreadable, or on another grid is named with its
    reason, and the exit code is 3.

    [bold]Examples[/]

      [dim]# predictions of a Decathlon set; draws the worst cases, since the images are known[/]
      medimg3d evaluate predictions Task04_Hippocampus --out evaluation

      [dim]# a folder of label maps; warns about cases that the bundle was trained on[/]
      medimg3d evaluate predictions labels --images images --bundle my_bundle --out evaluation

      [dim]# for machines[/]
      medimg3d evaluate predictions test.json --out evaluation --json > figures.json
    """
    from medimg3d.workflows.evaluate import evaluate as run_evaluation

    with progress_bar("Scoring") as progress:
        result = run_evaluation(
            predictions,
            labels,
            out,
            bundle=bundle,
            images=images,
            tolerance_mm=tolerance_mm,
            num_worst=num_worst,
            seed=seed,
            workers=workers,
            progress=progress,
        )
    if as_json:
        print_json(result.summary)
    else:
        _show(result)
    _show_warnings(result)
    print_rejects(result.rejected)
    if result.rejected:
        raise typer.Exit(EXIT_REJECTS)


def _show(result: EvaluationResult) -> None:
    from medimg3d.report.page import summary_rows

    rows = [
        (row["metric"], row["class_name"], row["mean"], row["interval"], row["n"], row["left_out"])
        for row in summary_rows(result.summary)
    ]
    settings = result.summary["settings"]
    title = f"{len(result.scores)} cases; surface Dice at {settings['tolerance_mm']:g} mm"
    print_table(title, ("metric", "class", "mean", "95 % interval", "n", "not in the mean"), rows)
    console().print(f"Page: {result.files['page']}", markup=False, soft_wrap=True, highlight=False)


def _show_warnings(result: EvaluationResult) -> None:
    out = errors_console()
    for warning in result.warnings:
        out.print("[bold yellow]Warning:[/] ", end="")
        out.print(warning, markup=False, soft_wrap=True)
    seen = result.summary["seen_in_training"]
    if not seen["checked"]:
        text = f"Not checked whether these cases were trained on: {seen['why_not']}."
        out.print(text, markup=False, soft_wrap=True, style="dim")
