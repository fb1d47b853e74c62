"""From a classification bundle and images to heat maps on the images' own grids, with a picture of each.

One case at a time: a file that cannot be used is rejected with its reason and the rest goes on; a finished
case is whole on disk whatever happens to the next.
"""

from __future__ import annotations

import csv
import io
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medimg3d.atomic import write_text
from medimg3d.bundle.classifier import Classifier, load_classifier
from medimg3d.bundle.folder import BundleFolder
from medimg3d.bundle.inference import BundleFacts
from medimg3d.data.content_hash import content_sha256
from medimg3d.data.inputs import FoundInputs, InputFile, file_stem, find_inputs
from medimg3d.errors import Medimg3dError, UsageError
from medimg3d.explain.heatmaps import METHODS, gradcampp, occlusion
from medimg3d.explain.input_grid import on_input_grid
from medimg3d.explain.layers import check_layer, find_target_layer
from medimg3d.explain.source_image import SourceImage, read_source
from medimg3d.workflows.prediction_record import write_run_record

if TYPE_CHECKING:
    import torch

FILE_SUFFIX = {"gradcampp": "heat", "occlusion": "occlusion"}
TABLE = "heat_maps.csv"
_COLUMNS = ("case", "file", "decision", "class", "probability", "method", "layer", "heat_map", "overlay")

