"""``medimg3d demo``: the whole job on a real head that comes with an installed package."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medimg3d.cli.output import DebugOption, JsonOption, errors_console, print_json, print_table

if TYPE_CHECKING:
    from medimg3d.workflows.demo import DemoResult, DemoTraining

BundleOption = Annotated[
    Path, typer.Option("--bundle", metavar="DIR", help="Folder of the hippocampus bundle, with weights.")
]
OutOption = Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder to write to.")]
MinutesOption = Annotated[
    float,
    typer.Option("--train-minutes", min=0, help="How long to train where data is found; 0 for not at all."),
]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("demo")(demo)


def demo(
    bundle: BundleOption = Path("bundles/mri_hippocampus_unet"),
    out: OutOption = Path("demo_output"),
    train_minutes: MinutesOption = 2.0,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    r"""Segment both hippocampi of a real head, offline; with data at hand, also train and score.

    The head is the MNI152 T1 template inside nilearn ([bold]pip install "medimg3d\[demo]"[/]). Both
    hippocampal regions are cut out, segmented by the shipped bundle, measured, drawn, and pasted back onto
    the head.

    Where [bold]MEDIMG3D_DATA[/] names a folder with [bold]hippocampus/dataset.json[/], it also trains the
    bundle anew for two minutes and scores cases that these weights have not seen.

    [bold]Examples[/]

      medimg3d demo

      medimg3d demo --train-minutes 0 --out /tmp/demo
    """
    from medimg3d.workflows.demo import demo as run_demo

    say = errors_console()
    result = run_demo(
        bundle,
        out,
        train_minutes=train_minutes,
        say=lambda line: say.print(line, markup=False, soft_wrap=True),
    )
    if as_json:
        print_json(result.summary())
    else:
        _show(result)


def _show(result: DemoResult) -> None:
    sides = result.volumes_ml()
    structures = next(iter(sides.values()), {})
    rows = [[name, *(f"{volumes[name]:.2f}" for volumes in sides.values())] for name in structures]
    print("Both hippocampi of the MNI152 template:")
    print_table("Volumes in mL", ["structure", *sides], rows)
    print("The template is larger than a typical brain, and a mean of many: read the volumes as such.")
    if result.training is not None:
        _show_training(result.training)
    else:
        print(f"Training skipped: {result.skipped}.")
    page = result.prediction.out / "index.html"
    print(f"Open {page}; the head and its label map are in {result.template.parent}.")
    print("Research use only, not for diagnosis.")


def _show_training(training: DemoTraining) -> None:
    epochs = "1 epoch" if training.epochs == 1 else f"{training.epochs} epochs"
    print(f"Trained {epochs} on {training.training_cases} cases, scored on {training.held_out_cases} others:")
    print_table(
        "Mean Dice", ["structure", "Dice"], [(name, f"{dice:.3f}") for name, dice in training.dice.items()]
    )
    print(f"A short training, to show the way; its page is {training.page}.")
