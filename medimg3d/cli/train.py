"""``medimg3d train``: a bundle's recipe on labelled images, resumable."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medimg3d.cli.findings import CheckOption, DropOption, data_check, refusal_as_json
from medimg3d.cli.output import (
    EXIT_REJECTS,
    DebugOption,
    JsonOption,
    errors_console,
    print_json,
    print_rejects,
    print_table,
)
from medimg3d.cli.ray_options import (
    JobCpusOption,
    JobGpusOption,
    RayOption,
    exit_with,
    print_failures,
    ray_cluster,
)
from medimg3d.errors import DataError, UsageError

if TYPE_CHECKING:
    from medimg3d.workflows.data_check import DataCheck
    from medimg3d.workflows.ray_jobs import RayCluster
    from medimg3d.workflows.slurm import SlurmJob

_OF_ONE_GPU = {
    "max_minutes": "--minutes",
    "precision": "--precision",
    "compiled": "--compile",
    "num_workers": "--workers",
    "cache_dir": "--cache",
    "tracking": "--tracking",
    "start_from": "--start-from",
}

_HELP = """Train a copy of a bundle on labelled images, by its own recipe ([bold]configs/train.json[/]).

The copy in [bold]--out[/] is a bundle of its own: it runs with [bold]python -m monai.bundle run[/] and with
[bold]medimg3d predict[/]. The held-out fold is watched and chooses nothing: the run has a fixed length and ends
with the averaged weights. Stopped or killed, it goes on from its last whole epoch with [bold]--resume[/].

Every image and label map is read and checked first; a case that cannot be used refuses the training, with file and
cure. [bold]--drop-rejected[/] goes on with the others.

A bundle that finds a region first ([bold]configs/train_finder.json[/]) trains its finder, says what of the structures
the found regions hold, and then trains the network that sees them; [bold]--stage[/] trains one of the two.

[bold]--fold all[/] cross-validates: every fold is trained, predicts what it held out, and is scored. The same command
goes on after an interruption, and [bold]medimg3d ensemble[/] makes one bundle of the folds.