Progress = Callable[[int, int], None]
"""Called with the number of images done and the number of all images."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class HeatMap:
    """One heat map of a case.

    Attributes:
        method: ``"gradcampp"`` or ``"occlusion"``.
        layer: Layer that it was read from; None for occlusion, which needs none.
        values: On the image's own grid, as :attr:`medimg3d.explain.source_image.SourceImage.array`.
        file: ``<case>_heat.nii.gz`` (Grad-CAM++) or ``<case>_occlusion.nii.gz``.
        overlay: Picture, or None if none was asked for.
    """

    method: str
    layer: str | None
    values: NDArray[np.float32]
    file: Path
    overlay: Path | None


@dataclass(frozen=True)
class ExplainedCase:
    """A case with its heat maps.

    Attributes:
        case: Name of the case.
        image: The image.
        image_sha256: Hash of its file.
        decision: Class that was decided.
        class_name: Class that is explained.
        probability: Calibrated probability of that class.
        maps: One a method.
    """

    case: str
    image: Path
    image_sha256: str
    decision: str
    class_name: str
    probability: float
    maps: tuple[HeatMap, ...]

    @property
    def overlay(self) -> Path | None:
        """Picture of the first heat map, or None if none was asked for."""
        return self.maps[0].overlay


@dataclass
class ExplainResult:
    """What became of each file.

    Attributes:
        out: Folder with everything.
        facts: Of the bundle.
        cases: Explained cases, in order.
        rejected: File → reason.
        ignored: Hidden files and sidecars → reason.
        seconds: Time taken.
    """

    out: Path
    facts: BundleFacts
    cases: list[ExplainedCase] = field(default_factory=list)
    rejected: dict[str, str] = field(default_factory=dict)
    ignored: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    def summary(self) -> dict[str, Any]:
        """The result as plain values, for ``--json``."""
        return {
            "out": str(self.out),
            "cases": [
                {
                    "case": case.case,
                    "input": str(case.image),
                    "decision": case.decision,
                    "class": case.class_name,
                    "probability": case.probability,
                    "maps": [
                        {
                            "method": one.method,
                            "layer": one.layer,
                            "heat_map": str(one.file),
                            "overlay": one.overlay and str(one.overlay),
                        }
                        for one in case.maps
                    ],
                }
                for case in self.cases
            ],
            "rejected": self.rejected,
            "ignored": self.ignored,
            "seconds": round(self.seconds, 2),
        }


def explain(
    bundle: Path,
    inputs: Sequence[Path],
    out: Path,
    *,
    methods: Sequence[str] = ("gradcampp",),
    class_name: str | None = None,
    layer: str | None = None,
    checkpoint: Path | None = None,
    overlays: bool = True,
    device: str | None = None,
    progress: Progress | None = None,
) -> ExplainResult:
    """Draw where the network of a classification bundle looked.

    Writes to ``out``: ``<case>_heat.nii.gz`` (Grad-CAM++, 0 to 1) and ``<case>_occlusion.nii.gz`` (log-odds),
    float32, on the image's own grid; ``overlays/<case>_heat.png`` and ``overlays/<case>_occlusion.png``;
    ``heat_maps.csv`` and ``run.json``.

    Args:
        bundle: Folder of a MONAI Bundle for classification.
        inputs: Films or volumes, or folders that are searched through.
        out: Folder to write to; files of the same names are replaced.
        methods: ``"gradcampp"``, ``"occlusion"``.
        class_name: Class to explain; each image's decided class if None.
        layer: Layer for Grad-CAM++; found if None.
        checkpoint: Weights instead of the bundle's own.
        overlays: Draw a picture a map.
        device: ``"cpu"``, ``"cuda"``, …; the bundle's own choice if None.
        progress: Called before the first image and after each.

    Returns:
        Explained and rejected files; all may be rejected.

    Raises:
        UsageError: No bundle, input, class, layer or method of that name, or ``out`` is an input folder.
        BundleError: The bundle cannot be built, is no classifier, or its weights do not fit.
    """
    folder = BundleFolder(bundle)
    classifier = load_classifier(folder, checkpoint=checkpoint, device=device)
    found = _find(inputs, out, films=classifier.num_spatial_dims == 2)
    return explain_images(
        classifier,
        found,
        out,
        methods=methods,
        class_name=class_name,
        layer=layer,
        overlays=overlays,
        progress=progress,
    )


def explain_images(
    classifier: Classifier,
    found: FoundInputs,
    out: Path,
    *,
    methods: Sequence[str] = ("gradcampp",),
    class_name: str | None = None,
    layer: str | None = None,
    overlays: bool = True,
    progress: Progress | None = None,
) -> ExplainResult:
    """Explain what was found, with a classifier that is loaded; else as :func:`explain`."""
    started = time.monotonic()
    _check_request(classifier, methods, class_name, layer)
    result = ExplainResult(out, classifier.facts, rejected=dict(found.rejected), ignored=dict(found.ignored))
    out.mkdir(parents=True, exist_ok=True)
    opened: dict[str, str] = {}
    try:
        for done, image in enumerate(found.images):
            if progress is not None:
                progress(done, len(found.images))
            opened[image.key] = image.case
            with _rejecting(image, result):
                result.cases.append(
                    explain_case(
                        classifier,
                        image.path,
                        out,
                        case=image.case,
                        methods=methods,
                        class_name=class_name,
                        layer=layer,
                        overlays=overlays,
                    )
                )
        if progress is not None:
            progress(len(found.images), len(found.images))
    finally:  # also when the user stops: what is finished is listed
        result.seconds = time.monotonic() - started
        _write_table(result, out / TABLE)
        write_run_record(_records(result, opened), classifier.facts, result.seconds, out / "run.json")
    return result


def explain_case(
    classifier: Classifier,
    path: Path,
    out: Path,
    *,
    case: str | None = None,
    methods: Sequence[str] = ("gradcampp",),
    class_name: str | None = None,
    layer: str | None = None,
    overlays: bool = True,
) -> ExplainedCase:
    """Explain one image.

    Args:
        classifier: A loaded classification bundle.
        path: Film or volume.
        out: Folder to write to.
        case: Name of the case; that of the file if None.
        methods: ``"gradcampp"``, ``"occlusion"``.
        class_name: Class to explain; the decided one if None.
        layer: Layer for Grad-CAM++; found if None.
        overlays: Draw a picture a map.

    Raises:
        DataError: The image cannot be used.
        GeometryError: The heat map does not come back onto the image's grid.
        UsageError: No class, layer or method of that name.
        BundleError: The network or preprocessing cannot be explained.
    """
    _check_request(classifier, methods, class_name, layer)
    case = case or file_stem(path)
    source = read_source(
        path,
        num_spatial_dims=classifier.num_spatial_dims,
        num_channels=classifier.facts.num_channels,
    )
    with source.loadable() as file:
        image: Any = classifier.image(file)
    batch = image[None].as_tensor().float().to(classifier.device)
    decision = classifier.decision
    probabilities = decision.probabilities(classifier.logits(batch).numpy())[0]
    decided = decision.decide(probabilities)
    explained = class_name or decided
    index = decision.classes.index(explained)
    probability = float(probabilities[index])
    title = f"{case}: probability of {explained} {probability:.2f}" + (
        f" (decided: {decided})" if explained != decided else ""
    )
    maps = []
    for method in methods:
        heat, used = _heat(classifier.network, batch, index, method, layer)
        own = on_input_grid(heat, image, classifier.preprocessing)
        source.check_shape(own)
        maps.append(_write_map(source, own, method, used, case, title, out, overlays=overlays))
    return ExplainedCase(case, path, content_sha256(path), decided, explained, probability, tuple(maps))


def _find(inputs: Sequence[Path], out: Path, *, films: bool) -> FoundInputs:
    if any(path.is_dir() and path.resolve() == out.resolve() for path in inputs):
        raise UsageError(
            f"--out is the input folder {out}; choose another, so that images and results stay apart."
        )
    found = find_inputs(inputs, without=out, films=films)
    sources = {image.path for image in found.images}
    for image in found.images:
        for suffix in FILE_SUFFIX.values():
            if (target := out / f"{image.case}_{suffix}.nii.gz").resolve() in sources:
                raise UsageError(f"{target.name} would replace an input of that name; choose another --out.")
    return found


def _check_request(
    classifier: Classifier, methods: Sequence[str], class_name: str | None, layer: str | None
) -> None:
    unknown = [method for method in methods if method not in METHODS]
    if unknown or not methods:
        raise UsageError(f"Found the methods {list(methods)}; expected some of {', '.join(METHODS)}.")
    classes = classifier.decision.classes
    if class_name is not None and class_name not in classes:
        raise UsageError(f"The bundle knows no class {class_name!r}; expected one of {', '.join(classes)}.")
    if layer is not None:
        check_layer(classifier.network, layer)


@contextmanager
def _rejecting(image: InputFile, result: ExplainResult) -> Iterator[None]:
    """One bad image is rejected with its reason; a wrong request stops everything."""
    try:
        yield
    except UsageError:
        raise
    except Medimg3dError as err:
        result.rejected[image.key] = str(err)
    except Exception as err:  # noqa: BLE001 - whatever MONAI stumbles over must not stop the rest
        _log.debug("%s", image.case, exc_info=True)
        result.rejected[image.key] = (
            f"the model failed on it ({type(err).__name__}); run it alone with --debug"
        )


def _heat(
    network: torch.nn.Module, batch: torch.Tensor, index: int, method: str, layer: str | None
) -> tuple[NDArray[np.float32], str | None]:
    """The heat map on the network's grid, and the layer it was read from."""
    if method == "occlusion":
        return occlusion(network, batch, index), None
    used = find_target_layer(network, batch, layer)
    return gradcampp(network, batch, index, layer=used), used


