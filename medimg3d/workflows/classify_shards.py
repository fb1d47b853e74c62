"""A classification of many images, spread over the machines of a Ray cluster and put together into one folder."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medimg3d.bundle.classifier import read_decision
from medimg3d.bundle.folder import BundleFolder, read_json
from medimg3d.bundle.inference import read_facts
from medimg3d.data.inputs import FoundInputs, InputFile
from medimg3d.data.json_file import write_json
from medimg3d.errors import UsageError
from medimg3d.workflows.jobs import Job
from medimg3d.workflows.predict_classification import (
    ClassificationResult,
    PredictedImage,
    find_classified,
    predict_classification,
    write_tables,
)
from medimg3d.workflows.predict_shards import SHARDS, SHARDS_PER_SLOT, why_not
from medimg3d.workflows.ray_jobs import Progress, RayCluster, RayJobs, Say, ray_jobs

RECORD = "shard.json"
_TABLES = (RECORD, "predictions.csv", "run.json", "index.html")


@dataclass(frozen=True)
class _Request:
    """What every shard gets, and why images have no prediction (by case)."""

    bundle: Path
    inputs: tuple[Path, ...]
    out: Path
    options: Mapping[str, Any]
    reasons: dict[str, str] = field(default_factory=dict)

    @property
    def shards(self) -> Path:
        return self.out / SHARDS

    def job(self, name: str, images: Sequence[InputFile]) -> Job:
        return Job(
            name,
            call=f"{__name__}:classify_shard",
            arguments={
                "bundle": str(self.bundle),
                "inputs": [str(path) for path in self.inputs],
                "out": str(self.shards / name),
                "images": [[image.case, image.key, str(image.path)] for image in images],
                "options": dict(self.options),
            },
        )


def classify_on_ray(
    bundle: Path,
    inputs: Sequence[Path],
    out: Path,
    *,
    cluster: RayCluster,
    shards: int | None = None,
    checkpoint: Path | None = None,
    explain: bool = False,
    device: str | None = None,
    fast: bool = True,
    backend: str | None = None,
    progress: Progress | None = None,
    say: Say = lambda _: None,
) -> ClassificationResult:
    """Classify images with a bundle on several machines; the files are those of an undistributed run.

    Bundle, inputs and ``out`` must lie where all machines see them under the same path. A shard whose machine dies
    is begun again. Where a shard dies again and again, its images are tried one by one.

    Args:
        bundle: Folder of a classification bundle.
        inputs: Files, or folders that are searched through.
        out: Folder to write to.
        cluster: Where the shards run.
        shards: Parts that the images are dealt out to; twice as many as run at a time if None.
        checkpoint: This and the following as in
            :func:`medimg3d.workflows.predict_classification.predict_classification`, for each shard.
        explain: Draw where the network looked.
        device: The GPU where a job has one, else the CPU, if None.
        fast: Merge the bundle's ``inference_fast.json``.
        backend: What runs the network; not ``"auto"``.
        progress: Called with the images of finished shards and all images.
        say: Called with a line as a shard ends.

    Returns:
        Accepted and rejected files. An image whose shard failed is rejected with the reason.

    Raises:
        UsageError: No such input, no cluster, or a backend that every machine would choose for itself.
        BundleError: The decision does not fit the weights.
    """
    started = time.monotonic()
    if backend == "auto":
        raise UsageError(
            "--backend auto could choose another on each machine; name one, for example openvino-f32."
        )
    folder = BundleFolder(bundle)
    found = find_classified(folder, inputs, out)
    facts = read_facts(folder, checkpoint=checkpoint)
    decision = read_decision(facts)
    out = out.resolve()
    options = {
        "checkpoint": checkpoint and str(checkpoint.resolve()),
        "explain": explain,
        "fast": fast,
        "backend": backend,
    }
    result = ClassificationResult(out, facts, rejected=dict(found.rejected), ignored=dict(found.ignored))
    with ray_jobs(cluster) as jobs:
        options["device"] = device or ("cuda" if jobs.slots.gpus else "cpu")
        request = _Request(bundle.resolve(), tuple(path.resolve() for path in inputs), out, options)
        out.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(request.shards, ignore_errors=True)
        try:
            _classify_all(request, found.images, jobs, shards, progress, say)
        finally:  # also when the user stops: what is finished is listed
            _collect(request, found.images, result)
            result.seconds = time.monotonic() - started
            write_tables(result, decision)
    shutil.rmtree(request.shards, ignore_errors=True)
    return result


def classify_shard(
    *,
    bundle: str,
    inputs: Sequence[str],
    out: str,
    images: Sequence[Sequence[str]],
    options: dict[str, Any],
) -> None:
    """One shard, in a process of its own: classify the given images into the shard's folder."""
    checkpoint = options.pop("checkpoint")
    files = tuple(InputFile(case, Path(path), key) for case, key, path in images)
    result = predict_classification(
        Path(bundle),
        [Path(path) for path in inputs],
        Path(out),
        found=FoundInputs(files, {}, {}),
        checkpoint=Path(checkpoint) if checkpoint else None,
        **options,
    )
    content = {
        "settings": result.settings,
        "images": {image.case: _as_json(image, result.out) for image in result.images},
        "rejected": {image.case: reason for image, reason in result.rejected_images},
        "peak_memory_gb": read_json(result.out / "run.json").get("peak_memory_gb"),
    }
    write_json(content, result.out / RECORD)


