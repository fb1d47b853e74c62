"""One predicted case on disk: label map, picture, page, and its record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medimg3d.bundle.inference import BundleFacts
from medimg3d.data.content_hash import content_sha256
from medimg3d.data.fast_nifti_writer import write_label_nifti
from medimg3d.data.flat_image import is_flat
from medimg3d.data.inputs import InputFile
from medimg3d.data.label_regions import LabelRegions
from medimg3d.data.volume_file import Volume
from medimg3d.workflows.prediction_record import CaseVolumes

UNKNOWN_SIZE = "the file states no voxel size: predicted as if its numbers were mm, volumes left blank"
FLAT = "a 2D image has no volume: volumes left blank"


@dataclass(frozen=True)
class PredictedCase:
    """A case with its label map.

    Attributes:
        case: Name of the case.
        image: The image.
        image_sha256: Hash of its file; of several files of the first.
        label_map: ``<case>_seg.nii.gz``.
        volumes: Volumes and voxel counts of its structures.
        overlay: Picture, or None if none was asked for.
        report: Page, or None if none was asked for.
        note: What a reader should know.
        seconds: Stage (load, work) → wall time in s; empty where it was not measured.
        further: Files of the further channels, in order.
        further_sha256: Their hashes.
    """

    case: str
    image: Path
    image_sha256: str
    label_map: Path
    volumes: CaseVolumes
    overlay: Path | None = None
    report: Path | None = None
    note: str = ""
    seconds: Mapping[str, float] = field(default_factory=dict)
    further: tuple[Path, ...] = ()
    further_sha256: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file of the image, in the order of the channels."""
        return (self.image, *self.further)

    @property
    def sha256(self) -> tuple[str, ...]:
        """Their hashes."""
        return (self.image_sha256, *self.further_sha256)

    def as_json(self, out: Path) -> dict[str, Any]:
        """Plain values; files relative to the folder of the predictions."""
        files = {"label_map": self.label_map, "overlay": self.overlay, "report": self.report}
        return {
            "case": self.case,
            "image_sha256": self.image_sha256,
            **({"further_sha256": list(self.further_sha256)} if self.further_sha256 else {}),
            **{name: file and file.relative_to(out).as_posix() for name, file in files.items()},
            "label_map_sha256": content_sha256(self.label_map),
            "voxels": self.volumes.voxels,
            "ml": self.volumes.ml,
            "spacing_mm": self.volumes.spacing_mm,
            "note": self.note,
            "seconds": {stage: round(seconds, 3) for stage, seconds in self.seconds.items()},
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any], image: InputFile, out: Path) -> PredictedCase | None:
        """The case of a record; None if a file of it is gone or the label map has changed."""
        recorded = (content["image_sha256"], *content.get("further_sha256", ()))
        if len(recorded) != len(image.files):
            return None
        files = {name: content[name] and out / content[name] for name in ("label_map", "overlay", "report")}
        if not all(file.is_file() for file in files.values() if file):
            return None
        if content_sha256(files["label_map"]) != content["label_map_sha256"]:
            return None
        spacing = content["spacing_mm"]
        volumes = CaseVolumes(
            content["case"], content["voxels"], content["ml"], None if spacing is None else tuple(spacing)
        )
        return cls(
            case=content["case"],
            image=image.path,
            image_sha256=recorded[0],
            further=image.further,
            further_sha256=recorded[1:],
            volumes=volumes,
            note=content["note"],
            seconds=content["seconds"],
            **files,
        )


def label_map_path(out: Path, case: str) -> Path:
    """Where the label map of a case stands."""
    return out / f"{case}_seg.nii.gz"


def write_case(
    image: InputFile,
    volume: Volume,
    labels: NDArray[np.uint8],
    bundle: BundleFacts,
    out: Path,
    *,
    overlays: bool,
    reports: bool,
    seconds: Mapping[str, float],
) -> PredictedCase:
    """Write what was asked for of a case.

    Args:
        image: The image's file.
        volume: The same, read.
        labels: Its label map, shape (I, J, K), or (I, J) of a 2D image.
        bundle: What predicted it.
        out: Folder of the predictions.
        overlays: Draw a picture.
        reports: Write a page.
        seconds: Stage → wall time in s.
    """
    names = bundle.class_names
    regions = LabelRegions.of(dict(bundle.regions))
    volumes = CaseVolumes.of(
        image.case,
        labels,
        names,
        voxel_ml=None if is_flat(labels.shape) else volume.voxel_ml,
        spacing_mm=_spacing_or_none(volume),
        regions=regions,
    )
    overlay, report = _draw(
        image.case, volume, labels, volumes, bundle, out, overlays=overlays, reports=reports
    )
    return PredictedCase(
        case=image.case,
        image=image.path,
        image_sha256=content_sha256(image.path),
        further=image.further,
        further_sha256=tuple(content_sha256(file) for file in image.further),
        # Last: where the label map is, everything of the case is.
        label_map=write_label_nifti(labels, volume.header, label_map_path(out, image.case)),
        volumes=volumes,
        overlay=overlay,
        report=report,
        note="; ".join(_notes(volume, regions)),
        seconds=seconds,
    )


def _notes(volume: Volume, regions: LabelRegions | None) -> list[str]:
    notes = [] if volume.has_known_size else [UNKNOWN_SIZE]
    if regions is not None and regions.lossy:
        pairs = "; ".join(f"{first} where it overlaps {second}" for first, second in regions.lossy)
        notes.append(f"the label map and the volumes lose {pairs} (--region-masks keeps it)")
    return [*notes, FLAT] if is_flat(volume.array.shape) else notes


def _spacing_or_none(volume: Volume) -> tuple[float, float, float] | None:
    return volume.spacing_mm if volume.has_known_size else None


def _draw(
    case: str,
    volume: Volume,
    labels: NDArray[np.uint8],
    volumes: CaseVolumes,
    facts: BundleFacts,
    out: Path,
    *,
    overlays: bool,
    reports: bool,
) -> tuple[Path | None, Path | None]:
    """The overlay and the page as far as they are asked for; the page holds its own copy of the picture."""
    if not (overlays or reports):
        return None, None
    from medimg3d.report.case_overlay import case_overlay
    from medimg3d.report.page import case_page

    with TemporaryDirectory() as temporary:
        overlay = case_overlay(
            volume.array if volume.array.ndim == labels.ndim else volume.array[..., 0],
            labels,
            volume.affine,
            class_names=facts.class_names,
            title=case,
            path=(out / "overlays" if overlays else Path(temporary)) / f"{case}.png",
        )
        report = None
        if reports:
            report = case_page(
                case=case,
                volumes_ml={name: ml for name, ml in volumes.ml.items() if ml is not None},
                overlay=overlay,
                bundle={"name": facts.name, "version": facts.version, "weights_sha256": facts.weights_sha256},
                out=out / "reports" / f"{case}.html",
            )
    return overlay if overlays else None, report
