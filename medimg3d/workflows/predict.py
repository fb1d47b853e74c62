"""From a bundle and images to label maps on the images' own grids, volumes, overlays and reports.

One case at a time: a file that cannot be used is rejected with its reason and the rest goes on; a finished
case is whole on disk whatever happens to the next.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medimg3d.bundle.folder import BundleFolder
from medimg3d.bundle.inference import (
    BundleFacts,
    Inference,
    channel_names,
    has_fast_inference,
    load_inference,
    read_facts,
)
from medimg3d.bundle.load_case import as_taken, load_case
from medimg3d.bundle.memory_plan import MemoryPlanner, lightest_backend
from medimg3d.bundle.run_windows import with_backend
from medimg3d.data.channel_inputs import find_case_inputs
from medimg3d.data.content_hash import content_sha256
from medimg3d.data.inputs import FoundInputs, InputFile
from medimg3d.data.label_counts import count_labels
from medimg3d.data.volume_file import Volume, read_volume
from medimg3d.engines.heap import keep_small_blocks
from medimg3d.errors import BundleError, GeometryError, Medimg3dError, UsageError
from medimg3d.inference.overlapped import in_turn, overlapped
from medimg3d.workflows.finished_cases import FinishedCases, begun_settings
from medimg3d.workflows.predicted_case import PredictedCase, label_map_path, write_case
from medimg3d.workflows.prediction_record import CaseVolumes, write_measurements, write_run_record

if TYPE_CHECKING:
    from medimg3d.workflows.region_masks import RegionMasks
    from medimg3d.workflows.uncertainty import UncertaintyMaps

GRID_TOLERANCE_MM = 1e-3

Progress = Callable[[int, int], None]
"""Called with the number of images done and the number of all images."""

_log = logging.getLogger(__name__)


@dataclass
class PredictResult:
    """What became of each file.

    Attributes:
        out: Folder with everything.
        bundle: What made the predictions.
        settings: What the predictions depend on besides the images.
        cases: Accepted cases, in order.
        rejected: File → reason.
        ignored: Hidden files and sidecars → reason.
        rejected_images: Rejects that were opened, by case.
        seconds: Time taken.
    """

    out: Path
    bundle: BundleFacts
    settings: dict[str, Any] = field(default_factory=dict)
    cases: list[PredictedCase] = field(default_factory=list)
    rejected: dict[str, str] = field(default_factory=dict)
    ignored: dict[str, str] = field(default_factory=dict)
    rejected_images: list[tuple[InputFile, str]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def measurements(self) -> list[CaseVolumes]:
        """Volumes of the accepted cases."""
        return [case.volumes for case in self.cases]

    def summary(self) -> dict[str, Any]:
        """The result as plain values, for ``--json``."""
        return {
            "out": str(self.out),
            "cases": [
                {
                    "case": case.case,
                    "input": str(case.image),
                    "label_map": str(case.label_map),
                    "volumes_ml": case.volumes.ml,
                    "voxels": case.volumes.voxels,
                    "overlay": case.overlay and str(case.overlay),
                    "report": case.report and str(case.report),
                    "note": case.note,
                }
                for case in self.cases
            ],
            "rejected": self.rejected,
            "ignored": self.ignored,
            "seconds": round(self.seconds, 2),
        }


def predict(
    bundle: Path,
    inputs: Sequence[Path],
    out: Path,
    *,
    section: str | None = None,
    checkpoint: Path | None = None,
    overlays: bool = True,
    reports: bool = True,
    device: str | None = None,
    fast: bool = True,
    backend: str | None = None,
    calibration: Path | None = None,
    memory_gb: float | None = None,
    workers: int = 1,
    resume: bool = False,
    uncertainty: bool = False,
    region_masks: bool = False,
    progress: Progress | None = None,
    found: FoundInputs | None = None,
) -> PredictResult:
    """Segment images with a bundle.

    Writes to ``out``: ``<case>_seg.nii.gz`` (uint8, on the image's own grid), ``measurements.csv``,
    ``run.json``, and as asked ``overlays/<case>.png``, ``reports/<case>.html`` and ``index.html``. The label
    map is the one that ``python -m monai.bundle run --config_file configs/inference.json`` gives, wherever the
    two best classes differ by more than rounding. While a case is predicted, the next one is loaded and the
    previous one saved.

    Args:
        bundle: Folder of a MONAI Bundle for segmentation.
        inputs: Files (NIfTI, NRRD, MetaImage), folders that are searched through, or a datalist. A case of several
            channels is one file of four dimensions, or a file a channel
            (:mod:`medimg3d.data.channel_inputs` says how they are named).
        out: Folder to write to; files of the same names are replaced.
        section: Part of the datalist: ``"test"``, ``"validation"``, ``"training"`` or ``"all"``; by default the test
            cases, and all where it has none.
        checkpoint: Weights instead of the bundle's own.
        overlays: Draw a picture a case.
        reports: Write a page a case, and one that lists them.
        device: ``"cpu"``, ``"cuda"``, …; the bundle's own choice if None.
        fast: Merge the bundle's ``inference_fast.json``, if it has one: less memory and time.
        backend: What runs the windows (:mod:`medimg3d.inference.backends`): a name, or ``"auto"`` for the fastest
            of a short trial; torch if None, under a cap the layout that holds less
            (:func:`medimg3d.bundle.memory_plan.lightest_backend`). A resumed run keeps the one that it began with.
        calibration: With ``"openvino-int8"``: datalist that the network is quantized and judged on first
            (:func:`medimg3d.workflows.quantize_bundle.quantize_bundle`); None once it was accepted.
        memory_gb: Most memory that the whole process may hold, in GB (10⁹ bytes): axis, tiles and batches of the
            windows are chosen to fit, and a case that fits in no way is rejected before its prediction begins.
            Cases are then taken one after the other. Pictures and pages are not counted.
        workers: Cases that are loaded ahead at the same time; 0: load, predict and save one case after the other.
        resume: Keep the cases that an earlier run into ``out`` finished.
        uncertainty: Write ``uncertainty/<case>_uncertainty.nii.gz`` and ``uncertainty.csv``, and a note where a case
            is unusual (:mod:`medimg3d.workflows.uncertainty`); by the plain configuration, in torch.
        region_masks: Write ``regions/<number>_<region>/<case>_seg.nii.gz``, a mask of each overlapping region; by the
            plain configuration, in torch.
        progress: Called before the first image and after each.
        found: The files in ``inputs`` that were found already, with their cases: a part of a larger prediction.

    Returns:
        Accepted and rejected files; all may be rejected.

    Raises:
        UsageError: No bundle, no such input, a folder without images, a prediction would replace an input, a
            resumed run was begun with other settings, a backend for a bundle without ``inference_fast.json``, or
            a calibration for another backend than ``"openvino-int8"``.
        BundleError: The bundle cannot be built, or its weights do not fit.
        MissingExtraError: The package of the backend is not installed.
    """
    started = time.monotonic()
    folder = BundleFolder(bundle)
    found = found or find_images(inputs, out, channels=channel_names(folder), section=section)
    facts = read_facts(folder, checkpoint=checkpoint)
    model = load_inference(
        folder,
        facts,
        device=device,
        fast=fast and not (uncertainty or region_masks) and has_fast_inference(folder),
    )
    if calibration is not None:
        _calibrate(model, calibration, backend)
    begun = begun_settings(out) if resume else None
    if begun is not None and backend in (None, "auto"):
        backend = begun.get("backend")
    if uncertainty or region_masks:
        _refuse_other_ways("--uncertainty" if uncertainty else "--region-masks", backend, memory_gb)
    maps = _further_maps(model, folder, out, uncertainty=uncertainty, region_masks=region_masks)
    if backend is None and memory_gb is not None:
        backend = lightest_backend(model)
    model = with_backend(model, backend) if maps is None else maps.model
    planner = None if memory_gb is None else MemoryPlanner(model, int(memory_gb * 1e9))
    if planner is None:
        keep_small_blocks()
    result = PredictResult(
        out, facts, model.settings(folder), rejected=dict(found.rejected), ignored=dict(found.ignored)
    )
    out.mkdir(parents=True, exist_ok=True)
    wanted = {"overlays": overlays, "reports": reports}
    also = {"uncertainty": True} if uncertainty else {"region_masks": True} if region_masks else {}
    finished = FinishedCases(out, result.settings | wanted | also, resume=resume)
    try:
        _predict_all(
            found.images, model, planner, finished, result, wanted, progress, 0 if planner else workers, maps
        )
    finally:  # also when the user stops: what is finished is listed
        result.seconds = time.monotonic() - started
        write_tables(result, reports=reports)
        if maps is not None:
            maps.write_table([case.case for case in result.cases])
    return result


def _refuse_other_ways(option: str, backend: str | None, memory_gb: float | None) -> None:
    """A backend or a bound on the memory do not go with what needs every class at once."""
    if backend not in (None, "torch") or memory_gb is not None:
        raise UsageError(
            f"{option} keeps every class of the whole image, in torch; leave --backend and --memory-gb away."
        )


def _further_maps(
    model: Inference, folder: BundleFolder, out: Path, *, uncertainty: bool, region_masks: bool
) -> UncertaintyMaps | RegionMasks | None:
    """What writes maps beside the label maps.

    Raises:
        UsageError: Both were asked for, or the bundle has no regions.
    """
    if uncertainty and region_masks:
        raise UsageError(
            "--uncertainty is of classes that exclude each other; leave it or --region-masks away."
        )
    if region_masks:
        from medimg3d.workflows.region_masks import RegionMasks

        return RegionMasks(model, out)
    if uncertainty and model.facts.regions:
        raise UsageError(
            f"{model.facts.name} has overlapping regions; --uncertainty is of classes that exclude each other. Leave "
            "it away."
        )
    if uncertainty:
        from medimg3d.workflows.uncertainty import UncertainInference, UncertaintyMaps

        return UncertaintyMaps(UncertainInference.of(model), folder, out)
    return None


def _calibrate(model: Inference, datalist: Path, backend: str | None) -> None:
    """Quantize the network; whether it was accepted is seen when the backend is made."""
    from medimg3d.workflows.quantize_bundle import INT8, quantize_bundle

    if backend != INT8:
        raise UsageError(f"--calibration is for --backend {INT8}, not {backend or 'torch'}; leave it away.")
    quantize_bundle(model, datalist)


def _predict_all(
    images: Sequence[InputFile],
    model: Inference,
    planner: MemoryPlanner | None,
    finished: FinishedCases,
    result: PredictResult,
    wanted: Mapping[str, bool],
    progress: Progress | None,
    workers: int,
    maps: UncertaintyMaps | RegionMasks | None = None,
) -> None:
    """One case after the other; the finished ones are taken over, and listed in the order of the images."""
    done = {image.key: case for image in images if (case := finished.find(image)) is not None}
    ahead = [image for image in images if image.key not in done]
    seconds: dict[str, dict[str, float]] = {}
    regions: dict[str, str] = {}  # what a bundle's region finder says of a case

    def load(image: InputFile) -> tuple[Volume, dict[str, Any]]:
        with _timed(seconds, image, "load"):
            if planner is not None:
                planner.check_beforehand(image.path, num_files=len(image.files))
            return load_case(model, image.path, image.further)

    def work(image: InputFile, loaded: tuple[Volume, dict[str, Any]]) -> tuple[Volume, NDArray[np.uint8]]:
        volume, item = loaded
        regions[image.key] = str(getattr(item["image"], "meta", {}).get("region", ""))
        with _timed(seconds, image, "predict"):
            labels = _label_map(volume, item, planner.fitted(item["image"]) if planner else model)
            if maps is not None:
                maps.write(image.case, volume.header)
            return volume, labels

    def save(image: InputFile, made: tuple[Volume, NDArray[np.uint8]]) -> None:
        volume, labels = made
        if any(wanted.values()):  # the voxels, which were not kept, for the pictures
            volume = read_volume(image.path)
        case = write_case(
            image, volume, labels, model.facts, result.out, seconds=seconds[image.key], **wanted
        )
        further = (regions.pop(image.key), maps.note(image.case) if maps is not None else "")
        if any(further):
            case = replace(case, note="; ".join(text for text in (case.note, *further) if text))
        finished.add(case)
        done[image.key] = case

    try:
        if progress is not None:
            progress(len(done), len(images))
        taken = partial(overlapped, depth=workers) if workers else in_turn
        for image, outcome in taken(ahead, load=load, work=work, save=save):
            if outcome.error is not None:
                if outcome.stage == "save":  # a full disk fails every case alike
                    raise outcome.error
                _reject(image, _reason(image, outcome.error), result)
            if progress is not None:
                progress(len(done) + len(result.rejected_images), len(images))
    finally:
        result.cases.extend(done[image.key] for image in images if image.key in done)


@contextmanager
def _timed(seconds: dict[str, dict[str, float]], image: InputFile, stage: str) -> Iterator[None]:
    begin = time.perf_counter()
    yield
    seconds.setdefault(image.key, {})[stage] = time.perf_counter() - begin


def find_images(
    inputs: Sequence[Path], out: Path, *, channels: Sequence[str] = ("0",), section: str | None = None
) -> FoundInputs:
    """The images to predict on, none of which a prediction in ``out`` would replace.

    Args:
        inputs: As for :func:`predict`.
        out: Folder of the predictions.
        channels: Names of the bundle's channels (:func:`medimg3d.bundle.inference.channel_names`).
        section: As for :func:`predict`.

    Raises:
        UsageError: No such input, a folder without images, or a prediction would replace an input.
    """
    if any(path.is_dir() and path.resolve() == out.resolve() for path in inputs):
        raise UsageError(
            f"--out is the input folder {out}; choose another, so that images and results stay apart."
        )
    found = find_case_inputs(inputs, channels=channels, section=section, without=out)
    sources = {file.resolve() for image in found.images for file in image.files}
    for image in found.images:
        target = label_map_path(out, image.case)
        if target.resolve() in sources:
            raise UsageError(
                f"The prediction of {image.case} would replace the input {target.name}; choose another --out."
            )
    return found


def _reason(image: InputFile, error: Exception) -> str:
    """Why a case is rejected; whatever MONAI stumbles over must not stop the rest."""
    if isinstance(error, Medimg3dError):
        return str(error)
    _log.debug("%s", image.case, exc_info=error)
    return f"the model failed on it ({type(error).__name__}); run it alone with --debug"


def _reject(image: InputFile, reason: str, result: PredictResult) -> None:
    result.rejected[image.key] = reason
    result.rejected_images.append((image, reason))


def _label_map(volume: Volume, item: dict[str, Any], model: Inference) -> NDArray[np.uint8]:
    labels, affine = model.labels_of(item)
    shown = as_taken(volume, model.image_axes)
    if labels.shape != shown.array.shape[:3]:
        raise GeometryError(
            f"got a label map of shape {labels.shape}, expected {shown.array.shape[:3]}: the bundle's "
            "postprocessing does not bring it back onto the image's grid (Invertd is missing?)"
        )
    apart_mm = float(np.abs(affine - shown.affine).max())
    if apart_mm > GRID_TOLERANCE_MM:
        raise GeometryError(
            f"got a label map whose affine is {apart_mm:.3g} mm off; expected the image's own"
        )
    unknown = sorted(set(np.flatnonzero(count_labels(labels)).tolist()) - {0, *model.facts.class_names})
    if unknown:
        raise BundleError(
            f"got the labels {unknown}, which the bundle's metadata does not name; mend channel_def"
        )
    return labels.reshape(volume.array.shape[:3])


def write_tables(result: PredictResult, *, reports: bool, peak_memory_gb: float | None = None) -> None:
    """Write ``measurements.csv``, ``run.json`` and, with reports, ``index.html``.

    Args:
        result: What became of each file.
        reports: Write the page.
        peak_memory_gb: Most memory of a process, where others predicted; of this one if None.
    """
    names = list(result.bundle.class_names.values())
    write_measurements(result.measurements, names, result.out / "measurements.csv")
    write_run_record(
        _records(result),
        result.bundle,
        result.seconds,
        result.out / "run.json",
        settings=result.settings,
        peak_memory_gb=peak_memory_gb,
    )
    if reports:
        _write_index(result, names)


def _records(result: PredictResult) -> list[dict[str, Any]]:
    """One entry a file; names only, since the folders above may name a patient."""
    done = [
        {
            "case": case.case,
            "input": case.image.name,
            "input_sha256": case.image_sha256,
            **_channel_records(case.files, case.sha256),
            "status": "done",
            "output": case.label_map.name,
            "seconds": dict(case.seconds),
            **({"note": case.note} if case.note else {}),
        }
        for case in result.cases
    ]
    opened = {image.key: image for image, _ in result.rejected_images}
    rejected = [
        {
            "case": opened[key].case if key in opened else None,
            "input": Path(key).name,
            **_hashes(Path(key), opened.get(key)),
            "status": "rejected",
            "reason": reason,
            "output": None,
        }
        for key, reason in result.rejected.items()
    ]
    return done + rejected


def _hashes(path: Path, image: InputFile | None) -> dict[str, Any]:
    """Of a rejected file, or of the files of a rejected case as far as they are there."""
    files = [file for file in (image.files if image else (path,)) if file.is_file()]
    hashes = [content_sha256(file) for file in files]
    return {"input_sha256": hashes[0] if hashes else None, **_channel_records(files, hashes)}


def _channel_records(files: Sequence[Path], hashes: Sequence[str]) -> dict[str, Any]:
    """Every file of a case of several, with its hash."""
    if len(files) < 2:
        return {}
    pairs = zip(files, hashes, strict=True)
    return {"inputs": [{"file": file.name, "sha256": digest} for file, digest in pairs]}


def _write_index(result: PredictResult, names: list[str]) -> None:
    from medimg3d.report.index_page import IndexRow, index_page

    def links(case: PredictedCase) -> dict[str, str]:
        files = {"report": case.report, "overlay": case.overlay, "label map": case.label_map}
        return {name: file.relative_to(result.out).as_posix() for name, file in files.items() if file}

    index_page(
        [
            IndexRow(c.case, tuple(c.volumes.ml[name] for name in names), links(c), c.note)
            for c in result.cases
        ],
        structures=names,
        rejected={Path(key).name: reason for key, reason in result.rejected.items()},
        bundle=" ".join(part for part in (result.bundle.name, result.bundle.version) if part),
        out=result.out / "index.html",
    )
