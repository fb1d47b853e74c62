"""From a labelled data set to a bundle for it: check, fingerprint, decide, fit to the memory, write."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from medimg3d.atomic import write_text
from medimg3d.bundle.carried_code import write_carried_code
from medimg3d.bundle.finder import FINDER_CONFIG
from medimg3d.bundle.folder import WEIGHTS, format_json
from medimg3d.data.datalist import Datalist
from medimg3d.data.datalist_file import load_datalist
from medimg3d.data.folds import case_name
from medimg3d.data.json_file import is_int
from medimg3d.data.training_record import read_json
from medimg3d.errors import BundleError, DataError, UsageError
from medimg3d.planning.bundle_files import bundle_files
from medimg3d.planning.data_facts import gather_facts
from medimg3d.planning.decision import Decision
from medimg3d.planning.estimate import estimate_gb, weights_mb
from medimg3d.planning.finder_configs import finder_plan
from medimg3d.planning.fingerprint import CasePrint, Progress, fingerprint_cases, readable
from medimg3d.planning.fit import AIM, fit, network_of
from medimg3d.planning.label_scheme import LabelGapError, ignored_value
from medimg3d.planning.networks import has_own_depth
from medimg3d.planning.pages import data_json
from medimg3d.planning.plan import Plan
from medimg3d.planning.planner import choose_finder, draft_plan, may_have_finder
from medimg3d.planning.settings import PlanSettings, with_values
from medimg3d.planning.trainable import refuse_untrainable
from medimg3d.planning.trial import LOADING_GB, Measured, measure
from medimg3d.workflows.data_check import DataCheck, check_list
from medimg3d.workflows.training_copy import read_training_list

PLAN = Path("docs") / "plan.json"
WORK = ".plan"
"""Folder in the bundle for fingerprints and the check's files; ``medimg3d train`` does not copy it."""

ZOO_MB = 25.0
"""Size above which a file is large for a model zoo."""

SIZES = ("patch_size", "image_size", "batch_size", "width", "windows_per_batch")
LENGTHS = ("iterations_per_epoch", "epochs")

# What a decided value depends on: where one of these is asked for anew, it is decided anew, too.
DEPENDS: Mapping[str, tuple[str, ...]] = {
    "task": (
        "finder",
        "network",
        "spacing_mm",
        "dimension",
        "mirror_axes",
        "learning_rate",
        "weight_decay",
        *SIZES,
        *LENGTHS,
    ),
    "dimension": ("finder", "mirror_axes", *SIZES, *LENGTHS),
    "network": ("finder", "dimension", "mirror_axes", "learning_rate", *SIZES, *LENGTHS),
    "spacing_mm": ("finder", "dimension", "mirror_axes", *SIZES, *LENGTHS),
    "patch_size": ("finder", "batch_size", "windows_per_batch", *LENGTHS),
    "image_size": ("batch_size", *LENGTHS),
    "width": ("batch_size", "windows_per_batch", *LENGTHS),
    "max_poolings": (*SIZES, *LENGTHS),
    "memory_gb": ("finder", *SIZES, *LENGTHS),
    "device": ("finder", *SIZES, *LENGTHS),
    "finder": (*SIZES, *LENGTHS),
    "finder_margin_mm": (*SIZES, *LENGTHS),
    "batch_size": LENGTHS,
    "num_folds": LENGTHS,
    "iterations_per_epoch": ("epochs",),
}


@dataclass(frozen=True)
class PlanResult:
    """A planned bundle.

    Attributes:
        bundle: Its folder.
        plan: The plan.
        rejected: Cases that were left out, with the reason.
    """

    bundle: Path
    plan: Plan
    rejected: dict[str, str]

    def summary(self) -> dict[str, Any]:
        """For ``--json``."""
        decisions = {one.name: one.value for one in self.plan.decisions}
        measured = self.plan.measured[-1] if self.plan.measured else None
        return {
            "bundle": str(self.bundle),
            "decisions": decisions,
            "measured": measured,
            "notes": list(self.plan.notes),
            "rejected": self.rejected,
        }


