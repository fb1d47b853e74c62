"""From a bundle and images to label maps on the images' own grids, volumes, overlays and reports.

One case at a time: a file that cannot be used is rejected with its reason and the rest goes on; a finished
case is whole on disk whatever happens to the next.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medimg3d.bundle.folder import BundleFolder
from medimg3d.bundle.inference import BundleFacts, Inference, load_inference, read_facts
from medimg3d.data.content_hash import content_sha256
from medimg3d.data.fast_nifti_writer import write_label_nifti
from medimg3d.data.image_facts import NIFTI_ENDINGS
from medimg3d.data.input_checks import check_volume
from medimg3d.data.inputs import FoundInputs, InputFile, find_inputs
from medimg3d.data.volume_file import Volume, read_volume, write_volume
from medimg3d.errors import BundleError, GeometryError, Medimg3dError, UsageError
from medimg3d.workflows.prediction_record import CaseVolumes, write_measurements, write_run_record

GRID_TOLERANCE_MM = 1e-3
UNKNOWN_SIZE = "the file states no voxel size: predicted as if its numbers were mm, volumes left blank"

Progress = Callable[[int, int], None]
"""Called with the number of images done and the number of all images."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PredictedCase:
    """A case with its label map.

    Attributes:
        case: Name of the case.
        image: The image.
        image_sha256: Hash of its file.
        label_map: ``<case>_seg.nii.gz``.
        volumes: Volumes and voxel counts of its structures.
        overlay: Picture, or None if none was asked for.
        report: Page, or None if none was asked for.
        note: What a reader should know.
    """

    case: str
    image: Path
    image_sha256: str
    label_map: Path
    volumes: CaseVolumes
    overlay: Path | None = None
    report: Path | None = None
    note: str = ""


@dataclass
class PredictResult:
    """What became of each file.

    Attributes:
        out: Folder with everything.
        bundle: What made the predictions.
        cases: Accepted cases, in order.
        rejected: File → reason.
        ignored: Hidden files and sidecars → reason.
        rejected_images: Rejects that were opened, by case.
        seconds: Time taken.
    """

    out: Path
    bundle: BundleFacts
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
    checkpoint: Path | None = None,
    overlays: bool = True,
    reports: bool = True,
    device: str | None = None,
    progress: Progress | None = None,
) -> PredictResult:
    """Segment images with a bundle.

    Writes to ``out``: ``<case>_seg.nii.gz`` (uint8, on the image's own grid), ``measurements.csv``,
    ``run.json``, and as asked ``overlays/<case>.png``, ``reports/<case>.html`` and ``index.html``. The label
    map is the one that ``python -m monai.bundle run --config_file configs/inference.json`` gives.

    Args:
        bundle: Folder of a MONAI Bundle for segmentation.
        inputs: Files (NIfTI, NRRD, MetaImage), or folders that are searched through.
        out: Folder to write to; files of the same names are replaced.
        checkpoint: Weights instead of the bundle's own.
        overlays: Draw a picture a case.
        reports: Write a page a case, and one that lists them.
        device: ``"cpu"``, ``"cuda"``, …; the bundle's own choice if None.
        progress: Called before the first image and after each.

    Returns:
        Accepted and rejected files; all may be rejected.

    Raises:
        UsageError: No bundle, no such input, a folder without images, or a prediction would replace an input.
        BundleError: The bundle cannot be built, or its weights do not fit.
    """
    started = time.monotonic()
    folder = BundleFolder(bundle)
    found = _find(inputs, out)
    facts = read_facts(folder, checkpoint=checkpoint)
    model = load_inference(folder, facts, device=device)
    result = PredictResult(out, facts, rejected=dict(found.rejected), ignored=dict(found.ignored))
    out.mkdir(parents=True, exist_ok=True)
    try:
        for done, image in enumerate(found.images):
            if progress is not None:
                progress(done, len(found.images))
            _predict_or_reject(image, model, result, overlays=overlays, reports=reports)
        if progress is not None:
            progress(len(found.images), len(found.images))
    finally:  # also when the user stops: what is finished is listed
        result.seconds = time.monotonic() - started
        _write_tables(result, reports=reports)
    return result


def label_map_path(out: Path, case: str) -> Path:
    """Where the label map of a case stands."""
    return out / f"{case}_seg.nii.gz"


def _find(inputs: Sequence[Path], out: Path) -> FoundInputs:
    if any(path.is_dir() and path.resolve() == out.resolve() for path in inputs):
        raise UsageError(
            f"--out is the input folder {out}; choose another, so that images and results stay apart."
        )
    found = find_inputs(inputs, without=out)
    sources = {image.path for image in found.images}
    for image in found.images:
        target = label_map_path(out, image.case)
        if target.resolve() in sources:
            raise UsageError(
                f"The prediction of {image.case} would replace the input {target.name}; choose another --out."
            )
    return found


