"""A prediction of many cases, spread over the machines of a Ray cluster and put together into one folder.

Each shard is a prediction of its own, into a folder of its own below ``.shards/``, with a record of every case. When
the shards are done, their files move to where an undistributed run writes them, and one process writes the tables.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from glob import escape
from pathlib import Path
from typing import Any

from medimg3d.bundle.folder import BundleFolder, read_json
from medimg3d.bundle.inference import channel_names, read_facts
from medimg3d.data.inputs import FoundInputs, InputFile
from medimg3d.errors import UsageError
from medimg3d.workflows.finished_cases import FOLDER as FINISHED
from medimg3d.workflows.finished_cases import FinishedCases, begun_settings
from medimg3d.workflows.jobs import Job
from medimg3d.workflows.predict import PredictResult, find_images, predict, write_tables
from medimg3d.workflows.ray_jobs import JobOutcome, Progress, RayCluster, RayJobs, Say, ray_jobs

SHARDS = ".shards"
SHARDS_PER_SLOT = 2
"""So that a machine which is done early takes over from one that is late."""

_WRITTEN = ("overlays", "reports", "uncertainty", "region_masks")  # what is written changes no label map


@dataclass(frozen=True)
class _Request:
    """What every shard gets; plain values but for the paths."""

    bundle: Path
    out: Path
    options: Mapping[str, Any]
    wanted: Mapping[str, bool]

    @property
    def shards(self) -> Path:
        return self.out / SHARDS

    def job(self, name: str, images: Sequence[InputFile]) -> Job:
        return Job(
            name,
            call=f"{__name__}:predict_shard",
            arguments={
                "bundle": str(self.bundle),
                "out": str(self.shards / name),
                "images": [[image.case, image.key, *map(str, image.files)] for image in images],
                "options": dict(self.options),
            },
        )


@dataclass
class _Merged:
    """What the shards found."""

    reasons: dict[str, str] = field(default_factory=dict)
    peaks_gb: list[float] = field(default_factory=list)


def predict_on_ray(
    bundle: Path,
    inputs: Sequence[Path],
    out: Path,
    *,
    cluster: RayCluster,
    shards: int | None = None,
    resume: bool = False,
    section: str | None = None,
    checkpoint: Path | None = None,
    overlays: bool = True,
    reports: bool = True,
    device: str | None = None,
    fast: bool = True,
    backend: str | None = None,
    memory_gb: float | None = None,
    workers: int = 1,
    uncertainty: bool = False,
    region_masks: bool = False,
    progress: Progress | None = None,
    say: Say = lambda _: None,
) -> PredictResult:
    """Segment images with a bundle on several machines; the files are those of an undistributed run.

    Bundle, inputs and ``out`` must lie where all machines see them under the same path. A shard whose machine dies
    is begun again and keeps the cases that it finished. Where a shard dies again and again, its remaining cases are
    tried one by one, so that a single one that kills its process costs no other.

    Args:
        bundle: Folder of a MONAI Bundle for segmentation.
        inputs: Files, folders that are searched through, or a datalist.
        out: Folder to write to.
        cluster: Where the shards run.
        shards: Parts that the cases are dealt out to; twice as many as run at a time if None.
        resume: Keep the cases that an earlier run into ``out`` finished, distributed or not.
        section: Part of the datalist, as in :func:`medimg3d.workflows.predict.predict`.
        checkpoint: This and the following as in :func:`medimg3d.workflows.predict.predict`, for each shard.
        overlays: Draw a picture a case.
        reports: Write a page a case, and one that lists them.
        device: The GPU where a job has one, else the CPU, if None.
        fast: Merge the bundle's ``inference_fast.json``.
        backend: What runs the windows; not ``"auto"``.
        memory_gb: Most memory of a shard's process.
        workers: Cases that a shard loads ahead.
        uncertainty: Write maps of how unsure the networks are.
        region_masks: Write a mask of each overlapping region.
        progress: Called with the cases done and all cases.
        say: Called with a line as a shard ends.

    Returns:
        Accepted and rejected files. A case whose shard failed is rejected with the reason.

    Raises:
        UsageError: No such input, no cluster, a backend that every machine would choose for itself, or a resumed
            run was begun with other settings.
    """
    started = time.monotonic()
    if backend == "auto":
        raise UsageError(
            "--backend auto could choose another on each machine; name one, for example openvino-f32."
        )
    folder = BundleFolder(bundle)
    found = find_images(inputs, out, channels=channel_names(folder), section=section)
    facts = read_facts(folder, checkpoint=checkpoint)
    begun = begun_settings(out) if resume else None
    if begun is not None and backend is None:
        backend = begun.get("backend")
    out = out.resolve()
    wanted = {"overlays": overlays, "reports": reports}
    options = wanted | {
        "checkpoint": checkpoint and str(checkpoint.resolve()),
        "fast": fast,
        "backend": backend,
        "memory_gb": memory_gb,
        "workers": workers,
        "uncertainty": uncertainty,
        "region_masks": region_masks,
    }
    result = PredictResult(out, facts, rejected=dict(found.rejected), ignored=dict(found.ignored))
    merged = _Merged()
    with ray_jobs(cluster) as jobs:
        options["device"] = device or ("cuda" if jobs.slots.gpus else "cpu")
        request = _Request(bundle.resolve(), out, options, wanted)
        _begin(request, facts.weights_sha256, resume=resume)
        try:
            _predict_all(request, found.images, jobs, shards, merged, progress, say)
        finally:  # also when the user stops: what is finished is listed
            _collect(request, merged)
            _list_all(result, found.images, merged)
            result.seconds = time.monotonic() - started
            write_tables(result, reports=reports, peak_memory_gb=max(merged.peaks_gb, default=None))
            if uncertainty:
                from medimg3d.workflows.uncertainty import write_doubts

                write_doubts(out, [case.case for case in result.cases])
    shutil.rmtree(request.shards, ignore_errors=True)
    return result


def predict_shard(*, bundle: str, out: str, images: Sequence[Sequence[str]], options: dict[str, Any]) -> None:
    """One shard, in a process of its own: predict the given cases into the shard's folder, or go on with it."""
    checkpoint = options.pop("checkpoint")
    files = (
        InputFile(case, Path(first), key, tuple(map(Path, further))) for case, key, first, *further in images
    )
    predict(
        Path(bundle),
        [],
        Path(out),
        found=FoundInputs(tuple(files), {}, {}),
        resume=True,
        checkpoint=Path(checkpoint) if checkpoint else None,
        **options,
    )


