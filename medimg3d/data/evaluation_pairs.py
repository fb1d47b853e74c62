"""Which prediction belongs to which reference label map, by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from medimg3d.data.datalist import Case, Datalist
from medimg3d.data.datalist_file import load_datalist
from medimg3d.errors import UsageError

NIFTI_ENDINGS = (".nii.gz", ".nii")
PREDICTION_ENDING = "_seg"
_REFERENCE_ENDINGS = ("_seg", "_label", "_labels", "_mask", "_gt")


@dataclass(frozen=True)
class Reference:
    """A reference label map and what is known of its case.

    Attributes:
        name: Name of the case.
        label: Label map.
        image: Image, or None if not known.
        patient: Identifies the patient, or None if not known.
    """

    name: str
    label: Path
    image: Path | None = None
    patient: str | None = None


@dataclass(frozen=True)
class References:
    """All references, and the names of their classes as far as the source tells.

    Attributes:
        cases: References by name.
        class_names: Label → name, without the background.
        datalist: The list that they come from, if one does.
    """

    cases: Mapping[str, Reference]
    class_names: Mapping[int, str] = field(default_factory=dict)
    datalist: Datalist | None = None


@dataclass(frozen=True)
class Pair:
    """A reference and the prediction of its case.

    Attributes:
        reference: The reference.
        prediction: The predicted label map.
    """

    reference: Reference
    prediction: Path


def find_references(labels: Path) -> References:
    """The references of a datalist, of a Decathlon root, or of a folder of label maps.

    Raises:
        UsageError: No such file or folder, or no label map in it.
        DataError: A datalist that cannot be read.
    """
    listed = labels / "dataset.json" if labels.is_dir() else labels
    if listed.is_file() and listed.suffix.lower() == ".json":
        found = _from_datalist(listed)
    elif labels.is_dir():
        found = References({name: Reference(name, path) for name, path in nifti_files(labels).items()})
    else:
        raise UsageError(f"{labels} is no folder and no datalist (.json); give the labels as one of them.")
    if not found.cases:
        raise UsageError(
            f"{labels} has no label map; expected NIfTI files or a datalist whose cases have labels."
        )
    return found


def find_predictions(predictions: Path) -> dict[str, Path]:
    """Predictions by the name of their case: ``<case>_seg.nii.gz``, else ``<case>.nii.gz``.

    Raises:
        UsageError: No such folder, or no NIfTI file in it.
    """
    if not predictions.is_dir():
        raise UsageError(f"{predictions} is no folder; give the folder that holds the predicted label maps.")
    files = nifti_files(predictions)
    if not files:
        raise UsageError(f"{predictions} has no NIfTI file; expected predictions named CASE_seg.nii.gz.")
    marked = {
        name.removesuffix(PREDICTION_ENDING): path
        for name, path in files.items()
        if name.endswith(PREDICTION_ENDING)
    }
    return files | marked


def match_prediction(reference: Reference, predictions: Mapping[str, Path]) -> Path | None:
    """The prediction of a reference: by its name, its label's or its image's; None if there is none."""
    names = [reference.name, file_stem(reference.label)]
    if reference.image is not None:
        names.append(file_stem(reference.image))
    names += [
        name.removesuffix(ending)
        for name in tuple(names)
        for ending in _REFERENCE_ENDINGS
        if name.endswith(ending)
    ]
    return next((predictions[name] for name in names if name in predictions), None)


def nifti_files(folder: Path) -> dict[str, Path]:
    """NIfTI files directly in a folder by name without ending, in order; hidden files are passed over."""
    files = sorted(
        path
        for path in folder.iterdir()
        if path.is_file() and not path.name.startswith(".") and path.name.lower().endswith(NIFTI_ENDINGS)
    )
    return {file_stem(path): path for path in files}


def file_stem(path: Path) -> str:
    """File name without ``.nii.gz`` and the like."""
    name = path.name
    ending = next((ending for ending in NIFTI_ENDINGS if name.lower().endswith(ending)), path.suffix)
    return name[: len(name) - len(ending)]


def _from_datalist(path: Path) -> References:
    datalist = load_datalist(path)
    cases = {
        name: Reference(name, case.label, _first_image(case), case.patient)
        for name, _, case in datalist.named_cases()
        if case.label is not None
    }
    names = {label: name for label, name in datalist.labels.items() if label != 0}
    return References(cases, names, datalist)


def _first_image(case: Case) -> Path | None:
    """The first image file; None for a DICOM folder, which no overlay is drawn of."""
    first = case.files[0]
    return None if first.is_dir() else first
