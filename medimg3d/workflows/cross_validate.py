"""Cross-validation of a bundle's recipe: train each fold, predict what it held out, pool the scores."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from medimg3d.atomic import write_text
from medimg3d.bundle.folder import BundleFolder, read_json
from medimg3d.bundle.inference import channel_names
from medimg3d.data.channel_inputs import find_case_inputs
from medimg3d.data.folds import assign_folds, case_name, select_fold
from medimg3d.data.inputs import InputFile
from medimg3d.data.json_file import write_json
from medimg3d.data.label_regions import LabelRegions
from medimg3d.errors import BundleError, DataError, UsageError
from medimg3d.workflows.cross_validation_folder import (
    LABEL_HASHES,
    SUMMARY,
    begin_folder,
    begun_with,
    is_scored,
    is_trained,
    label_hashes,
    refuse_other_beginning,
    refuse_other_training,
    with_epochs_of,
)
from medimg3d.workflows.data_check import DataCheck, check_list
from medimg3d.workflows.evaluate import evaluate
from medimg3d.workflows.held_out_softmax import write_softmax
from medimg3d.workflows.jobs import Job
from medimg3d.workflows.predict import predict
from medimg3d.workflows.ray_jobs import RayCluster, ray_jobs
from medimg3d.workflows.train import train
from medimg3d.workflows.training_copy import (
    CHECKPOINT,
    count_folds,
    find_datalist,
    read_training_list,
    refuse_ensemble,
)

TIMES = Path("training") / "times.json"
POOLED = "cross_validation"
_MEANING = ("labels", "regions", "ignore_label", "voxel_size")  # keys of a datalist that scores depend on
_OWN_NAME = "own_name"
_PATHS = ("cache_dir", "start_from")  # options of a training

Say = Callable[[str], None]


@dataclass(frozen=True)
class CrossValidation:
    """Scores of cases that the weights which predicted them had not seen.

    Args:
        out: Folder with the trained folds and what they held out.
        table: Markdown table: Dice of each fold and of all folds pooled, with intervals.
        folds: Fold → content of its ``summary.json``.
        pooled: Content of the pooled ``summary.json``.
        rejected: Cases of the datalist that were left out, or could not be scored, with the reason.
        failed: Folds that another machine could not finish, with the reason; nothing is pooled then.
    """

    out: Path
    table: str
    folds: dict[int, dict[str, Any]]
    pooled: dict[str, Any]
    rejected: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class BegunFolds:
    """A cross-validation whose data are checked and whose folder is begun; made by :func:`begin_folds`.

    Attributes:
        bundle: The bundle whose recipe is judged.
        out: Folder of the cross-validation.
        list_file: The checked datalist.
        folds: Which folds to run.
        softmax: Keep the class probabilities of the held-out cases.
        training: Options of :func:`medimg3d.workflows.train.train`.
        rejected: Cases of the datalist that were left out, with the reason.
    """

    bundle: Path
    out: Path
    list_file: Path
    folds: tuple[int, ...]
    softmax: bool
    training: Mapping[str, Any]
    rejected: dict[str, str]

    def jobs(self, prefix: str = "") -> list[Job]:
        """A job for each fold that is not whole, named ``<prefix>fold_<k>``."""
        options = with_epochs_of(self.out, self.folds, self.training)
        return [
            fold_job(
                self.bundle,
                self.out,
                self.list_file,
                fold,
                softmax=self.softmax,
                prefix=prefix,
                **options,
            )
            for fold in self.folds
            if self.softmax or not is_scored(self.out / f"fold_{fold}")
        ]

    def run(self, fold: int, say: Say) -> None:
        """Run one fold here; what is there already is kept."""
        options = with_epochs_of(self.out, self.folds, self.training)
        folder = self.out / f"fold_{fold}"
        _run_fold(self.bundle, folder, self.list_file, fold, self.softmax, options, say)

    def finish(self, failed: Mapping[str, str]) -> CrossValidation:
        """Pool the folds and write the table; nothing is pooled where one failed.

        Args:
            failed: Name of a fold (``fold_<k>``) → why it is not there.
        """
        summaries = {
            fold: read_json(self.out / f"fold_{fold}" / SUMMARY)
            for fold in self.folds
            if f"fold_{fold}" not in failed
        }
        if failed:
            return CrossValidation(self.out, "", summaries, {}, self.rejected, dict(failed))
        pooled = _pool(self.out, self.folds)
        table = format_table(summaries, pooled) + _seen_line(summaries)
        write_text(self.out / "cross_validation.md", table)
        unscored = {name: f"not scored: {reason}" for name, reason in pooled["rejected"].items()}
        return CrossValidation(self.out, table, summaries, pooled, self.rejected | unscored)


def cross_validate(
    bundle: Path,
    *,
    out: Path,
    folds: Sequence[int] | None = None,
    dataset_dir: Path | None = None,
    datalist: Path | None = None,
    softmax: bool = False,
    check: DataCheck | None = DataCheck(),
    cluster: RayCluster | None = None,
    say: Say = lambda _: None,
    **training: Any,
) -> CrossValidation:
    """Train, predict and score fold after fold; a second run goes on where the first one stopped.

    The recipe has a fixed length and nothing is chosen on the held-out cases, so that their scores are those
    of a test.

    Args:
        bundle: The bundle whose recipe is judged.
        out: Gets ``fold_<k>/`` (a trained bundle each, with its predictions in ``held_out/``),
            ``cross_validation/``, the table and ``cross_validation.json``.
        folds: Which folds to run, all that hold cases if None; folds that ``out`` holds already are kept.
        dataset_dir: Decathlon root.
        datalist: Datalist file instead.
        softmax: Keep the class probabilities of the held-out cases too (``held_out/softmax/<case>.npz``, float16,
            compressed): ``medimg3d ensemble`` needs them to combine configurations and to know how unsure is unusual.
        check: How images and label maps are checked before the first fold; None to go unchecked.
        cluster: Run the folds as jobs of a Ray cluster, each begun again where its machine dies; bundle, images and
            ``out`` must lie where all machines see them under the same path. Here, one after the other, if None.
        say: Called with a line as a step begins.
        **training: Passed on to :func:`medimg3d.workflows.train.train` (``epochs``, ``seed``, ``compiled``, …). With
            ``max_minutes`` the first fold chooses the epochs of all.

    Returns:
        The table and the summaries.

    Raises:
        UsageError: No fold was asked for, or one without cases, the bundle is a classifier, ``out`` was begun with
            something else, a cluster and ``max_minutes`` were asked for, or the probabilities of overlapping regions.
        RefusedDataError: The check refuses cases (see :func:`medimg3d.workflows.data_check.check_list`).
        DataError: The datalist has fewer patients (cases) than folds.
        BundleError: Held-out cases could not be predicted.
    """
    if cluster is not None and training.get("max_minutes") is not None:
        raise UsageError(
            "--minutes measures one machine, and the folds run on several; give the length with --epochs."
        )
    begun = begin_folds(
        bundle,
        out=out,
        folds=folds,
        list_file=find_datalist(dataset_dir, datalist),
        softmax=softmax,
        check=check,
        **training,
    )
    failed: dict[str, str] = {}
    if cluster is not None:
        with ray_jobs(cluster) as ray:
            outcomes = ray.run(begun.jobs(), out / "jobs", say=say)
        failed = {outcome.name: outcome.reason for outcome in outcomes if not outcome.is_done}
    else:
        for fold in begun.folds:
            begun.run(fold, say)
    return begun.finish(failed)


def begin_folds(
    bundle: Path,
    *,
    out: Path,
    folds: Sequence[int] | None,
    list_file: Path,
    softmax: bool = False,
    check: DataCheck | None = DataCheck(),
    **training: Any,
) -> BegunFolds:
    """Check the data and begin the folder of a cross-validation; nothing is trained yet.

    Args:
        bundle: The bundle whose recipe is judged.
        out: As for :func:`cross_validate`.
        folds: Which folds to run; all that hold cases if None.
        list_file: The datalist.
        softmax: Keep the class probabilities of the held-out cases.
        check: How the data are checked; None to go unchecked.
        **training: As for :func:`cross_validate`.

    Raises:
        UsageError: No fold was asked for, one twice or one without cases, the bundle is a classifier, ``out`` was
            begun with something else, or the probabilities of overlapping regions were asked for.
        RefusedDataError: The check refuses cases.
        DataError: The datalist has fewer patients (cases) than folds.
    """
    if folds is not None and not folds:
        raise UsageError("No fold was asked for; expected at least one, for example --folds 0,1.")
    source = BundleFolder(bundle)
    refuse_ensemble(source)
    if source.is_classifier:
        raise UsageError(
            "Cross-validation is of label maps, and this bundle is a classifier; train its folds one by one."
        )
    if softmax and source.metadata.get("regions"):
        raise UsageError(
            "--softmax keeps probabilities of classes that exclude each other, and this bundle has overlapping "
            "regions; leave it away."
        )
    rejected: dict[str, str] = {}
    if check is not None:  # once for all folds; what is dropped is neither trained on nor scored
        checked = check_list(list_file, out, check, bundle=source)
        list_file, rejected = checked.list_file.resolve(), checked.report.rejected
    filled = folds_with_cases(
        source, list_file, overlay=training.get("overlay"), overrides=training.get("overrides")
    )
    folds = filled if folds is None else folds
    _refuse_other_folds(folds, filled, list_file)
    settings = begun_with(bundle, list_file, training)
    refuse_other_beginning(out, settings)
    for fold in folds:
        if is_trained(out / f"fold_{fold}"):
            refuse_other_training(source, out / f"fold_{fold}", list_file, fold, training)
    begin_folder(out, settings, by_minutes=training.get("max_minutes") is not None)
    return BegunFolds(bundle, out, list_file, tuple(folds), softmax, training, rejected)


def folds_with_cases(
    bundle: BundleFolder,
    list_file: Path,
    *,
    overlay: str | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> list[int]:
    """The folds that hold cases, dealt out as a training deals them.

    Args:
        bundle: The bundle whose recipe is followed.
        list_file: The datalist.
        overlay: The variant that the training asks for.
        overrides: Values of ``train.json`` by id that the training asks for.

    Returns:
        The folds, in their order.

    Raises:
        DataError: It is no datalist, has fewer patients (cases) than folds, or a case carries a fold beyond them.
    """
    variant = read_json(bundle.config(overlay)) if overlay else {}
    training_list = read_training_list(
        list_file, of_classes=bundle.is_classifier, class_names=variant.get("class_names")
    )
    recipe = read_json(bundle.config("train")) | {"num_folds": count_folds(bundle, training_list)}
    if "seed" in training_list.split:
        recipe["fold_seed"] = training_list.split["seed"]
    recipe |= variant | dict(overrides or {})
    num_folds, seed = int(recipe["num_folds"]), int(recipe["fold_seed"])
    try:
        return sorted(set(assign_folds(training_list.cases, num_folds=num_folds, seed=seed)))
    except ValueError as err:
        raise DataError(f"{err} Make the datalist anew with medimg3d datalist --num-folds.") from err


def _refuse_other_folds(folds: Sequence[int], filled: Sequence[int], list_file: Path) -> None:
    for fold, times in Counter(folds).items():
        if fold not in filled:
            raise UsageError(
                f"{list_file.name} has no case in fold {fold}; expected folds among {', '.join(map(str, filled))}. "
                "Ask for those, or make the datalist anew with medimg3d datalist --num-folds."
            )
        if times > 1:
            raise UsageError(
                f"Fold {fold} was asked for {times} times; expected once. Leave the others away."
            )


def _run_fold(
    bundle: Path,
    folder: Path,
    list_file: Path,
    fold: int,
    softmax: bool,
    training: Mapping[str, Any],
    say: Say,
) -> None:
    """Train a fold, predict and score what it held out; what is there already is kept."""
    if not is_trained(folder):
        say(f"Fold {fold}: training")
        resumed, started = (folder / CHECKPOINT).is_file(), time.monotonic()
        trained = train(
            bundle, out=folder, datalist=list_file, fold=fold, resume=True, check=None, **training
        )
        seconds = round(time.monotonic() - started, 1)
        write_json({"training_s": seconds, "resumed": resumed}, folder / TIMES)
        for line in trained.start:
            say(line)
    if not is_scored(folder):
        say(f"Fold {fold}: predicting and scoring the held-out cases")
        _score_held_out(folder, list_file, fold)
    if softmax:
        write_softmax(folder, _held_out_images(folder), folder / "held_out" / "softmax", say=say)


def fold_job(
    bundle: Path,
    out: Path,
    list_file: Path,
    fold: int,
    *,
    softmax: bool = False,
    prefix: str = "",
    **training: Any,
) -> Job:
    """The job of one fold: :func:`run_fold_job` on any machine.

    Args:
        bundle: The bundle whose recipe is judged.
        out: Gets ``fold_<k>/``.
        list_file: The checked datalist.
        fold: The held-out fold.
        softmax: Keep the class probabilities of the held-out cases.
        prefix: Goes before the job's name, ``fold_<k>``.
        **training: Options of :func:`medimg3d.workflows.train.train`.
    """
    options = {
        name: str(value.resolve()) if isinstance(value, Path) else value
        for name, value in training.items()
        if value is not None and name != "progress"
    }
    arguments = {
        "bundle": str(bundle.resolve()),
        "folder": str((out / f"fold_{fold}").resolve()),
        "list_file": str(list_file.resolve()),
        "fold": fold,
        "softmax": softmax,
        "training": options,
    }
    return Job(f"{prefix}fold_{fold}", call=f"{__name__}:run_fold_job", arguments=arguments)


def run_fold_job(
    *, bundle: str, folder: str, list_file: str, fold: int, softmax: bool, training: dict[str, Any]
) -> None:
    """One fold, in a process of its own; begun again, it goes on where it was."""
    paths = {name: Path(training[name]) for name in _PATHS if name in training}
    options = training | paths | {"progress": False}
    say = partial(print, file=sys.stderr, flush=True)  # the job's log
    _run_fold(Path(bundle), Path(folder), Path(list_file), fold, softmax, options, say)


def _held_out_images(folder: Path) -> tuple[InputFile, ...]:
    listed = folder / "held_out" / "datalist.json"
    return find_case_inputs([listed], channels=channel_names(BundleFolder(folder)), section="training").images


def _score_held_out(folder: Path, list_file: Path, fold: int) -> None:
    held_out = _write_held_out(folder, list_file, fold)
    predictions = folder / "held_out" / "predictions"
    regions = LabelRegions.of(BundleFolder(folder).metadata.get("regions"))
    run = partial(
        predict,
        folder,
        [held_out],
        predictions,
        section="training",
        overlays=False,
        reports=False,
        region_masks=bool(regions and regions.lossy),
    )
    try:
        result = run(resume=True)
    except UsageError:  # begun with something else, on a GPU perhaps: all of the fold by one and the same
        result = run(resume=False)
    if result.rejected:
        name, reason = next(iter(result.rejected.items()))
        raise BundleError(
            f"{len(result.rejected)} held-out cases could not be predicted; the first: {name}: {reason}"
        )
    (folder / SUMMARY).unlink(missing_ok=True)
    write_json(label_hashes(folder), folder / LABEL_HASHES)
    evaluate(predictions, held_out, folder / "held_out", bundle=folder)


def _write_held_out(folder: Path, list_file: Path, fold: int) -> Path:
    """A datalist of the cases that a fold held out, with absolute paths."""
    content = json.loads(list_file.read_text(encoding="utf-8"))
    config = read_json(folder / "configs" / "train.json")
    named = _with_own_names(content["training"])
    values = {case[_OWN_NAME]: case.get("values") for case in named}  # with their gaps, as JSON has them
    cases = select_fold(
        named,
        fold=fold,
        part="validation",
        num_folds=config["num_folds"],
        seed=config["fold_seed"],
    )
    for case in cases:
        case["id"] = case.pop(_OWN_NAME)
        if case.get("values"):
            case["values"] = values[case["id"]]
        for key in ("image", "images", "label"):
            if key in case:
                case[key] = _below(list_file.parent, case[key])
    path = folder / "held_out" / "datalist.json"
    head = {key: content[key] for key in _MEANING if key in content}
    write_text(path, json.dumps({**head, "training": cases}, indent=1))
    return path


def _with_own_names(cases: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The cases with a name of their own each, beside the id, by which they are dealt into folds."""
    seen: Counter[str] = Counter()
    named = []
    for case in cases:
        name = case_name(case)
        seen[name] += 1
        named.append({**case, _OWN_NAME: name if seen[name] == 1 else f"{name}_{seen[name]}"})
    return named


