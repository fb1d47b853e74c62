"""Train a copy of a bundle from its own ``train.json``, made faster and resumable by its overlay."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medimg3d.atomic import write_text
from medimg3d.bundle.finder import has_finder
from medimg3d.bundle.folder import TRAINING_CASES, WEIGHTS, BundleFolder, read_json, set_config_values
from medimg3d.bundle.start_weights import (
    StartReport,
    StartWeights,
    begin_with,
    find_start_weights,
    refuse_other_start,
)
from medimg3d.data.content_hash import content_sha256
from medimg3d.data.folds import case_name, select_fold, split_unit
from medimg3d.data.json_file import write_json
from medimg3d.engines.history import read_history
from medimg3d.errors import BundleError, MissingExtraError, UsageError
from medimg3d.workflows.data_check import FACTS, CheckedList, DataCheck, check_list
from medimg3d.workflows.training_copy import (
    CHECKPOINT,
    find_datalist,
    prepare_copy,
    read_training_list,
    record_cases,
    refuse_ensemble,
)

if TYPE_CHECKING:
    from medimg3d.workflows.train_finder import FinderResult

SETTINGS = Path("training") / "settings.json"
HISTORY = Path("training") / "history.csv"
START_REPORT = Path("training") / "start.json"
ALL_CASES = -1
STAGES = ("all", "finder", "fine")


@dataclass(frozen=True)
class TrainingSettings:
    """What a run was begun with; a resumed run keeps it.

    Args:
        fold: Held-out fold, -1 for none.
        epochs: Length of the run; the learning rate's schedule depends on it.
        seed: Seed of weights, order and augmentation.
        precision: ``"float32"`` or ``"bfloat16"``.
        channels_last: Memory layout of images and weights.
        compiled: Whether ``torch.compile`` runs the network.
    """

    fold: int
    epochs: int
    seed: int
    precision: str
    channels_last: bool
    compiled: bool


@dataclass(frozen=True)
class TrainingResult:
    """A trained bundle and how it went.

    Args:
        bundle: Folder of the trained copy, runnable by ``python -m monai.bundle run``.
        settings: What it was trained with.
        history: A row an epoch.
        split_by: ``"patient"`` or ``"case"``.
        training_cases: Number of cases trained on.
        validation_cases: Number of cases held out.
        rejected: Cases of the datalist that were left out, with the reason.
        start: What of the weights that it began with was loaded, in words; empty if it began at random.
        finder: How well the region finder of the bundle does, in words; empty without one.
    """

    bundle: Path
    settings: TrainingSettings
    history: list[dict[str, float]]
    split_by: str
    training_cases: int
    validation_cases: int
    rejected: dict[str, str] = field(default_factory=dict)
    start: list[str] = field(default_factory=list)
    finder: list[str] = field(default_factory=list)


def train(
    bundle: Path,
    *,
    out: Path,
    dataset_dir: Path | None = None,
    datalist: Path | None = None,
    fold: int = 0,
    resume: bool = False,
    epochs: int | None = None,
    max_minutes: float | None = None,
    seed: int | None = None,
    precision: str = "auto",
    compiled: bool = False,
    num_workers: int | None = None,
    cache_dir: Path | None = None,
    tracking: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    overlay: str | None = None,
    start_from: Path | None = None,
    stage: str = "all",
    finder_epochs: int | None = None,
    progress: bool = True,
    check: DataCheck | None = DataCheck(),
) -> TrainingResult:
    """Train one fold into ``out``, which becomes a bundle of its own.

    Args:
        bundle: Folder of the bundle whose recipe is followed.
        out: Folder of the trained copy.
        dataset_dir: Decathlon root (``dataset.json``, images, labels).
        datalist: Datalist file instead; its paths are relative to its folder.
        fold: Fold that is held out; -1 trains on all cases.
        resume: Go on from the last whole epoch of a run in ``out``, if there is one.
        epochs: Length of the run; the recipe's if None.
        max_minutes: Choose ``epochs`` so that the run takes about this long here.
        seed: Seed of the run; the recipe's if None.
        precision: ``"auto"`` (measured), ``"float32"`` or ``"bfloat16"``.
        compiled: Run the network through ``torch.compile``: faster after a minute of compiling.
        num_workers: Processes that load and augment; the recipe's if None.
        cache_dir: Folder of the preprocessed images; runs with the same preprocessing (seeds, folds) can share
            one. ``training/cache`` of the copy if None.
        tracking: ``"mlflow"`` to track with MLflow.
        overrides: Further config values by id; they are written into the copy's ``train.json``.
        overlay: A config of the bundle (``"three_classes"``) whose values are written into the copy's configs.
        start_from: Begin with the weights of this bundle (a folder) or file: what fits in name and shape. They are
            copied beside the new ones and named in ``train.json``; what they were trained on counts as trained on.
        stage: Of a bundle with a region finder: ``"finder"`` or ``"fine"`` alone; ``"all"`` trains one after the other.
        finder_epochs: Length of the finder's training; its recipe's if None.
        progress: Show a progress bar on standard error.
        check: How images and label maps are checked before anything is trained; None to go unchecked.

    Returns:
        Where the trained bundle is, and its history.

    Raises:
        UsageError: ``out`` holds a training already and ``resume`` is not set, or the arguments contradict.
        MissingExtraError: The package for ``tracking`` is not installed.
        DataError: The datalist cannot be used.
        RefusedDataError: The check refuses cases (see :func:`medimg3d.workflows.data_check.check_list`).
        BundleError: The bundle lacks what training needs, or the run was begun with other settings.
    """
    source = BundleFolder(bundle)
    source.config("train")
    source.config("train_fast")
    refuse_ensemble(source)
    with_finder = _check_stage(source, out, stage, resume=resume)
    if finder_epochs is not None and not with_finder:
        raise UsageError(f"{source.name} has no region finder; leave --finder-epochs away.")
    if tracking is not None and find_spec(tracking) is None:
        raise MissingExtraError(tracking, "tracking")
    list_file = find_datalist(dataset_dir, datalist)
    variant = read_json(source.config(overlay)) if overlay else {}
    read_list = partial(
        read_training_list, of_classes=source.is_classifier, class_names=variant.get("class_names")
    )
    training_list = read_list(list_file)
    start = None if start_from is None else _start_weights(source, start_from)
    copy = prepare_copy(source, out, training_list, variant | dict(overrides or {}), resume=resume)
    rejected: dict[str, str] = {}
    if check is not None:
        checked = _check(copy, list_file, check, cache_dir)
        list_file, rejected = checked.list_file.resolve(), checked.report.rejected
        training_list = read_list(list_file)
    options: dict[str, Any] = {"show_progress": progress, "resume": resume}
    if num_workers is not None:
        options["num_workers"] = num_workers
    if cache_dir is not None:
        options["cache_dir"] = str(cache_dir.resolve())
    found: list[str] = []
    if with_finder:
        from medimg3d.workflows.train_finder import BOTH_CASES, refuse_other_fold, train_finder

        refuse_other_fold(copy.root, fold)
        record_cases(copy, training_list, fold, resumed=True, record=BOTH_CASES)
        if stage != "fine":
            finder = train_finder(
                copy,
                list_file,
                fold=fold,
                epochs=finder_epochs,
                seed=seed,
                options=options,
                tracking=tracking,
            )
            found = [finder.line()]
        if stage == "finder":
            return _of_finder(copy, training_list.cases, finder, rejected)
    resumed = (copy.root / CHECKPOINT).is_file()
    settings = _settings(copy, fold, epochs, max_minutes, seed, precision, compiled, resumed)
    values = _recipe_values(settings)
    if not resumed:  # its copy says when it is watched
        values |= _watched_at_the_end(copy, settings, overrides or {})
    set_config_values(copy.config("train"), values)
    set_config_values(copy.config("evaluate"), {"fold": settings.fold})
    if resumed:
        refuse_other_start(copy, start)
    elif start is not None:
        write_json(begin_with(copy, start).as_json(), copy.root / START_REPORT)
    record_cases(copy, training_list, settings.fold, resumed=resumed, start=start)
    _run(copy, list_file, settings, options, tracking)
    result = _finish(copy, training_list.cases, settings, found)
    is_pretraining = bool(read_json(copy.config("train")).get("pretraining"))
    if copy.is_classifier and settings.fold != ALL_CASES and not is_pretraining:
        from medimg3d.workflows.calibrate import calibrate

        calibrate(copy.root, list_file)
    return replace(result, rejected=rejected)


def _check_stage(source: BundleFolder, out: Path, stage: str, *, resume: bool) -> bool:
    """Whether the bundle has a region finder.

    Raises:
        UsageError: A stage that there is not, or ``out`` holds a finder that is not to be resumed.
    """
    if stage not in STAGES:
        raise UsageError(f"--stage is {stage}; expected {', '.join(STAGES)}.")
    if not has_finder(source):
        if stage != "all":
            raise UsageError(f"{source.name} has no region finder; leave --stage away.")
        return False
    if stage != "fine" and not resume:
        from medimg3d.workflows.train_finder import refuse_finder

        refuse_finder(out)
    return True


def _of_finder(
    copy: BundleFolder, cases: list[dict[str, Any]], finder: FinderResult, rejected: dict[str, str]
) -> TrainingResult:
    """The result of a training that ends with the finder."""
    config = read_json(copy.config("train"))
    numbers = {
        part: len(
            select_fold(
                cases,
                fold=finder.settings.fold,
                part=part,
                num_folds=config["num_folds"],
                seed=config["fold_seed"],
            )
        )
        for part in ("training", "validation")
        if part == "training" or finder.settings.fold != ALL_CASES
    }
    return TrainingResult(
        bundle=copy.root,
        settings=TrainingSettings(**asdict(finder.settings)),
        history=finder.history,
        split_by=split_unit(cases),
        training_cases=numbers["training"],
        validation_cases=numbers.get("validation", 0),
        rejected=rejected,
        finder=[finder.line()],
    )


def _start_weights(source: BundleFolder, start_from: Path) -> StartWeights:
    if source.is_classifier:
        raise UsageError(
            f"{source.name} classifies and --start-from is for label maps; expected --set transfer=finetune and "
            "--set pretrained=FILE."
        )
    return find_start_weights(start_from)


def _start_lines(copy: BundleFolder) -> list[str]:
    path = copy.root / START_REPORT
    return StartReport.from_json(read_json(path)).lines() if path.is_file() else []


def _check(copy: BundleFolder, list_file: Path, check: DataCheck, cache_dir: Path | None) -> CheckedList:
    """Check the data; what was read is kept beside the cache that folds and seeds share."""
    if check.facts_file is None and cache_dir is not None:
        check = replace(check, facts_file=cache_dir / FACTS)
    return check_list(list_file, copy.root / "training", check, bundle=copy)


def _settings(
    copy: BundleFolder,
    fold: int,
    epochs: int | None,
    max_minutes: float | None,
    seed: int | None,
    precision: str,
    compiled: bool,
    resumed: bool,
) -> TrainingSettings:
    path = copy.root / SETTINGS
    if resumed:
        return _begun_settings(path, fold=fold, epochs=epochs, seed=seed)
    config = read_json(copy.config("train"))
    choice: Mapping[str, Any] = {"precision": precision, "channels_last": precision == "bfloat16"}
    seconds_per_iteration = None
    if precision == "auto" or max_minutes is not None:
        measured = _measure(copy, compiled)
        seconds_per_iteration = measured.seconds_per_iteration
        if precision == "auto":
            choice = measured.as_dict()
    if max_minutes is not None and epochs is None:
        epochs = _epochs_for(
            max_minutes, float(seconds_per_iteration or 1.0) * int(config["iterations_per_epoch"])
        )
    settings = TrainingSettings(
        fold=fold,
        epochs=int(config["train"]["trainer"]["max_epochs"] if epochs is None else epochs),
        seed=int(config["seed"] if seed is None else seed),
        precision=str(choice["precision"]),
        channels_last=bool(choice["channels_last"]),
        compiled=compiled,
    )
    record = asdict(settings) | {"precision_trial": choice.get("trial")}
    write_text(path, json.dumps(record, indent=2) + "\n")
    return settings


def _begun_settings(path: Path, **asked: int | None) -> TrainingSettings:
    begun = read_json(path)
    begun.pop("precision_trial", None)
    for name, value in asked.items():
        if value is not None and value != begun[name]:
            raise BundleError(
                f"The run in this folder was begun with {name} {begun[name]}, not {value}; expected the same to "
                f"resume. Leave the option away, or train into another --out."
            )
    return TrainingSettings(**begun)


def _measure(copy: BundleFolder, compiled: bool) -> Any:
    from medimg3d.bundle.code_path import bundle_code
    from medimg3d.bundle.parser import parse_config, telling_training_errors
    from medimg3d.engines.precision_trial import PRECISIONS, try_precisions

    with telling_training_errors("train"):
        parser = parse_config(copy, ["train"])
        with bundle_code(copy.root):
            network = parser.get_parsed_content("network_def")
        channels = int(copy.metadata["network_data_format"]["inputs"]["image"]["num_channels"])
        size = parser["patch_size" if "patch_size" in parser else "image_size"]
        shape = (int(parser["batch_size"]), channels, *size)
        device = parser.get_parsed_content("device")
        # compiled for a CPU, bfloat16 gave a loss of NaN (torch 2.13)
        precisions = ("float32",) if compiled and device.type == "cpu" else PRECISIONS
        return try_precisions(network, shape, device, precisions=precisions)


def _epochs_for(max_minutes: float, seconds_per_epoch: float) -> int:
    overhead = 1.25  # loading, loss, optimizer, validation
    return max(1, math.floor(max_minutes * 60 / (overhead * seconds_per_epoch)))


def _watched_at_the_end(
    copy: BundleFolder, settings: TrainingSettings, overrides: Mapping[str, Any]
) -> dict[str, Any]:
    """A run that is shorter than the interval at which it is watched is watched once, after its last epoch."""
    interval = read_json(copy.config("train")).get("val_interval")
    if "val_interval" in overrides or not isinstance(interval, int):
        return {}
    return {"val_interval": min(interval, settings.epochs)}


def _recipe_values(settings: TrainingSettings) -> dict[str, Any]:
    return {"fold": settings.fold, "seed": settings.seed, "train#trainer#max_epochs": settings.epochs}


def _run(
    copy: BundleFolder,
    list_file: Path,
    settings: TrainingSettings,
    options: Mapping[str, Any],
    tracking: str | None,
) -> None:
    from medimg3d.bundle.parser import run_training
    from medimg3d.engines.heap import keep_freed_memory

    keep_freed_memory()
    structures = [name for value, name in sorted(copy.class_names.items()) if value > 0]
    run_training(
        copy,
        {
            **({} if copy.is_classifier else {"class_names": structures}),
            "dataset_dir": str(list_file.parent),
            "datalist_file": str(list_file),
            "output_dir": str(copy.root / "training"),
            "ckpt_dir": str(copy.root / WEIGHTS.parent),
            "precision": settings.precision,
            "channels_last": settings.channels_last,
            "compiled": settings.compiled,
            "settings": asdict(settings),
            **options,
        },
        tracking=tracking,
    )


def _finish(
    copy: BundleFolder, cases: list[dict[str, Any]], settings: TrainingSettings, found: list[str]
) -> TrainingResult:
    record = read_json(copy.root / TRAINING_CASES)
    record["weights_sha256"] = content_sha256(copy.root / WEIGHTS)
    write_text(copy.root / TRAINING_CASES, json.dumps(record, indent=1) + "\n")
    history = read_history(copy.root / HISTORY)
    _draw_history(copy, history)
    config = read_json(copy.config("train"))
    held_out = select_fold(
        cases, fold=settings.fold, part="validation", num_folds=config["num_folds"], seed=config["fold_seed"]
    )
    result = TrainingResult(
        bundle=copy.root,
        settings=settings,
        history=history,
        split_by=record["split_by"],
        training_cases=sum("from" not in case for case in record["cases"]),
        validation_cases=0 if settings.fold == ALL_CASES else len(held_out),
        start=_start_lines(copy) + _seen_before(record, held_out, settings.fold),
        finder=found or _finder_lines(copy, settings.fold),
    )
    write_text(copy.root / "docs" / "README.md", _card(copy, result))
    return result


def _finder_lines(copy: BundleFolder, fold: int) -> list[str]:
    """What stands of a finder that was trained before."""
    if not has_finder(copy):
        return []
    from medimg3d.workflows.train_finder import RECALL, read_recalls, recall_line

    if not (copy.root / RECALL).is_file():
        return [
            "The region finder is not trained yet, which prediction needs: medimg3d train --stage finder."
        ]
    return [recall_line(read_recalls(copy), held_out=fold != ALL_CASES)]


def _seen_before(record: Mapping[str, Any], held_out: list[dict[str, Any]], fold: int) -> list[str]:
    """A warning where the weights that a training began with had seen what it holds out."""
    earlier = {case["name"] for case in record["cases"] if "from" in case}
    seen = [] if fold == ALL_CASES else [case for case in held_out if case_name(case) in earlier]
    if not seen:
        return []
    return [
        f"Warning: the weights it began with were trained on {len(seen)} of {len(held_out)} held-out cases (by name): "
        "figures on these flatter."
    ]


def _draw_history(copy: BundleFolder, history: list[dict[str, float]]) -> None:
    path = copy.root / "training" / "history.png"
    if copy.is_classifier:
        from medimg3d.report.classification_figures import classification_history_plot

        classification_history_plot(history, path)
    else:
        from medimg3d.report.figures import history_plot

        history_plot(history, path)


def _card(copy: BundleFolder, result: TrainingResult) -> str:
    settings = result.settings
    held_out = (
        "no case was held out" if settings.fold == ALL_CASES else f"{result.validation_cases} were held out"
    )
    return (
        f"# {copy.metadata.get('name', copy.name)}: weights of one's own\n\n"
        f"Made by `medimg3d train` from a bundle's recipe (`configs/train.json`, version {copy.version}).\n\n"
        f"- Trained on {result.training_cases} cases; {held_out} (fold {settings.fold}, split by {result.split_by}).\n"
        f"- {settings.epochs} epochs, seed {settings.seed}, {settings.precision}.\n"
        f"{''.join(f'- {line}' + chr(10) for line in [*result.start, *result.finder])}"
        "- The cases are named with their hashes in `models/training_cases.json`; the history is in "
        "`training/history.csv`.\n"
        "- No figure stands here yet: predict the held-out cases and run `medimg3d evaluate`.\n"
        "- State the licence of your data in `docs/data_license.txt` before you share the weights.\n\n"
        "Software for research; not for diagnosis.\n"
    )
