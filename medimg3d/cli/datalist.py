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
from medimg3d.errors import UsageError

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
ImageFolderOption = Annotated[
    str | None,
    typer.Option(
        "--image-folder", metavar="NAME", help="Folder of the images below FOLDER, with --label-folder."
    ),
]
LabelFolderOption = Annotated[
    str | None,
    typer.Option("--label-folder", metavar="NAME", help="Folder of the label maps, of the same names."),
]
TableOption = Annotated[
    Path | None,
    typer.Option(
        "--table",
        metavar="CSV",
        help="A row a case (column id) or a patient (column patient): patient, fold, split; "
        "other columns become values.",
    ),
]
TestWhereOption = Annotated[
    str | None,
    typer.Option(
        "--test-where",
        metavar="COLUMN=VALUE",
        help="Cases with this value are for testing: another hospital.",
    ),
]
StructureOption = Annotated[
    list[str] | None,
    typer.Option(
        "--structure", metavar="VALUE=NAME", help="Name of a value in the label maps; repeat for more."
    ),
]
ModalityOption = Annotated[
    list[str] | None,
    typer.Option("--modality", metavar="NAME", help="CT, MRI, PET …; repeat, in the order of the channels."),
]
NameOption = Annotated[str | None, typer.Option("--name", metavar="NAME", help="Name of the study.")]
LicenceOption = Annotated[
    str | None, typer.Option("--licence", metavar="TEXT", help="Licence of the images.")
]
UnknownSizeOption = Annotated[
    bool,
    typer.Option(
        "--unknown-voxel-size",
        help="The headers' voxel sizes are not true: plan and figures go by voxels alone.",
    ),
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
    image_folder: ImageFolderOption = None,
    label_folder: LabelFolderOption = None,
    table: TableOption = None,
    test_where: TestWhereOption = None,
    structure: StructureOption = None,
    modality: ModalityOption = None,
    name: NameOption = None,
    licence: LicenceOption = None,
    unknown_voxel_size: UnknownSizeOption = False,
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

      [dim]# folders and a table of another kind; one hospital is for testing[/]
      medimg3d datalist lung --out lung.json --image-folder ct --label-folder tumour --table patients.csv \
          --test-where source=Stanford --structure 1=tumour --modality CT

      [dim]# check a datalist, and write one without the cases that cannot be used[/]
      medimg3d datalist both.json --out checked.json
    """
    from medimg3d.data.set_description import SetDescription
    from medimg3d.workflows.ingest import make_datalist

    description = SetDescription(
        table=table,
        test_where=_pair_of("--test-where", test_where) if test_where else None,
        structures=_structures(structure or []),
        modality=tuple(modality or ()),
        name=name or "",
        licence=licence or "",
        unknown_voxel_size=unknown_voxel_size,
    )
    with progress_bar("Checking images") as progress:
        result = make_datalist(
            folders,
            out,
            num_folds=num_folds,
            seed=seed,
            patient_pattern=patient_pattern,
            pair=_folder_pair(image_folder, label_folder),
            description=description,
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


def _folder_pair(image_folder: str | None, label_folder: str | None) -> tuple[str, str] | None:
    if image_folder is None and label_folder is None:
        return None
    if image_folder is None or label_folder is None:
        raise UsageError("Found one of --image-folder and --label-folder; expected both or none.")
    return image_folder, label_folder


def _pair_of(option: str, text: str) -> tuple[str, str]:
    left, sign, right = text.partition("=")
    if not (left and sign and right):
        raise UsageError(f"{option} is {text!r}; expected two parts with = between them.")
    return left, right


def _structures(texts: list[str]) -> dict[int, str]:
    pairs = [_pair_of("--structure", text) for text in texts]
    wrong = next((value for value, _ in pairs if not value.isdigit() or int(value) == 0), None)
    if wrong is not None:
        raise UsageError(f"--structure has the value {wrong!r}; expected a whole number from 1.")
    if len({value for value, _ in pairs}) < len(pairs):
        raise UsageError("--structure names a value twice; give each value one name.")
    return {int(value): name for value, name in pairs}


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