def _as_json(image: PredictedImage, out: Path) -> dict[str, Any]:
    return {
        "file": image.file,
        "image_sha256": image.image_sha256,
        "row": image.row,
        "heat_map": image.heat_map.relative_to(out).as_posix() if image.heat_map else None,
    }


def _classify_all(
    request: _Request,
    images: Sequence[InputFile],
    jobs: RayJobs,
    shards: int | None,
    progress: Progress | None,
    say: Say,
) -> None:
    """Deal the images out; those of shards that died are then tried one by one."""
    number = min(len(images), shards or SHARDS_PER_SLOT * jobs.slots.count)
    parts = {f"shard_{index + 1:0{len(str(number))}}": images[index::number] for index in range(number)}

    def tick() -> None:
        if progress is not None:
            there = (parts.get(record.parent.name, ()) for record in request.shards.glob(f"*/{RECORD}"))
            progress(sum(map(len, there)), len(images))

    tick()
    left = _run(request, parts, jobs, say, tick, retries=None)
    if left:
        say(f"{len(left)} images of shards that died are tried one by one.")
        alone = {
            f"alone_{index:0{len(str(len(left)))}}": [image] for index, image in enumerate(left, start=1)
        }
        _run(request, alone, jobs, say, tick, retries=0)


def _run(
    request: _Request,
    parts: Mapping[str, Sequence[InputFile]],
    jobs: RayJobs,
    say: Say,
    tick: Any,
    *,
    retries: int | None,
) -> list[InputFile]:
    """Run shards; the images of those that were killed and held several."""
    work = [request.job(name, images) for name, images in parts.items()]
    outcomes = jobs.run(work, request.out / "jobs", retries=retries, say=say, tick=tick) if work else []
    left: list[InputFile] = []
    for outcome, images in zip(outcomes, parts.values(), strict=True):
        if not outcome.is_done:
            request.reasons.update({image.case: why_not(outcome) for image in images})
            left += images if outcome.has_died and len(images) > 1 else []
    return left


def _collect(request: _Request, images: Sequence[InputFile], result: ClassificationResult) -> None:
    """List every image once, in order, and move the heat maps to where an undistributed run has them.

    Raises:
        UsageError: The shards ran with different settings.
    """
    found: dict[str, dict[str, Any]] = {}
    peaks = []
    for record in sorted(request.shards.glob(f"*/{RECORD}")):
        content = read_json(record)
        if result.settings and content["settings"] != result.settings:
            raise UsageError(
                f"{record.parent.name} ran with other settings than the parts before it; expected the same configs and "
                "weights on every machine. Leave the bundle as it is during a run, and run the command again."
            )
        result.settings = content["settings"]
        found |= content["images"]
        request.reasons.update(content["rejected"])
        peaks += [content["peak_memory_gb"]] if content["peak_memory_gb"] is not None else []
        _move_maps(record.parent, request.out)
    result.peak_memory_gb = max(peaks, default=None)
    for image in images:
        if image.case in found:
            result.images.append(_predicted(image, found[image.case], request.out))
        elif reason := request.reasons.get(image.case):
            result.rejected[image.key] = reason
            result.rejected_images.append((image, reason))


def _predicted(image: InputFile, content: Mapping[str, Any], out: Path) -> PredictedImage:
    return PredictedImage(
        file=content["file"],
        case=image.case,
        path=image.path,
        image_sha256=content["image_sha256"],
        row=content["row"],
        heat_map=out / content["heat_map"] if content["heat_map"] else None,
    )


def _move_maps(shard: Path, out: Path) -> None:
    for file in sorted(path for path in shard.rglob("*") if path.is_file()):
        if file.name not in _TABLES and not file.name.startswith(".partial-"):
            target = out / file.relative_to(shard)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(file, target)