def _below(folder: Path, path: Any) -> Any:
    """A path of a datalist, or several, from its folder on."""
    if isinstance(path, dict):
        return {name: _below(folder, one) for name, one in path.items()}
    return [_below(folder, one) for one in path] if isinstance(path, list) else str(folder / path)


def _pool(out: Path, folds: Sequence[int]) -> dict[str, Any]:
    """Score all held-out cases together, each predicted by the weights that had not seen it."""
    pool = out / POOLED
    (pool / "predictions").mkdir(parents=True, exist_ok=True)
    content: dict[str, Any] = {"training": []}
    for fold in folds:
        held_out = read_json(out / f"fold_{fold}" / "held_out" / "datalist.json")
        content = held_out | {"training": content["training"] + held_out["training"]}
        source = out / f"fold_{fold}" / "held_out" / "predictions"
        for path in (*source.glob("*_seg.nii.gz"), *source.glob("regions/*/*_seg.nii.gz")):
            target = pool / "predictions" / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)
    write_text(pool / "datalist.json", json.dumps(content, indent=1))
    regions = LabelRegions.of(BundleFolder(out / f"fold_{folds[0]}").metadata.get("regions"))
    return evaluate(
        pool / "predictions",
        pool / "datalist.json",
        pool,
        regions=regions,
        predicted="regions" if regions else "labels",
    ).summary