[bold]Examples[/]

  medimg3d train bundles/mri_hippocampus_unet --dataset-dir hippocampus --out runs/fold_0

  medimg3d train bundles/mri_hippocampus_unet --datalist mine.json --fold all --epochs 100 --out runs/mine

  medimg3d train bundles/mri_hippocampus_unet --datalist mine.json --out runs/mine/fold_0 --resume

  [dim]# on a cluster: five folds with three seeds each, a training on two nodes of four GPUs[/]
  medimg3d train bundles/mri_hippocampus_unet --datalist mine.json --fold all --seeds 0,1,2 --out runs/mine \\
      --slurm train.sbatch --nodes 2 --gpus 4

  [dim]# the folds as jobs of a Ray cluster[/]
  medimg3d train bundles/mri_hippocampus_unet --datalist mine.json --fold all --out runs/mine --ray auto
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
    start: Annotated[
        Path | None,
        typer.Option(
            "--start-from",
            metavar="BUNDLE|FILE",
            help="Begin with the weights of a bundle or file: what fits in name and shape is loaded.",
        ),
    ] = None,
    stage: Annotated[
        str,
        typer.Option(
            "--stage", help="Of a bundle with a region finder: finder, fine, or all (both in turn)."
        ),
    ] = "all",
    finder_epochs: Annotated[
        int | None, typer.Option("--finder-epochs", min=1, help="Length of the region finder's training.")
    ] = None,
    accumulate: Annotated[
        int | None,
        typer.Option(
            "--accumulate", min=1, help="Batches whose gradients are averaged before a step: a larger batch."
        ),
    ] = None,
    slurm: Annotated[
        Path | None,
        typer.Option(
            "--slurm", metavar="FILE", help="Train nothing here; write an sbatch array over folds and seeds."
        ),
    ] = None,
    seeds: Annotated[
        str | None, typer.Option("--seeds", help="With --slurm or --ray: seeds of each fold, with commas.")
    ] = None,
    nodes: Annotated[
        int | None, typer.Option("--nodes", min=1, help="With --slurm: nodes a training (1).")
    ] = None,
    gpus: Annotated[int | None, typer.Option("--gpus", min=0, help="With --slurm: GPUs a node (1).")] = None,
    cpus: Annotated[
        int | None, typer.Option("--cpus", min=1, help="With --slurm: processors a node (8).")
    ] = None,
    hours: Annotated[
        int | None, typer.Option("--hours", min=1, help="With --slurm: time limit of a training (24).")
    ] = None,
    softmax: Annotated[
        bool,
        typer.Option("--softmax", help="With --fold all: keep class probabilities, for 'medimg3d ensemble'."),
    ] = False,
    ray: RayOption = None,
    job_cpus: JobCpusOption = None,
    job_gpus: JobGpusOption = None,
    check: CheckOption = True,
    drop_rejected: DropOption = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Parse, train each fold asked for, show the result."""
    if precision not in ("auto", "float32", "bfloat16"):
        raise UsageError(f"--precision is {precision}; expected auto, float32 or bfloat16.")
    if tracking not in (None, "mlflow"):
        raise UsageError(f"--tracking is {tracking}; expected mlflow.")
    from medimg3d.bundle.folder import BundleFolder
    from medimg3d.workflows.slurm import SlurmJob
    from medimg3d.workflows.train import train

    options: dict[str, Any] = {
        "dataset_dir": dataset_dir,
        "datalist": datalist,
        "epochs": epochs,
        "max_minutes": minutes,
        "seed": seed,
        "precision": precision,
        "compiled": compiled,
        "num_workers": workers,
        "cache_dir": cache,
        "tracking": tracking,
        "overrides": dict(_parse_setting(text) for text in settings or []) | _accumulation(accumulate),
        "overlay": overlay,
        "start_from": start,
        "finder_epochs": finder_epochs,
        **({"stage": stage} if stage != "all" else {}),
        "progress": not as_json,
    }
    shared = (cache or out) / "image_facts.jsonl" if fold == "all" else None
    checks = data_check(drop_rejected=drop_rejected, quiet=as_json, facts_file=shared) if check else None
    cluster = ray_cluster(ray, job_cpus, job_gpus)
    if slurm is None and cluster is None and seeds is not None:
        raise UsageError("--seeds is for --slurm and --ray; expected --seed with one number.")
    if slurm is not None and cluster is not None:
        raise UsageError("--slurm and --ray are two ways to the same; leave one away.")
    if softmax and (fold != "all" or slurm is not None or seeds is not None):
        raise UsageError(
            "--softmax keeps what cross-validation predicts; expected --fold all, without --slurm or --seeds."
        )
    asked_of_slurm = {"nodes": nodes, "gpus": gpus, "cpus": cpus, "hours": hours}
    of_job = {name: value for name, value in asked_of_slurm.items() if value is not None}
    if of_job and slurm is None:
        raise UsageError(f"--{next(iter(of_job))} is for --slurm; leave it away, or give --slurm FILE.")
    if softmax and BundleFolder(bundle).is_classifier:
        raise UsageError("--softmax is for bundles of label maps, and this one classifies; leave it away.")
    read_folds = partial(_parse_folds, fold, bundle, options)
    with refusal_as_json(as_json=as_json):
        if slurm is not None:
            numbers = _parse_seeds(seeds) if seeds else [seed or 0]
            rejected = _write_slurm(
                slurm, bundle, out, read_folds(), numbers, SlurmJob(**of_job), options, checks, resume=resume
            )
            exit_with(rejected=bool(rejected), failed=False, any_done=True)
            return
        if fold == "all" and stage != "all":
            raise UsageError(
                f"--fold all predicts what it holds out, which needs both stages; leave --stage {stage} away."
            )
        if fold == "all" and not BundleFolder(bundle).is_classifier and seeds is None:
            asked = options | {"check": checks, "cluster": cluster, "softmax": softmax}
            rejected = _cross_validate(bundle, out, asked, as_json=as_json)
        elif cluster is not None:
            several = None if seeds is None else _parse_seeds(seeds)
            _train_on_ray(bundle, out, fold, read_folds(), several, cluster, options, checks)
            return
        else:
            results = [
                train(
                    bundle,
                    out=out / f"fold_{number}" if fold == "all" else out,
                    fold=number,
                    resume=resume or fold == "all",
                    check=checks,
                    **options,
                )
                for number in read_folds()
            ]
            rejected = results[0].rejected
            _show(results, as_json=as_json)
    if rejected:
        raise typer.Exit(EXIT_REJECTS)


def _cross_validate(bundle: Path, out: Path, options: dict[str, Any], *, as_json: bool) -> dict[str, str]:
    """Train and score every fold, as ``medimg3d cross-validate`` does; the rejected cases."""
    from medimg3d.workflows.cross_validate import cross_validate

    result = cross_validate(bundle, out=out, say=errors_console().print, **options)
    if as_json:
        found = {"folds": result.folds, "pooled": result.pooled, "rejected": result.rejected}
        print_json(found | ({"failed": result.failed} if options["cluster"] else {}))
    else:
        if result.table:
            print(result.table)
        print_rejects(result.rejected)
    print_failures(result.failed)
    exit_with(rejected=False, failed=bool(result.failed), any_done=bool(result.folds))
    return result.rejected


def _train_on_ray(
    bundle: Path,
    out: Path,
    fold: str,
    folds: list[int],
    seeds: list[int] | None,
    cluster: RayCluster,
    options: dict[str, Any],
    checks: DataCheck | None,
) -> None:
    """Train every fold and seed as a job; into the folders that SLURM's array has where there are several seeds."""
    from medimg3d.workflows.jobs import TrainingTask, training_tasks
    from medimg3d.workflows.train_jobs import train_on_ray
    from medimg3d.workflows.training_copy import find_datalist

    if seeds is not None:
        tasks = training_tasks(out, folds, seeds)
    else:
        folders = [(out / f"fold_{number}" if fold == "all" else out).resolve() for number in folds]
        tasks = [TrainingTask(n, options["seed"], folder) for n, folder in zip(folds, folders, strict=True)]
    result = train_on_ray(
        bundle,
        tasks,
        out=out,
        list_file=find_datalist(options["dataset_dir"], options["datalist"]),
        cluster=cluster,
        options=_words(_of_one_gpu(options) | _of_any(options), options["overrides"]),
        check=checks,
        say=errors_console().print,
    )
    if not options["progress"]:  # --json
        print_json({"trained": result.trained, "failed": result.failed, "rejected": result.rejected})
    else:
        print_table("Trained", ["bundle"], [[folder] for folder in result.trained])
    print_rejects(result.rejected)
    print_failures(result.failed)
    exit_with(rejected=bool(result.rejected), failed=bool(result.failed), any_done=bool(result.trained))


