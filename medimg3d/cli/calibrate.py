"""``medimg3d calibrate``: temperature, threshold and unsure band of a classifier, from the held-out images."""

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

BundleArgument = Annotated[
    Path, typer.Argument(metavar="BUNDLE", help="Trained classification bundle.", show_default=False)
]
DatalistOption = Annotated[
    Path,
    typer.Option("--datalist", metavar="FILE", help="Datalist that it was trained with.", show_default=False),
]
SensitivityOption = Annotated[
    float | None,
    typer.Option("--sensitivity", help="Least sensitivity, e.g. 0.95, instead of Youden's threshold."),
]
ViewsOption = Annotated[
    int | None,
    typer.Option(
        "--augmented",
        min=0,
        metavar="N",
        help="Choose on N augmented versions of each image, as the training made.",
    ),
]
UnsureOption = Annotated[
    float | None, typer.Option("--unsure", help="Share of the images that a human should see, e.g. 0.05.")
]
PositiveOption = Annotated[
    str | None, typer.Option("--positive", help="Class that the threshold is about; by default the last.")
]
CheckpointOption = Annotated[
    Path | None,
    typer.Option("--checkpoint", metavar="FILE", help="Weights instead of the bundle's models/model.pt."),
]
DeviceOption = Annotated[str | None, typer.Option("--device", metavar="NAME", help="cpu, cuda, cuda:1.")]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("calibrate", no_args_is_help=True)(calibrate)


def calibrate(
    bundle: BundleArgument,
    datalist: DatalistOption,
    sensitivity: SensitivityOption = None,
    augmented: ViewsOption = None,
    unsure: UnsureOption = None,
    positive: PositiveOption = None,
    checkpoint: CheckpointOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    r"""Choose how a classifier's scores become a decision, on the images that its training held out.

    Temperature and bias make the probabilities honest, the threshold turns them into a class, and a band around it
    can send the doubtful images to a human. All three are written to [bold]models/decision.json[/] and used by
    [bold]predict[/] and by stock MONAI. The test images choose nothing. Without options, the rule in the bundle's
    train.json is followed (calibration), or Youden's on the images as they are.

    [bold]Examples[/]

      [dim]# the recipe's own rule[/]
      medimg3d calibrate runs/films --datalist films.json

      [dim]# Youden's threshold on augmented images, which are harder than those that were held out[/]
      medimg3d calibrate runs/films --datalist films.json --augmented 4

      [dim]# miss at most one pneumonia in fifty, and let a human see the most doubtful 5 %[/]
      medimg3d calibrate runs/films --datalist films.json --sensitivity 0.98 --unsure 0.05
    """
    from medimg3d.workflows.calibrate import Rule
    from medimg3d.workflows.calibrate import calibrate as run_calibration

    rule = None
    if any(given is not None for given in (sensitivity, augmented, unsure, positive)):
        rule = Rule(
            sensitivity=sensitivity, num_views=augmented or 0, unsure_share=unsure or 0.0, positive=positive
        )
    with progress_bar("Scoring") as progress:
        result = run_calibration(
            bundle, datalist, rule=rule, checkpoint=checkpoint, device=device, progress=progress
        )
    if as_json:
        print_json({**result.decision.as_json(), "file": str(result.file), "notes": result.notes})
        return
    decision = result.decision
    rows = [
        ["temperature", f"{decision.temperature:.3f}"],
        ["bias", ", ".join(f"{n} {b:+.2f}" for n, b in zip(decision.classes, decision.bias, strict=False))],
        ["positive class", decision.positive or "none: the likeliest class decides"],
        ["threshold", "" if decision.threshold is None else f"{decision.threshold:.4f} ({decision.rule})"],
        [
            "unsure",
            "" if decision.unsure is None else f"{decision.unsure[0]:.4f} to {decision.unsure[1]:.4f}",
        ],
        ["chosen on", decision.chosen_on],
    ]
    print_table("Decision", ["what", "value"], rows)
    for note in result.notes:
        errors_console().print(f"Note: {note}", markup=False, soft_wrap=True)
    errors_console().print(f"Written to {result.file}.", markup=False, soft_wrap=True)
