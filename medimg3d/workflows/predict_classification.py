"""From a classification bundle and images to probabilities and decisions, one row a file.

Images are taken in the bundle's batches, and while one is in the network the next is loaded. A file that cannot be
used is rejected with its reason and the rest goes on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medimg3d.bundle.classifier import Classifier, load_classifier, num_spatial_dims
from medimg3d.bundle.folder import BundleFolder
from medimg3d.bundle.inference import BundleFacts, has_fast_inference
from medimg3d.bundle.run_images import with_image_backend
from medimg3d.data.content_hash import content_sha256
from medimg3d.data.inputs import FoundInputs, InputFile, find_inputs
from medimg3d.errors import Medimg3dError, UsageError
from medimg3d.inference.decision import Decision
from medimg3d.inference.predictions_csv import PREDICTIONS, prediction_row, write_predictions
from medimg3d.workflows.classified_images import Classified, classified
from medimg3d.workflows.prediction_record import write_run_record

Progress = Callable[[int, int], None]
"""Called with the number of images done and the number of all images."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PredictedImage:
    """An image with its decision.

    Attributes:
        file: The file as its table names it.
        case: Name of the case.
        path: The image.
        image_sha256: Hash of its file.
        row: Its row of ``predictions.csv``.
        heat_map: Overlay picture of where the network looked, or None if none was asked for.
    """

    file: str
    case: str
    path: Path
    image_sha256: str
    row: dict[str, str]
    heat_map: Path | None = None


@dataclass
class ClassificationResult:
    """What became of each file.

    Attributes:
        out: Folder with everything.
        bundle: What made the predictions.
        settings: What the predictions depend on besides the images.
        images: Accepted images, in order.
        rejected: File → reason.
        ignored: Hidden files and sidecars → reason.
        rejected_images: Rejects that were opened, by case.
        seconds: Time taken.
        peak_memory_gb: Most memory that a process held, in GB (10⁹ bytes), if it was another than this one.
    """

    out: Path
    bundle: BundleFacts
    settings: dict[str, Any] = field(default_factory=dict)
    images: list[PredictedImage] = field(default_factory=list)
    rejected: dict[str, str] = field(default_factory=dict)
    ignored: dict[str, str] = field(default_factory=dict)
    rejected_images: list[tuple[InputFile, str]] = field(default_factory=list)
    seconds: float = 0.0
    peak_memory_gb: float | None = None

    def summary(self) -> dict[str, Any]:
        """The result as plain values, for ``--json``."""
        return {
            "out": str(self.out),
            "predictions": [image.row for image in self.images],
            "rejected": self.rejected,
            "ignored": self.ignored,
            "seconds": round(self.seconds, 2),
        }


def predict_classification(
    bundle: Path,
    inputs: Sequence[Path],
    out: Path,
    *,
    found: FoundInputs | None = None,
    checkpoint: Path | None = None,
    explain: bool = False,
    device: str | None = None,
    fast: bool = True,
    backend: str | None = None,
    progress: Progress | None = None,
) -> ClassificationResult:
    """Classify images with a bundle.

    Writes to ``out``: ``predictions.csv``, ``run.json``, ``index.html``, and with ``explain`` the heat maps of
    :mod:`medimg3d.workflows.explain`. The probabilities are those of ``python -m monai.bundle run --config_file
    configs/inference.json``, within 1e-4 with ``fast`` or a backend in float32.

    Args:
        bundle: Folder of a classification bundle.
        inputs: Files, or folders that are searched through: films (JPEG, PNG, BMP, TIFF, DICOM) for a 2D
            network, volumes (NIfTI) for a 3D one.
        out: Folder to write to; files of the same names are replaced.
        found: The files of ``inputs`` to take; looked for if None.
        checkpoint: Weights instead of the bundle's own.
        explain: Draw where the network looked.
        device: ``"cpu"``, ``"cuda"``, …; the bundle's own choice if None.
        fast: Merge the bundle's ``inference_fast.json``, if it has one: several images at once.
        backend: What runs the network (:mod:`medimg3d.inference.backends`): a name, or ``"auto"`` for the fastest
            of a short trial; plain torch if None. Heat maps are always torch's.
        progress: Called before the first image and after each.

    Returns:
        Accepted and rejected files; all may be rejected.

    Raises:
        UsageError: No bundle, no such input, a folder without images, ``out`` is an input folder, or a backend for
            images of no fixed size.
        BundleError: The bundle is no classifier, cannot be built, or its weights do not fit.
        MissingExtraError: The package of the backend is not installed.
        BackendError: The backend cannot run here, or cannot run this network.
    """
    started = time.monotonic()
    folder = BundleFolder(bundle)
    found = found or find_classified(folder, inputs, out)
    fast = fast and has_fast_inference(folder)
    model = load_classifier(folder, checkpoint=checkpoint, device=device, fast=fast)
    model = with_image_backend(model, backend)
    result = ClassificationResult(
        out, model.facts, model.settings(folder), rejected=dict(found.rejected), ignored=dict(found.ignored)
    )
    out.mkdir(parents=True, exist_ok=True)
    try:
        _predict_all(found.images, inputs, model, result, explain=explain, progress=progress)
    finally:  # also when the user stops: what is finished is listed
        result.seconds = time.monotonic() - started
        write_tables(result, model.decision)
    return result