def format_table(folds: Mapping[int, Mapping[str, Any]], pooled: Mapping[str, Any]) -> str:
    """A Markdown table of mean Dice with 95 % bootstrap intervals.

    Args:
        folds: Fold → summary of its held-out cases.
        pooled: Summary of all of them.

    Returns:
        The table, a row a fold and one for the pooled cases.
    """
    names = list(pooled["classes"].values())
    lines = [
        "| fold | cases | " + " | ".join(f"Dice {name}" for name in names) + " |",
        "|---" * (len(names) + 2) + "|",
    ]
    for title, summary in [*((str(fold), summary) for fold, summary in folds.items()), ("pooled", pooled)]:
        cells = [_interval(summary["metrics"]["dice"][name]) for name in names]
        lines.append(f"| {title} | {summary['num_scored']} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _seen_line(folds: Mapping[int, Mapping[str, Any]]) -> str:
    """What the reader of the table must know of cases that a fold held out and had been trained on all the same."""
    seen = sorted(name for summary in folds.values() for name in summary["seen_in_training"]["cases"])
    if not seen:
        return ""
    return (
        f"\n**{len(seen)} held-out cases have an image that their fold was trained on** ({', '.join(seen[:5])}"
        f"{', …' if len(seen) > 5 else ''}): their scores are no test.\n"
    )


def _interval(figure: Mapping[str, Any]) -> str:
    if figure["mean"] is None:
        return ""
    if figure["low"] is None:
        return f"{figure['mean']:.4f}"
    return f"{figure['mean']:.4f} ({figure['low']:.4f} to {figure['high']:.4f})"