def _begin(request: _Request, weights_sha256: str, *, resume: bool) -> None:
    """Take over what an earlier run left, or forget it.

    Raises:
        UsageError: The earlier run had other weights, pictures or pages.
    """
    request.out.mkdir(parents=True, exist_ok=True)
    if not resume:
        shutil.rmtree(request.shards, ignore_errors=True)
        shutil.rmtree(request.out / FINISHED, ignore_errors=True)
        return
    _collect(request, _Merged())
    begun = begun_settings(request.out)
    if begun is not None:  # the rest is compared when the first shard has loaded the network
        asked = {name: begun.get(name) for name in begun} | dict(request.wanted)
        FinishedCases(request.out, asked | {"weights_sha256": weights_sha256}, resume=True)
    shutil.rmtree(request.shards, ignore_errors=True)


def _predict_all(
    request: _Request,
    images: Sequence[InputFile],
    jobs: RayJobs,
    shards: int | None,
    merged: _Merged,
    progress: Progress | None,
    say: Say,
) -> None:
    """Deal the cases out; what is left of shards that died is then tried case by case."""
    ahead = _unfinished(request.out, images)
    taken_over = len(images) - len(ahead)

    def tick() -> None:
        if progress is not None:
            finished = sum(1 for _ in request.shards.glob(f"*/{FINISHED}/*.case.json"))
            progress(taken_over + finished, len(images))

    tick()
    number = min(len(ahead), shards or SHARDS_PER_SLOT * jobs.slots.count)
    width = len(str(number))
    parts = {f"shard_{index + 1:0{width}}": ahead[index::number] for index in range(number)}
    died = _run(request, parts, jobs, merged, say, tick, retries=None)
    if died:
        left = [image for image in _not_seen(request, ahead) if merged.reasons.get(image.case) in died]
        digits = int(math.log10(max(len(left), 1))) + 1
        alone = {f"alone_{index:0{digits}}": [image] for index, image in enumerate(left, start=1)}
        say(f"{len(left)} cases of shards that died are tried one by one.")
        for image in left:
            del merged.reasons[image.case]
        _run(request, alone, jobs, merged, say, tick, retries=0)