def _predict_or_reject(
    image: InputFile, model: Inference, result: PredictResult, *, overlays: bool, reports: bool
) -> None:
    try:
        volume = read_volume(image.path)
        check_volume(volume, num_channels=model.facts.num_channels)
        labels = _label_map(image.path, volume, model)
    except Medimg3dError as err:
        _reject(image, str(err), result)
        return
    except Exception as err:  # noqa: BLE001 - whatever MONAI stumbles over must not stop the rest
        _log.debug("%s", image.case, exc_info=True)
        _reject(image, f"the model failed on it ({type(err).__name__}); run it alone with --debug", result)
        return
    result.cases.append(_write_case(image, volume, labels, result, overlays=overlays, reports=reports))


def _reject(image: InputFile, reason: str, result: PredictResult) -> None:
    result.rejected[image.key] = reason
    result.rejected_images.append((image, reason))


def _label_map(path: Path, volume: Volume, model: Inference) -> NDArray[np.uint8]:
    with _as_nifti(path, volume) as nifti:
        labels, affine = model.label_map(nifti)
    if labels.shape != volume.array.shape[:3]:
        raise GeometryError(
            f"got a label map of shape {labels.shape}, expected {volume.array.shape[:3]}: the bundle's "
            "postprocessing does not bring it back onto the image's grid (Invertd is missing?)"
        )
    apart_mm = float(np.abs(affine - volume.affine).max())
    if apart_mm > GRID_TOLERANCE_MM:
        raise GeometryError(
            f"got a label map whose affine is {apart_mm:.3g} mm off; expected the image's own"
        )
    unknown = sorted(set(np.unique(labels).tolist()) - {0, *model.facts.class_names})
    if unknown:
        raise BundleError(
            f"got the labels {unknown}, which the bundle's metadata does not name; mend channel_def"
        )
    return labels


@contextmanager
def _as_nifti(path: Path, volume: Volume) -> Iterator[Path]:
    """The image itself if it is NIfTI, else a copy that MONAI can read without further packages."""
    if path.name.lower().endswith(NIFTI_ENDINGS):
        yield path
        return
    with TemporaryDirectory() as folder:
        yield write_volume(volume, Path(folder) / "image.nii")


def _write_case(
    image: InputFile,
    volume: Volume,
    labels: NDArray[np.uint8],
    result: PredictResult,
    *,
    overlays: bool,
    reports: bool,
) -> PredictedCase:
    names = result.bundle.class_names
    volumes = CaseVolumes.of(
        image.case, labels, names, voxel_ml=volume.voxel_ml, spacing_mm=_spacing_or_none(volume)
    )
    overlay, report = _draw(image.case, volume, labels, volumes, result, overlays=overlays, reports=reports)
    return PredictedCase(
        case=image.case,
        image=image.path,
        image_sha256=content_sha256(image.path),
        # Last: where the label map is, everything of the case is.
        label_map=write_label_nifti(labels, volume.header, label_map_path(result.out, image.case)),
        volumes=volumes,
        overlay=overlay,
        report=report,
        note="" if volume.has_known_size else UNKNOWN_SIZE,
    )


def _spacing_or_none(volume: Volume) -> tuple[float, float, float] | None:
    return volume.spacing_mm if volume.has_known_size else None


def _draw(
    case: str,
    volume: Volume,
    labels: NDArray[np.uint8],
    volumes: CaseVolumes,
    result: PredictResult,
    *,
    overlays: bool,
    reports: bool,
) -> tuple[Path | None, Path | None]:
    """The overlay and the page as far as they are asked for; the page holds its own copy of the picture."""
    if not (overlays or reports):
        return None, None
    from medimg3d.report.case_overlay import case_overlay
    from medimg3d.report.page import case_page

    facts = result.bundle
    with TemporaryDirectory() as temporary:
        overlay = case_overlay(
            volume.array if volume.array.ndim == 3 else volume.array[..., 0],
            labels,
            volume.affine,
            class_names=facts.class_names,
            title=case,
            path=(result.out / "overlays" if overlays else Path(temporary)) / f"{case}.png",
        )
        report = None
        if reports:
            report = case_page(
                case=case,
                volumes_ml={name: ml for name, ml in volumes.ml.items() if ml is not None},
                overlay=overlay,
                bundle={"name": facts.name, "version": facts.version, "weights_sha256": facts.weights_sha256},
                out=result.out / "reports" / f"{case}.html",
            )
    return overlay if overlays else None, report


def _write_tables(result: PredictResult, *, reports: bool) -> None:
    names = list(result.bundle.class_names.values())
    write_measurements(result.measurements, names, result.out / "measurements.csv")
    write_run_record(_records(result), result.bundle, result.seconds, result.out / "run.json")
    if reports:
        _write_index(result, names)


def _records(result: PredictResult) -> list[dict[str, Any]]:
    """One entry a file; names only, since the folders above may name a patient."""
    done = [
        {
            "case": case.case,
            "input": case.image.name,
            "input_sha256": case.image_sha256,
            "status": "done",
            "output": case.label_map.name,
            **({"note": case.note} if case.note else {}),
        }
        for case in result.cases
    ]
    opened = {image.key: image for image, _ in result.rejected_images}
    rejected = [
        {
            "case": opened[key].case if key in opened else None,
            "input": Path(key).name,
            "input_sha256": content_sha256(Path(key)),
            "status": "rejected",
            "reason": reason,
            "output": None,
        }
        for key, reason in result.rejected.items()
    ]
    return done + rejected


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
