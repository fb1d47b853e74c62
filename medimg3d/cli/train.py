"""``medimg3d train``: a bundle's recipe on labelled images, resumable."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from medimg3d.cli.output import DebugOption, JsonOption, print_json, print_table
from medimg3d.errors import UsageError

_HELP = """Train a copy of a bundle on labelled images, by its own recipe ([bold]configs/train.json[/]).

The copy in [bold]--out[/] is a bundle of its own: it runs with [bold]python -m monai.bundle run[/] and with
[bold]medimg3d predict[/]. The held-out fold is watched and chooses nothing: the run has a fixed length and ends
with the averaged weights. Stopped or killed, it goes on from its last whole epoch with [bold]--resume[/].

[bold]Examples[/]

  medimg3d train bundles/mri_hippocampus_unet --dataset-dir hippocampus --out runs/fold_0

  medimg3d train bundles/mri_hippocampus_unet --datalist mine.json --fold all --epochs 100 --out runs/mine

  medimg3d train bundles/mri_hippocampus_unet --datalist mine.json --out runs/mine/fold_0 --resume
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("train", help=_HELP)(train_command)


def train_command(
    bundle: Annotated[
        Path, typer.Argument(metavar="BUNDLE", help="Folder of the bundle whose recipe is followed.")
    ],
    out: Annotated[
        Path, typer.Option("--out", help="Folder of the trained copy (of one copy a fold with 'all').")
    ],
    dataset_dir: Annotated[
        Path | None, typer.Option("--dataset-dir", help="Decathlon root: dataset.json, images and labels.")
    ] = None,
    datalist: Annotated[
        Path | None,
        typer.Option("--datalist", help="Datalist file instead, as 'medimg3d datalist' makes it."),
    ] = None,
    fold: Annotated[
        str, typer.Option("--fold", help="Held-out fold, 'all' for one training a fold, 'none'.")
    ] = "0",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last whole epoch in --out.")
    ] = False,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="Length of the run.")] = None,
    minutes: Annotated[
        float | None,
        typer.Option("--minutes", min=0.1, help="Choose the epochs so that a run takes about this long."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, help="Seed of weights, order, augmentation.")
    ] = None,
    precision: Annotated[
        str, typer.Option("--precision", help="auto (measured on this machine), float32 or bfloat16.")
    ] = "auto",
    compiled: Annotated[
        bool,
        typer.Option("--compile", help="Use torch.compile: faster after a minute; needs a C++ compiler."),
    ] = False,
    workers: Annotated[
        int | None, typer.Option("--workers", min=0, help="Processes that load and augment.")
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            "--cache", metavar="DIR", help="Preprocessed images; seeds and folds can share one folder."
        ),
    ] = None,
    tracking: Annotated[
        str | None, typer.Option("--tracking", help="'mlflow' to track the run with MLflow.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="ID=VALUE", help="Set a value of train.json, e.g. --set learning_rate=0.001."
        ),
    ] = None,
    overlay: Annotated[
        str | None,
        typer.Option("--overlay", metavar="NAME", help="A variant: configs/NAME.json of the bundle."),
    ] = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Parse, train each fold asked for, show the result."""
    if precision not in ("auto", "float32", "bfloat16"):
        raise UsageError(f"--precision is {precision}; expected auto, float32 or bfloat16.")
    if tracking not in (None, "mlflow"):
        raise UsageError(f"--tracking is {tracking}; expected mlflow.")
    from medimg3d.workflows.train import train

    overrides = dict(_parse_setting(text) for text in settings or [])
    folds = _parse_folds(fold, bundle, dataset_dir, datalist)
    results = [
        train(
            bundle,
            out=out / f"fold_{number}" if fold == "all" else out,
            dataset_dir=dataset_dir,
            datalist=datalist,
            fold=number,
            resume=resume,
            epochs=epochs,
            max_minutes=minutes,
            seed=seed,
            precision=precision,
            compiled=compiled,
            num_workers=workers,
            cache_dir=cache,
            tracking=tracking,
            overrides=overrides,
            overlay=overlay,
            progress=not as_json,
        )
        for number in folds
    ]
    if as_json:
        print_json([{**asdict(result), "history": result.history[-1]} for result in results])
        return
    rows = [_row(result) for result in results]
    watched = "AUC" if any("val_auc" in row for row in results[0].history) else "Dice"
    columns = ["fold", "cases", "held out", "epochs", "last loss", f"last {watched}", "bundle"]
    print_table("Trained", columns, rows)
    print(f"Split by {results[0].split_by}. The {watched} was watched on the held-out cases while training;")
    print("score it properly with: medimg3d predict … and medimg3d evaluate …")


def _row(result: Any) -> list[str]:
    last = result.history[-1]
    metrics = ("val_mean_dice", "val_auc")
    found = (row[name] for row in reversed(result.history) for name in metrics if name in row)
    watched = next(found, None)
    return [
        "none" if result.settings.fold < 0 else str(result.settings.fold),
        str(result.training_cases),
        str(result.validation_cases),
        str(result.settings.epochs),
        f"{last['train_loss']:.4f}",
        "" if watched is None else f"{watched:.4f}",
        str(result.bundle),
    ]


def _parse_folds(fold: str, bundle: Path, dataset_dir: Path | None, datalist: Path | None) -> list[int]:
    if fold == "none":
        return [-1]
    if fold == "all":
        from medimg3d.bundle.folder import BundleFolder
        from medimg3d.workflows.training_copy import count_folds, find_datalist, read_training_list

        source = BundleFolder(bundle)
        file = find_datalist(dataset_dir, datalist)
        return list(range(count_folds(source, read_training_list(file, of_classes=source.is_classifier))))
    if not fold.isdigit():
        raise UsageError(f"--fold is {fold}; expected a number from 0, 'all' or 'none'.")
    return [int(fold)]


def _parse_setting(text: str) -> tuple[str, Any]:
    identity, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"--set {text} has no '='; expected ID=VALUE, for example learning_rate=0.001.")
    try:
        return identity, json.loads(value)
    except json.JSONDecodeError:
        return identity, value