def _write_map(
    source: SourceImage,
    heat: NDArray[np.float32],
    method: str,
    layer: str | None,
    case: str,
    title: str,
    out: Path,
    *,
    overlays: bool,
) -> HeatMap:
    name = f"{case}_{FILE_SUFFIX[method]}"
    overlay = _draw(source, heat, method, title, out / "overlays" / f"{name}.png") if overlays else None
    # Last: where the map is, everything of it is.
    file = source.write_heat(heat, out / f"{name}.nii.gz")
    return HeatMap(method, layer, heat, file, overlay)


def _draw(source: SourceImage, heat: NDArray[np.float32], method: str, title: str, path: Path) -> Path:
    from medimg3d.report.heat_overlay import SCALES, film_heat_figure, volume_heat_figure

    scale = SCALES[method]
    if source.volume is None:
        return film_heat_figure(
            source.array, heat, path=path, title=title, scale=scale, spacing_mm=source.spacing_mm
        )
    return volume_heat_figure(source.array, heat, source.affine, path=path, title=title, scale=scale)


def _write_table(result: ExplainResult, path: Path) -> None:
    """One row a heat map."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for case in result.cases:
        for one in case.maps:
            files = [
                file.relative_to(result.out).as_posix() if file else "" for file in (one.file, one.overlay)
            ]
            about = [case.case, case.image.name, case.decision, case.class_name, f"{case.probability:.6f}"]
            writer.writerow([*about, one.method, one.layer or "", *files])
    write_text(path, text.getvalue())


def _records(result: ExplainResult, opened: dict[str, str]) -> list[dict[str, Any]]:
    """One entry a file; names only, since the folders above may name a patient."""
    done = [
        {
            "case": case.case,
            "input": case.image.name,
            "input_sha256": case.image_sha256,
            "status": "done",
            "output": [one.file.name for one in case.maps],
        }
        for case in result.cases
    ]
    rejected = [
        {
            "case": opened.get(key),
            "input": Path(key).name,
            "input_sha256": content_sha256(Path(key)),
            "status": "rejected",
            "reason": reason,
            "output": None,
        }
        for key, reason in result.rejected.items()
    ]
    return done + rejected