def _write_slurm(
    path: Path,
    bundle: Path,
    out: Path,
    folds: list[int],
    seeds: list[int],
    job: SlurmJob,
    options: dict[str, Any],
    checks: DataCheck | None,
    *,
    resume: bool,
) -> dict[str, str]:
    """Write the script; one GPU takes the options as they are, several take them as values of the recipe.

    Returns:
        The rejected cases.
    """
    from medimg3d.workflows.slurm import write_slurm
    from medimg3d.workflows.training_copy import find_datalist

    overrides = dict(options["overrides"])
    _refuse_distributed_finder(bundle, job)
    given = _of_one_gpu(options)
    if job.is_distributed:
        if given:
            raise UsageError(
                f"{next(iter(given))} is for one GPU; several run the recipe with stock MONAI. Leave it out."
            )
        if options["epochs"] is not None:
            overrides["train#trainer#max_epochs"] = options["epochs"]
    written = write_slurm(
        path,
        bundle,
        out=out,
        list_file=find_datalist(options["dataset_dir"], options["datalist"]),
        folds=folds,
        seeds=seeds,
        job=job,
        options=_words(given | _of_any(options), options["overrides"]),
        overrides=overrides,
        overlay=options["overlay"],
        check=checks,
        resume=resume,
    )
    if not options["progress"]:  # --json
        print_json({"script": path, "folders": written.folders, "rejected": written.rejected})
        return written.rejected
    print(
        f"{len(written.folders)} trainings in {path}. Add your account and partition, then run: sbatch {path}"
    )
    print_rejects(written.rejected)
    return written.rejected