def _run(
    request: _Request,
    parts: Mapping[str, Sequence[InputFile]],
    jobs: RayJobs,
    merged: _Merged,
    say: Say,
    tick: Any,
    *,
    retries: int | None,
) -> set[str]:
    """Run shards; note why the cases of failed ones have no label map; the reasons of those that were killed."""
    work = [request.job(name, images) for name, images in parts.items()]
    outcomes = jobs.run(work, request.out / "jobs", retries=retries, say=say, tick=tick) if work else []
    killed = set()
    for outcome, images in zip(outcomes, parts.values(), strict=True):
        if outcome.is_done:
            continue
        reason = why_not(outcome)
        merged.reasons |= {image.case: reason for image in images}
        if outcome.has_died and len(images) > 1:
            killed.add(reason)
    return killed


def why_not(outcome: JobOutcome) -> str:
    """Why the cases of a shard that failed have no prediction."""
    return f"not predicted, since {outcome.name} failed: {outcome.reason}"


def _not_seen(request: _Request, images: Iterable[InputFile]) -> list[InputFile]:
    """Images without a finished record in any shard."""
    seen = {file.name for file in request.shards.glob(f"*/{FINISHED}/*.case.json")}
    return [image for image in images if f"{image.case}.case.json" not in seen]


def _unfinished(out: Path, images: Sequence[InputFile]) -> list[InputFile]:
    begun = begun_settings(out)
    if begun is None:
        return list(images)
    finished = FinishedCases(out, begun, resume=True)
    return [image for image in images if finished.find(image) is None]


def _collect(request: _Request, merged: _Merged) -> None:
    """Move what the shards finished to where an undistributed run has it, the record of a case last.

    Stopped at any point, it can be called again.

    Raises:
        UsageError: A shard ran with other settings than the folder was begun with.
    """
    for shard in sorted(path for path in request.shards.glob("*") if path.is_dir()):
        settings = begun_settings(shard)
        if settings is None:
            continue
        FinishedCases(request.out, settings, resume=True)
        for record in sorted((shard / FINISHED).glob("[!.]*.case.json")):
            _move_case(shard, request.out, record)
        if (shard / "run.json").is_file():
            manifest = read_json(shard / "run.json")
            rejected = (case for case in manifest["cases"] if case["status"] == "rejected")
            merged.reasons |= {case["case"]: case["reason"] for case in rejected}
            merged.peaks_gb += [manifest["peak_memory_gb"]] if "peak_memory_gb" in manifest else []


def _move_case(shard: Path, out: Path, record: Path) -> None:
    content = json.loads(record.read_text(encoding="utf-8"))
    case = content["case"]
    named = [content[name] for name in ("overlay", "report", "label_map") if content[name]]
    further = [f"uncertainty/{case}.json", f"uncertainty/{case}_uncertainty.nii.gz"]
    masks = (shard / "regions").glob(f"*/{escape(case)}_seg.nii.gz")
    further += [mask.relative_to(shard).as_posix() for mask in masks]
    for name in [*further, *named]:
        if (shard / name).is_file():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(shard / name, out / name)
    os.replace(record, out / FINISHED / record.name)


def _list_all(result: PredictResult, images: Sequence[InputFile], merged: _Merged) -> None:
    """Every case once, in the order of the images."""
    settings = begun_settings(result.out) or {}
    result.settings = {name: value for name, value in settings.items() if name not in _WRITTEN}
    finished = FinishedCases(result.out, settings, resume=True) if settings else None
    for image in images:
        case = finished.find(image, unchanged=True) if finished else None
        if case is not None:
            result.cases.append(case)
        elif reason := merged.reasons.get(image.case):
            result.rejected[image.key] = reason
            result.rejected_images.append((image, reason))