def plan_bundle(
    datalist: Path,
    out: Path,
    settings: Mapping[str, Any] | None = None,
    *,
    resume: bool = False,
    cache: Path | None = None,
    workers: int | None = None,
    check: DataCheck | None = DataCheck(),
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> PlanResult:
    """Plan a bundle for a labelled data set.

    Writes ``configs/``, the carried code, ``LICENSE`` and ``docs/`` with ``plan.md`` (for people) and ``plan.json``
    (for a second plan). Images that were read once are not read again.

    Args:
        datalist: The datalist.
        out: Folder of the bundle; its name becomes part of a Python package's name.
        settings: Values of :class:`medimg3d.planning.settings.PlanSettings`; the rest is decided.
        resume: Plan again in a folder that holds a plan: what it decided is kept, but for what is asked for
            differently now and what depends on that.
        cache: Folder of the fingerprints; in the bundle if None.
        workers: Processes that read; by default one a processor.
        check: How files are checked before anything else; None to go unchecked.
        progress: Called with the numbers of cases read and of all cases.
        say: Told about each trial.

    Returns:
        The plan, and where it lies.

    Raises:
        UsageError: ``out`` holds something already, or a setting that cannot be.
        RefusedDataError: The check refuses cases.
        DataError: The data allow no plan, or none fits the memory.
    """
    out = out.resolve()
    earlier = _earlier_plan(out, resume=resume)
    given, merged = _merge(earlier.get("given", {}), earlier.get("decided", {}), dict(settings or {}))
    final = with_values(PlanSettings(), _here() | merged)
    list_file, rejected = datalist.resolve(), {}
    if not list_file.is_file():
        raise UsageError(
            f"Found no {datalist}; expected a datalist. Make one with `medimg3d datalist FOLDER --out FILE`."
        )
    if check is not None:
        checked = check_list(list_file, out / WORK, check)
        list_file, rejected = checked.list_file, checked.report.rejected
    listed = load_datalist(list_file)
    prints = fingerprint_cases(
        listed,
        cache or out / WORK / "fingerprint",
        workers=workers,
        ignore_label=ignored_value(listed),
        progress=progress,
    )
    broken = [one for one in prints if one.problem and one.section == "training"]
    if broken:
        raise DataError(
            f"{len(broken)} training cases cannot be read; the first, {broken[0].name}: {broken[0].problem}. Mend it, "
            "or leave it out of the datalist."
        )
    if earlier and _are_other_data(readable(prints), listed, earlier):
        say("The data are not those of the earlier plan: what was not asked for is decided anew.")
        earlier = {"given": earlier.get("given", {})}
        given, merged = _merge(earlier["given"], {}, dict(settings or {}))
        final = with_values(PlanSettings(), _here() | merged)
    draft = _draft(readable(prints), listed, final)
    refuse_untrainable(draft, listed)
    _refuse_unread_keys(datalist, draft)
    plan = _fitted(draft, out.name, say)
    plan = replace(_with_earlier_reasons(plan, earlier), given=given)
    _write(out, plan, licence=listed.licence)
    return PlanResult(out, plan, rejected)


def _draft(prints: Sequence[CasePrint], listed: Datalist, settings: PlanSettings) -> Plan:
    """The plan before its memory was measured.

    Raises:
        LabelGapError: With the cases that hold the values after the gap.
    """
    try:
        return draft_plan(gather_facts(prints, listed), listed, settings)
    except LabelGapError as err:
        training = [one for one in prints if one.section == "training"]
        holders = {value: [one.name for one in training if value in one.voxels] for value in err.stray}
        raise LabelGapError(err.values, holders) from err


def _refuse_unread_keys(list_file: Path, plan: Plan) -> None:
    """Refuse a datalist in a form that a plan understands and a training, which reads the file as it stands, does not.

    Raises:
        DataError: A class under ``label``, or ``labels`` in another form than value to name.
    """
    again = f"`medimg3d datalist {list_file} --out FILE` writes what it reads; plan from FILE."
    cases = read_json(list_file)["training"]
    numbered = [case_name(case) for case in cases if is_int(case.get("label"))]
    if numbered and not plan.is_segmentation:
        raise DataError(
            f'{len(numbered)} of {len(cases)} training cases have their class under "label" (first: {numbered[0]}); '
            f'expected it under "class_label", where a training looks for it. {again}'
        )
    try:
        read_training_list(list_file, of_classes=not plan.is_segmentation)
    except DataError as err:
        raise DataError(f"A training would refuse this datalist: {err} {again}") from err


def _are_other_data(prints: Sequence[CasePrint], listed: Datalist, earlier: Mapping[str, Any]) -> bool:
    """Whether cases, sizes or labels are not those that an earlier plan was made from."""
    try:
        now = data_json(gather_facts(prints, listed))
    except LabelGapError:
        return True
    return bool(json.loads(json.dumps(now)) != earlier.get("data"))


def _with_earlier_reasons(plan: Plan, earlier: Mapping[str, Any]) -> Plan:
    """A decision that came out as in an earlier plan keeps the reason that it had there."""
    reasons = {one["name"]: (one["value"], one["reason"]) for one in earlier.get("decisions", [])}
    decisions = []
    for one in plan.decisions:
        value, reason = reasons.get(one.name, (None, ""))
        is_kept = reason and value == json.loads(json.dumps(one.value))
        decisions.append(replace(one, reason=reason) if is_kept else one)
    return replace(plan, decisions=tuple(decisions))


def _earlier_plan(out: Path, *, resume: bool) -> dict[str, Any]:
    """``plan.json`` of the folder; empty without one.

    Raises:
        UsageError: The folder's name is none for a package, or it holds a plan or a bundle and ``resume`` is not set.
    """
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", out.name):
        raise UsageError(
            f"--out ends in {out.name!r}; expected a name of letters, digits and _, since the bundle's own code "
            "carries it."
        )
    earlier = read_json(out / PLAN)
    if (out / WEIGHTS).exists():
        raise UsageError(
            f"{out} holds weights; expected another folder, so that they keep the configs they were trained by."
        )
    if not resume and (out / "configs").exists():
        raise UsageError(
            f"{out} holds a bundle already; expected an empty folder. Add --resume to plan again and keep what was "
            "decided, or choose another --out."
        )
    return earlier


def _merge(
    given: Mapping[str, Any], decided: Mapping[str, Any], asked: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What was ever asked for, and the settings of this plan: asked now, else asked earlier, else decided earlier.

    What depends on a value that is asked for anew is decided anew. Sizes go even where they were asked for.
    """
    given = {key: value for key, value in given.items() if key != "trial"}  # of one run
    changed = {
        key for key, value in asked.items() if _plain(given.get(key, decided.get(key))) != _plain(value)
    }
    stale = {dependent for key in changed for dependent in DEPENDS.get(key, ())} - set(asked)
    kept = {key: value for key, value in given.items() if key not in stale or key not in SIZES}
    given_now = {**kept, **{key: _plain(value) for key, value in asked.items()}}
    rest = {key: value for key, value in decided.items() if key not in stale}
    return given_now, {**rest, **given_now}


def _here() -> dict[str, Any]:
    """Where it will train, unless something else is asked for: on this machine's GPU, if it has one."""
    import torch

    return {"device": "cuda" if torch.cuda.is_available() else "cpu"}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _fitted(draft: Plan, name: str, say: Callable[[str], None]) -> Plan:
    settings = draft.settings
    limit, why = _limit(settings)

    def estimated(plan: Plan) -> float:
        shape = (plan.batch_size, len(plan.facts.channels), *plan.topology.patch)
        step = estimate_gb(network_of(plan), shape, num_classes=len(plan.output_names))
        return step + (LOADING_GB * settings.num_workers if settings.device == "cpu" else 0.0)

    def measured(plan: Plan, config: str = "train") -> Measured:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder) / name
            _write(root, plan, licence="")
            return measure(root, device=settings.device, config=config)

    fitted = partial(fit, limit_gb=limit, estimate=estimated, fill=settings.memory_gb is not None)
    if draft.is_segmentation:
        sized = fitted(draft, measure=None, say=lambda _: None) if may_have_finder(draft) else draft
        draft = choose_finder(draft, sized, fits=lambda plan: estimated(finder_plan(plan)) <= AIM * limit)
    plan = fitted(draft, measure=measured if settings.trial else None, say=say)
    if plan.finder is not None and settings.trial:
        plan = _with_measured_finder(plan, limit, partial(measured, config=FINDER_CONFIG), say)
    plan = plan.decided(
        Decision("memory", f"at most {limit:.3g} GB on {settings.device}", why, "--memory-gb")
    )
    size_mb = weights_mb(network_of(plan), num_classes=len(plan.output_names))
    validated_gb = max(
        plan.largest_image_gb or 0.0, plan.measured[-1]["validate_gb"] or 0.0 if plan.measured else 0.0
    )
    if validated_gb > limit:
        plan = plan.noted(_large_images(validated_gb, limit))
    elif plan.largest_inverted_gb is not None and plan.largest_inverted_gb > limit:
        plan = plan.noted(_large_inverted(plan.largest_inverted_gb, limit))
    return plan if size_mb <= ZOO_MB else plan.noted(_large_weights(plan, size_mb))


def _with_measured_finder(
    plan: Plan, limit_gb: float, measured: Callable[[Plan], Measured], say: Callable[[str], None]
) -> Plan:
    """The plan with what the training of its finder needs; smaller batches until that fits.

    Raises:
        DataError: Not even one patch at once fits.
    """
    while True:
        finder = plan.finder
        assert finder is not None
        found = measured(plan)
        needs = found.train_gb
        patch = " x ".join(map(str, finder.topology.patch))
        shown = found.problem if needs is None else f"{needs:.2f} GB in training"
        say(f"region finder, patch {patch}, batch {finder.batch_size}: {shown}")
        if needs is not None and needs <= limit_gb:
            return replace(plan, finder=replace(finder, train_gb=needs))
        if finder.batch_size == 1:
            raise DataError(
                f"Even a region finder on patches of {patch}, one at once, {shown}, more than {limit_gb:.3g} GB. Give "
                "more --memory-gb, or --finder no."
            )
        plan = replace(plan, finder=replace(finder, batch_size=finder.batch_size // 2))


def _large_images(needed_gb: float, limit_gb: float) -> str:
    return (
        f"The largest image with all its classes will take about {needed_gb:.2g} GB while it is validated (and in "
        f"inference by stock MONAI), more than {limit_gb:.3g} GB. Cut it, choose a coarser --spacing, or train without "
        "validation (medimg3d train --set val_interval=N, N above the epochs); medimg3d predict works block by block."
    )


def _large_inverted(needed_gb: float, limit_gb: float) -> str:
    return (
        f"Evaluation and inference by stock MONAI will take about {needed_gb:.2g} GB for the largest image, as they "
        f"bring all classes back onto the file's own voxels, more than {limit_gb:.3g} GB. medimg3d predict works block "
        "by block."
    )


def _large_weights(plan: Plan, size_mb: float) -> str:
    ways = ["a smaller width (--set width=N)"] if plan.is_segmentation or plan.network_axes == 3 else []
    if plan.is_segmentation and not has_own_depth(plan.network):
        ways.append("fewer halvings (--set max_poolings=N)")
    ways.append("storing them in half precision")
    return (
        f"The weights will be about {size_mb:.0f} MB, more than the {ZOO_MB:g} MB that files of model zoos should "
        f"have. What makes them smaller: {', or '.join(ways)}."
    )


def _limit(settings: PlanSettings) -> tuple[float, str]:
    """Memory that the plan may use, in GB, and why."""
    import torch

    is_away = settings.device == "cuda" and not torch.cuda.is_available()
    if is_away and (settings.memory_gb is None or settings.trial):
        raise UsageError(
            "Found no CUDA device; expected one for --device cuda. Plan with --device cpu, or for another machine's "
            "GPU with --memory-gb N --no-trial."
        )
    if settings.memory_gb is not None:
        return settings.memory_gb, "As asked for: patch, then batch, then filters grow until it is used."
    if settings.device == "cuda":
        return torch.cuda.get_device_properties(0).total_memory / 1e9 * 0.9, "Nine tenths of the GPU."
    return (
        _machine_gb() / 2,
        "Half of this machine's memory, as an upper limit; the size follows the data and the time a step takes.",
    )


def _machine_gb() -> float:
    import os

    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    except (AttributeError, ValueError, OSError):  # no POSIX
        return 8.0


def _write(out: Path, plan: Plan, *, licence: str) -> None:
    shutil.rmtree(out / f"medimg3d_{out.name}", ignore_errors=True)
    (out / "configs" / f"{FINDER_CONFIG}.json").unlink(missing_ok=True)
    for path, text in bundle_files(plan, out.name, licence=licence, as_json=format_json).items():
        write_text(out / path, text)
    try:
        write_carried_code(out)
    except OSError as err:
        raise BundleError(
            f"The bundle's own code cannot be written to {out} ({type(err).__name__})."
        ) from err
