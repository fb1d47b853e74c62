"""``medimg3d datalist``: a user's folders to one checked datalist with folds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medimg3d.cli.findings import print_findings
from medimg3d.cli.output import (
    EXIT_REJECTS,
    DebugOption,
    JsonOption,
    print_json,
    print_rejects,
    print_table,
    progress_bar,
)

if TYPE_CHECKING:
    from medimg3d.workflows.ingest import IngestResult

FoldersArgument = Annotated[
    list[Path],
    typer.Argument(
        metavar="FOLDER...",
        help="Folders with images; several are merged. Or one datalist, to check it.",
        show_default=False,
    ),
]
OutOption = Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The datalist to write (JSON).")]
FoldsOption = Annotated[
    int | None,
    typer.Option(
        "--num-folds", min=2, help="Cross-validation folds.", show_default="5, or the datalist's own"
    ),
]
SeedOption = Annotated[int, typer.Option("--seed", help="Another seed gives another split.")]
PatternOption = Annotated[
    str | None,
    typer.Option(
        "--patient-pattern",
        metavar="REGEX",
        help="Finds the patient in a file's path (first group), to keep a patient's cases in one fold.",
    ),
]
ToleranceOption = Annotated[
    float,
    typer.Option("--tolerance-mm", min=0, help="Allowed distance between the grids of image and label."),
]
CheckOption = Annotated[
    bool, typer.Option("--check/--no-check", help="Read and check every image, or go by the names alone.")
]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("datalist", no_args_is_help=True)(datalist)


def datalist(
    folders: FoldersArgument,
    out: OutOption,
    num_folds: FoldsOption = None,
    seed: SeedOption = 0,
    patient_pattern: PatternOption = None,
    check: CheckOption = True,
    tolerance_mm: ToleranceOption = 0.1,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    r"""Make a datalist of your folders: check every image, split by patient, name every reject.

    Known layouts:
      [bold]imagesTr/ + labelsTr/[/]  Decathlon or nnU-Net, with or without dataset.json
      [bold]images/ + labels/[/]      files of the same name belong together
      [bold]NORMAL/ + PNEUMONIA/[/]   one folder a class
      [bold]train/ + val/ + test/[/]  with one of the last two inside
      [bold]labels.csv[/]             a row an image: file, label; split, patient and more

    The result is a Decathlon-like JSON that MONAI reads, too.
    What was refused stands beside it in [bold]*.rejected.json[/], with the reason; the exit code is then 3.

    [bold]Examples[/]

      [dim]# a Decathlon or nnU-Net folder[/]
      medimg3d datalist Task04_Hippocampus --out hippocampus.json

      [dim]# patient007_frame01.nii.gz: keep each patient in one fold[/]
      medimg3d datalist acdc --out acdc.json --patient-pattern '(patient\d+)'

      [dim]# two hospitals, ten folds[/]
      medimg3d datalist hospital_a hospital_b --out both.json --num-folds 10

      [dim]# check a datalist, and write one without the cases that cannot be used[/]
      medimg3d datalist both.json --out checked.json
    """
    from medimg3d.workflows.ingest import make_datalist

    with progress_bar("Checking images") as progress:
        result = make_datalist(
            folders,
            out,
            num_folds=num_folds,
            seed=seed,
            patient_pattern=patient_pattern,
            check=check,
            tolerance_mm=tolerance_mm,
            progress=progress,
        )
    if as_json:
        print_json(result.summary())
        print_rejects(result.rejected)
    else:
        _show(result)
    if result.rejected:
        raise typer.Exit(EXIT_REJECTS)


def _show(result: IngestResult) -> None:
    summary = result.summary()
    rows = [
        ("layout", ", ".join(summary["layouts"])),
        ("cases", _cases(summary)),
        ("labels", ", ".join(f"{value} {name}" for value, name in summary["labels"].items())),
        ("classes", ", ".join(summary["classes"])),
        ("folds", f"by {summary['split']['by']}, sizes {', '.join(map(str, summary['fold_sizes']))}"),
        ("note", summary["split"]["note"]),
        ("rejected", f"{len(result.rejected)}, see {result.rejected_path}" if result.rejected else "0"),
    ]
    print_table(f"Datalist {result.path}", ("what", "found"), [row for row in rows if row[1]])
    in_cases = {finding.case for finding in result.findings if finding.severe}
    print_rejects({name: reason for name, reason in result.rejected.items() if name not in in_cases})
    print_findings(result.findings, result.base)


def _cases(summary: dict[str, int]) -> str:
    return ", ".join(
        f"{summary[name]} {name}" for name in ("training", "validation", "test") if summary[name]
    )
