"""``medimg3d data``: the public image sets that bundles and tests use."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medimg3d.cli.output import (
    DebugOption,
    JsonOption,
    console,
    print_json,
    print_table,
    progress_bar,
)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name of the set; see: medimg3d data list")]
OutOption = Annotated[
    Path, typer.Option("--out", "-o", metavar="DIR", help="Folder that will hold DIR/NAME.")
]
FromOption = Annotated[
    Path | None,
    typer.Option("--from", metavar="FOLDER", help="Copy from a folder that holds NAME; no network is used."),
]
HashOption = Annotated[
    str | None,
    typer.Option("--hash", metavar="TYPE:DIGITS", help="Hash of the official file, where none is published."),
]


NpzArgument = Annotated[Path, typer.Argument(metavar="NPZ", help="MedMNIST file.", show_default=False)]
UnpackOutOption = Annotated[
    Path, typer.Option("--out", "-o", metavar="DIR", help="New folder for images and datalist.")
]
ClassesOption = Annotated[
    str | None, typer.Option("--classes", help="Class names by index, e.g. normal,mass.")
]


def register(app: typer.Typer) -> None:
    """Add the command group to the application."""
    group = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", help="List and get public image sets.")
    group.command("list")(list_sets)
    group.command("get", no_args_is_help=True)(get)
    group.command("unpack", no_args_is_help=True)(unpack)
    app.add_typer(group, name="data")


def list_sets(as_json: JsonOption = False, debug: DebugOption = False) -> None:
    """List the sets: what they hold, their licence, and whether they are on this machine.

    [bold]Example[/]

      MEDIMG3D_DATA=~/images medimg3d data list
    """
    from dataclasses import asdict

    from medimg3d.data.public_sets import PUBLIC_SETS

    if as_json:
        print_json([asdict(entry) | {"here": _here(entry.name)} for entry in PUBLIC_SETS])
        return
    rows = [
        (
            entry.name,
            entry.title,
            entry.licence,
            _how(bool(entry.url), entry.hash is not None),
            "yes" if _here(entry.name) else None,
        )
        for entry in PUBLIC_SETS
    ]
    print_table("Public image sets", ("name", "what", "licence", "download", "here"), rows)


def get(
    name: NameArgument,
    out: OutOption = Path(),
    from_folder: FromOption = None,
    file_hash: HashOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Get one set: a copy from a mirror, or the official file, checked against its hash.

    Without [bold]--from[/] the folder named by MEDIMG3D_DATA is looked at first. Nothing is downloaded
    without a hash, nothing is overwritten, and there is never half a set.

    [bold]Examples[/]

      [dim]# the official archive from medicaldecathlon.com, checked[/]
      medimg3d data get hippocampus --out ~/images

      [dim]# from a disk, offline[/]
      medimg3d data get hippocampus --out ~/images --from /media/disk/sets
    """
    from medimg3d.data.public_sets import get_set, public_set

    folder = get_set(name, out, from_folder=from_folder, hash_text=file_hash)
    entry = public_set(name)
    if as_json:
        print_json({"name": name, "folder": folder, "licence": entry.licence, "citation": entry.citation})
        return
    console().print(f"{name} is in {folder}", markup=False, soft_wrap=True)
    console().print(f"Licence: {entry.licence}\nCite: {entry.citation}", markup=False, soft_wrap=True)


def unpack(
    npz: NpzArgument,
    out: UnpackOutOption,
    classes: ClassesOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Unpack a MedMNIST file into PNG or NIfTI images and a datalist with the official split.

    Fold 0 of the datalist holds out what MedMNIST calls the validation part; the test part chooses nothing.

    [bold]Example[/]

      medimg3d data unpack images/adrenalmnist3d/adrenalmnist3d_64.npz --out adrenal
    """
    from medimg3d.data.medmnist import unpack_medmnist

    names = None if classes is None else tuple(name.strip() for name in classes.split(","))
    with progress_bar("Unpacking") as progress:
        datalist = unpack_medmnist(npz, out, classes=names, progress=progress)
    if as_json:
        print_json({"datalist": str(datalist)})
    else:
        console().print(f"Datalist: {datalist}", markup=False, soft_wrap=True)


def _how(has_url: bool, has_hash: bool) -> str:
    if not has_url:
        return "mirror only"
    return "yes" if has_hash else "with --hash"


def _here(name: str) -> str | None:
    """Folder of the set below MEDIMG3D_DATA, None if it is not there."""
    from medimg3d.data.public_sets import find_set
    from medimg3d.errors import DataError

    try:
        return str(find_set(name))
    except DataError:
        return None