def _refuse_distributed_finder(bundle: Path, job: SlurmJob) -> None:
    from medimg3d.bundle.finder import has_finder
    from medimg3d.bundle.folder import BundleFolder

    if job.is_distributed and has_finder(BundleFolder(bundle)):
        raise UsageError(
            "The bundle trains a region finder first, which several GPUs do not do by --slurm; expected --gpus 1 and "
            "one node, or run configs/train_finder.json and configs/train.json with torchrun one after the other."
        )


def _of_one_gpu(options: dict[str, Any]) -> dict[str, Any]:
    """The options that were given and that ``torchrun`` would not know."""
    given = {name: options[key] for key, name in _OF_ONE_GPU.items() if options[key] not in (None, False)}
    if given.get("--precision") == "auto":
        del given["--precision"]
    return given


def _of_any(options: dict[str, Any]) -> dict[str, Any]:
    keys = {
        "--epochs": "epochs",
        "--overlay": "overlay",
        "--finder-epochs": "finder_epochs",
        "--stage": "stage",
    }
    return {name: options.get(key) for name, key in keys.items()}


def _words(given: dict[str, Any], overrides: dict[str, Any]) -> list[str]:
    """Options as the words of a command line."""
    words = [
        word
        for name, value in given.items()
        if value is not None
        for word in ([name] if value is True else [name, str(_absolute(value))])
    ]
    sets = [word for name, value in overrides.items() for word in ("--set", f"{name}={json.dumps(value)}")]
    return words + sets


def _absolute(value: Any) -> Any:
    """Paths as a job sees them, whatever folder it starts in."""
    return value.resolve() if isinstance(value, Path) else value


def _accumulation(accumulate: int | None) -> dict[str, int]:
    return {} if accumulate is None else {"train#trainer#accumulation_steps": accumulate}


def _parse_seeds(seeds: str) -> list[int]:
    try:
        return [int(number) for number in seeds.split(",")]
    except ValueError as err:
        raise UsageError(f"--seeds is {seeds}; expected numbers with commas, such as 0,1,2.") from err


def _show(results: list[Any], *, as_json: bool) -> None:
    if as_json:
        print_json([{**asdict(result), "history": result.history[-1]} for result in results])
        return
    rows = [_row(result) for result in results]
    watched = "AUC" if any("val_auc" in row for row in results[0].history) else "Dice"
    columns = ["fold", "cases", "held out", "epochs", "last loss", f"last {watched}", "bundle"]
    print_table("Trained", columns, rows)
    print(f"Split by {results[0].split_by}. The {watched} was watched on the held-out cases while training;")
    print("score it properly with: medimg3d predict … and medimg3d evaluate …")
    for result in results:
        for line in [*result.start, *result.finder]:
            errors_console().print(line, markup=False, soft_wrap=True)
    print_rejects(results[0].rejected)


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


def _parse_folds(fold: str, bundle: Path, options: dict[str, Any]) -> list[int]:
    if fold == "none":
        return [-1]
    if fold != "all" and not fold.isdigit():
        raise UsageError(f"--fold is {fold}; expected a number from 0, 'all' or 'none'.")
    from medimg3d.bundle.folder import BundleFolder
    from medimg3d.workflows.cross_validate import folds_with_cases
    from medimg3d.workflows.training_copy import find_datalist

    try:
        filled = folds_with_cases(
            BundleFolder(bundle),
            find_datalist(options["dataset_dir"], options["datalist"]),
            overlay=options["overlay"],
            overrides=options["overrides"],
        )
    except DataError:
        if fold == "all":
            raise
        return [int(fold)]  # the check of the data says more
    if fold != "all" and int(fold) not in filled:
        raise UsageError(
            f"--fold is {fold}, and no case is in it; expected one of {', '.join(map(str, filled))}, 'all' or 'none'."
        )
    return filled if fold == "all" else [int(fold)]


def _parse_setting(text: str) -> tuple[str, Any]:
    identity, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"--set {text} has no '='; expected ID=VALUE, for example learning_rate=0.001.")
    try:
        return identity, json.loads(value)
    except json.JSONDecodeError:
        return identity, value
