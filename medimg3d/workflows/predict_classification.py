"""From a classification bundle and images to probabilities and decisions, one row a file.

One image at a time: a file that cannot be used is rejected with its reason and the rest goes on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from medimg3d.bundle.classifier import Classifier, load_classifier, num_spatial_dims
from medimg3d.bundle.folder import BundleFolder
from medimg3d.bundle.inference import BundleFacts
from medimg3d.data.content_hash import content_sha256
from medimg3d.data.film_reader import read_film
from medimg3d.data.input_checks import check_volume
from medimg3d.data.inputs import InputFile, find_inputs
from medimg3d.data.volume_file import read_volume
from medimg3d.errors import DataError, Medimg3dError, UsageError
from medimg3d.inference.predictions_csv import PREDICTIONS, prediction_row, write_predictions
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
        images: Accepted images, in order.
        rejected: File → reason.
        ignored: Hidden files and sidecars → reason.
        seconds: Time taken.
    """

    out: Path
    bundle: BundleFacts
    images: list[PredictedImage] = field(default_factory=list)
    rejected: dict[str, str] = field(default_factory=dict)
    ignored: dict[str, str] = field(default_factory=dict)
    rejected_images: list[tuple[InputFile, str]] = field(default_factory=list)
    seconds: float = 0.0

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
    checkpoint: Path | None = None,
    explain: bool = False,
    device: str | None = None,
    progress: Progress | None = None,
) -> ClassificationResult:
    """Classify images with a bundle.

    Writes to ``out``: ``predictions.csv``, ``run.json``, ``index.html``, and with ``explain`` the heat maps of
    :mod:`medimg3d.workflows.explain`.

    Args:
        bundle: Folder of a classification bundle.
        inputs: Files, or folders that are searched through: films (JPEG, PNG, BMP, TIFF, DICOM) for a 2D
            network, volumes (NIfTI) for a 3D one.
        out: Folder to write to; files of the same names are replaced.
        checkpoint: Weights instead of the bundle's own.
        explain: Draw where the network looked.
        device: ``"cpu"``, ``"cuda"``, …; the bundle's own choice if None.
        progress: Called before the first image and after each.

    Returns:
        Accepted and rejected files; all may be rejected.

    Raises:
        UsageError: No bundle, no such input, a folder without images, or ``out`` is an input folder.
        BundleError: The bundle is no classifier, cannot be built, or its weights do not fit.
    """
    started = time.monotonic()
    folder = BundleFolder(bundle)
    if any(path.is_dir() and path.resolve() == out.resolve() for path in inputs):
        raise UsageError(
            f"--out is the input folder {out}; choose another, so that images and results stay apart."
        )
    found = find_inputs(inputs, without=out, films=num_spatial_dims(folder) == 2)
    model = load_classifier(folder, checkpoint=checkpoint, device=device)
    result = ClassificationResult(
        out, model.facts, rejected=dict(found.rejected), ignored=dict(found.ignored)
    )
    out.mkdir(parents=True, exist_ok=True)
    try:
        for done, image in enumerate(found.images):
            if progress is not None:
                progress(done, len(found.images))
            _predict_or_reject(image, _file_name(image, inputs), model, result, explain=explain)
        if progress is not None:
            progress(len(found.images), len(found.images))
    finally:  # also when the user stops: what is finished is listed
        result.seconds = time.monotonic() - started
        _write_tables(result, model)
    return result


def _file_name(image: InputFile, inputs: Sequence[Path]) -> str:
    """The path below the input folder; the file's name where it was named itself."""
    for given in inputs:
        if given.is_dir() and image.path.is_relative_to(given.resolve()):
            return image.path.relative_to(given.resolve()).as_posix()
    return image.path.name


def _predict_or_reject(
    image: InputFile, file: str, model: Classifier, result: ClassificationResult, *, explain: bool
) -> None:
    try:
        result.images.append(_predicted(image, file, model, result.out, explain=explain))
        return
    except Medimg3dError as err:
        reason = str(err)
    except Exception as err:  # noqa: BLE001 - whatever MONAI stumbles over must not stop the rest
        _log.debug("%s", image.case, exc_info=True)
        reason = f"the model failed on it ({type(err).__name__}); run it alone with --debug"
    result.rejected[image.key] = reason
    result.rejected_images.append((image, reason))


def _check_readable(path: Path, model: Classifier) -> None:
    """Refuse a file in words of its own: MONAI's loader hides the reader's reason.

    Raises:
        DataError: It is no film (2D networks) or no volume (3D networks) that can be predicted on.
    """
    if model.num_spatial_dims == 2:
        try:
            read_film(path)
        except ValueError as err:
            raise DataError(str(err)) from err
    else:
        check_volume(read_volume(path), num_channels=model.facts.num_channels)


def _predicted(image: InputFile, file: str, model: Classifier, out: Path, *, explain: bool) -> PredictedImage:
    _check_readable(image.path, model)
    pixels = model.image(image.path)
    if float(pixels.max()) == float(pixels.min()):
        raise DataError("has one value everywhere; expected an image of something")
    if not bool(np.isfinite(pixels.numpy()).all()):
        raise DataError("holds NaN or infinite values; expected numbers")
    probabilities = model.decision.probabilities(model.logits(pixels[None]).numpy())[0]
    heat_map = None
    if explain:
        from medimg3d.workflows.explain import explain_case

        heat_map = explain_case(model, image.path, out, case=image.case).overlay
    return PredictedImage(
        file=file,
        case=image.case,
        path=image.path,
        image_sha256=content_sha256(image.path),
        row=prediction_row(file, image.case, probabilities, model.decision),
        heat_map=heat_map,
    )


def _write_tables(result: ClassificationResult, model: Classifier) -> None:
    rows = [image.row for image in result.images]
    write_predictions(rows, model.decision.classes, result.out / PREDICTIONS)
    write_run_record(_records(result), result.bundle, result.seconds, result.out / "run.json")
    _write_index(result, model)


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


def _write_index(result: ClassificationResult, model: Classifier) -> None:
    from medimg3d.report.decisions_page import DecisionRow, decisions_page

    decision = model.decision
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