def find_classified(bundle: BundleFolder, inputs: Sequence[Path], out: Path) -> FoundInputs:
    """The films or volumes that a classifier takes.

    Args:
        bundle: The classifier.
        inputs: Files, or folders that are searched through.
        out: Folder of the results, which is passed over.

    Raises:
        UsageError: No such input, a folder without images, or ``out`` is an input folder.
    """
    if any(path.is_dir() and path.resolve() == out.resolve() for path in inputs):
        raise UsageError(
            f"--out is the input folder {out}; choose another, so that images and results stay apart."
        )
    return find_inputs(inputs, without=out, films=num_spatial_dims(bundle) == 2)


def _predict_all(
    images: Sequence[InputFile],
    inputs: Sequence[Path],
    model: Classifier,
    result: ClassificationResult,
    *,
    explain: bool,
    progress: Progress | None,
) -> None:
    if progress is not None:
        progress(0, len(images))
    with closing(classified(images, model)) as outcomes:
        for done, (image, outcome) in enumerate(outcomes, start=1):
            try:
                if isinstance(outcome, Exception):
                    raise outcome
                file = _file_name(image, inputs)
                result.images.append(_predicted(image, file, outcome, model, result.out, explain=explain))
            except Exception as err:  # noqa: BLE001 - whatever MONAI stumbles over must not stop the rest
                reason = _reason(image, err)
                result.rejected[image.key] = reason
                result.rejected_images.append((image, reason))
            if progress is not None:
                progress(done, len(images))


def _file_name(image: InputFile, inputs: Sequence[Path]) -> str:
    """The path below the input folder; the file's name where it was named itself."""
    for given in inputs:
        if given.is_dir() and image.path.is_relative_to(given.resolve()):
            return image.path.relative_to(given.resolve()).as_posix()
    return image.path.name


def _reason(image: InputFile, error: Exception) -> str:
    """Why an image is rejected."""
    if isinstance(error, Medimg3dError):
        return str(error)
    _log.debug("%s", image.case, exc_info=error)
    return f"the model failed on it ({type(error).__name__}); run it alone with --debug"


def _predicted(
    image: InputFile, file: str, found: Classified, model: Classifier, out: Path, *, explain: bool
) -> PredictedImage:
    heat_map = None
    if explain:
        from medimg3d.workflows.explain import explain_case

        heat_map = explain_case(model, image.path, out, case=image.case).overlay
    return PredictedImage(
        file=file,
        case=image.case,
        path=image.path,
        image_sha256=found.image_sha256,
        row=prediction_row(file, image.case, list(found.probabilities), model.decision),
        heat_map=heat_map,
    )


def write_tables(result: ClassificationResult, decision: Decision) -> None:
    """Write ``predictions.csv``, ``run.json`` and ``index.html``.

    Args:
        result: What was found.
        decision: Of the bundle.
    """
    rows = [image.row for image in result.images]
    write_predictions(rows, decision.classes, result.out / PREDICTIONS)
    write_run_record(
        _records(result),
        result.bundle,
        result.seconds,
        result.out / "run.json",
        settings=result.settings,
        peak_memory_gb=result.peak_memory_gb,
    )
    _write_index(result, decision)


def _records(result: ClassificationResult) -> list[dict[str, Any]]:
    """One entry a file; names only, since the folders above may name a patient."""
    done = [
        {
            "case": image.case,
            "input": image.path.name,
            "input_sha256": image.image_sha256,
            "status": "done",
            "output": PREDICTIONS,
        }
        for image in result.images
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


def _write_index(result: ClassificationResult, decision: Decision) -> None:
    from medimg3d.report.decisions_page import DecisionRow, decisions_page

    rule = (
        "The likeliest class decides."
        if decision.threshold is None
        else f"{decision.positive} from a probability of {decision.threshold:.3f} on ({decision.rule}; "
        f"chosen on: {decision.chosen_on})."
    )
    decisions_page(
        [
            DecisionRow(
                file=image.file,
                probability=float(image.row["probability"]),
                decision=image.row["decision"],
                unsure=image.row["unsure"] == "yes",
                heat_map=image.heat_map.relative_to(result.out).as_posix() if image.heat_map else None,
            )
            for image in result.images
        ],
        of_class=decision.positive or "the decided class",
        rule=rule,
        rejected={Path(key).name: reason for key, reason in result.rejected.items()},
        bundle=" ".join(part for part in (result.bundle.name, result.bundle.version) if part),
        out=result.out / "index.html",
    )
