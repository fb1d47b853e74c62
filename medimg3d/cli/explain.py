"""``medimg3d explain``: where a classifier looked, as heat maps on the images."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medimg3d.cli.output import (
    EXIT_FAILED,
    EXIT_REJECTS,
    DebugOption,
    JsonOption,
    errors_console,
    print_json,
    print_rejects,
    print_table,
    progress_bar,
)

if TYPE_CHECKING:
    from medimg3d.workflows.explain import ExplainedCase, ExplainResult


class Method(str, Enum):
    """How a heat map is made."""

    gradcampp = "gradcampp"
    occlusion = "occlusion"
    both = "both"


BundleArgument = Annotated[
    Path,
    typer.Argument(
        metavar="BUNDLE", help="Folder of a classification bundle, with weights.", show_default=False
    ),
]
InputsArgument = Annotated[
    list[Path],
    typer.Argument(
        metavar="INPUT...",
        help="Films (JPEG, PNG, DICOM, …) or volumes (NIfTI, …), or folders that are searched through.",
        show_default=False,
    ),
]
OutOption = Annotated[
    Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for everything that is written.")
]
MethodOption = Annotated[
    Method,
    typer.Option(
        "--method", help="gradcampp: what a layer saw, fast; occlusion: what is lost when hidden, slow."
    ),
]
ClassOption = Annotated[
    str | None,
    typer.Option("--class", metavar="NAME", help="Class to explain; by default each image's decided class."),
]
LayerOption = Annotated[
    str | None,
    typer.Option("--layer", metavar="NAME", help="Layer for Grad-CAM++; by default the last one with a map."),
]
CheckpointOption = Annotated[
    Path | None,
    typer.Option("--checkpoint", metavar="FILE", help="Weights instead of the bundle's models/model.pt."),
]
OverlaysOption = Annotated[
    bool, typer.Option("--overlays/--no-overlays", help="Draw a picture of each heat map.")
]
DeviceOption = Annotated[
    str | None,
    typer.Option("--device", metavar="NAME", help="cpu, cuda, cuda:1; by default a GPU where there is one."),
]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("explain", no_args_is_help=True)(explain)


def explain(
    bundle: BundleArgument,
    inputs: InputsArgument,
    out: OutOption,
    method: MethodOption = Method.gradcampp,
    class_name: ClassOption = None,
    layer: LayerOption = None,
    checkpoint: CheckpointOption = None,
    overlays: OverlaysOption = True,
    device: DeviceOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    r"""Show where a classifier looked: a heat map on each image's own grid, and a picture of it.

    [bold]gradcampp[/] writes [bold]DIR/CASE_heat.nii.gz[/]: 0 to 1, 1 at the hottest point.
    [bold]occlusion[/] writes [bold]DIR/CASE_occlusion.nii.gz[/]: by how much the log-odds of the class fall
    when the place is hidden; positive speaks for the class, negative against it.

    Beside them: [bold]overlays/[/], [bold]heat_maps.csv[/] and [bold]run.json[/]. A heat map shows where, not
    why; docs/heat_maps.md says how to tell whether it can be trusted.

    [bold]Examples[/]

      [dim]# one film[/]
      medimg3d explain bundles/xray_pneumonia_densenet film.jpeg --out where

      [dim]# a folder, both methods[/]
      medimg3d explain bundles/xray_pneumonia_densenet films/ --out where --method both

      [dim]# what speaks for pneumonia, also where normal was decided[/]
      medimg3d explain bundles/xray_pneumonia_densenet films/ --out where --class pneumonia

    Exit code 3: some files were rejected; 1: all were.
    """
    from medimg3d.workflows.explain import METHODS
    from medimg3d.workflows.explain import explain as run_explain

    with progress_bar("Explaining") as progress:
        result = run_explain(
            bundle,
            inputs,
            out,
            methods=METHODS if method is Method.both else (method.value,),
            class_name=class_name,
            layer=layer,
            checkpoint=checkpoint,
            overlays=overlays,
            device=device,
            progress=progress,
        )
    if as_json:
        print_json(result.summary())
    else:
        _show(result)
    print_rejects(result.rejected)
    _exit(result)


def _show(result: ExplainResult) -> None:
    if not result.cases:
        return
    rows = [
        (case.case, case.decision, case.class_name, f"{case.probability:.2f}", _methods(case))
        for case in result.cases
    ]
    title = f"Heat maps (bundle {result.facts.name})"
    print_table(title, ("case", "decided", "explained", "probability", "method"), rows)
    folder = result.out / "overlays" if result.cases[0].maps[0].overlay else result.out
    errors_console().print(
        f"Look into {folder}. Research use only, not for diagnosis.", markup=False, soft_wrap=True
    )


def _methods(case: ExplainedCase) -> str:
    return ", ".join(one.method + (f" ({one.layer})" if one.layer else "") for one in case.maps)


def _exit(result: ExplainResult) -> None:
    if not result.rejected:
        return
    if not result.cases:
        errors_console().print("[bold red]Error:[/] every input was rejected.")
        raise typer.Exit(EXIT_FAILED)
    raise typer.Exit(EXIT_REJECTS)
