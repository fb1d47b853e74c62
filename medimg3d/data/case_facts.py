"""What is known of one case of a datalist after its files were read once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from medimg3d.data.datalist import Case, Datalist, Section
from medimg3d.data.fingerprint import (
    ImageFingerprint,
    StructureFingerprint,
    fingerprint_image,
    fingerprint_structures,
)
from medimg3d.data.pixels import Pixels, read_pixels
from medimg3d.errors import DataError, GeometryError


@dataclass(frozen=True, eq=False)
class CaseFacts:
    """One case and what its files are.

    Attributes:
        name: Unique name of the case.
        section: The list it stands in.
        case: As listed.
        class_name: Class of the whole image; None where it has none.
        images: Name of the image (``image``, ``ct``, ``T1``) to its facts; those that could be read.
        structures: Label value to facts; empty without a label map.
        problem: Why a file of the case cannot be used; empty if all can.
    """

    name: str
    section: Section
    case: Case
    class_name: str | None
    images: Mapping[str, ImageFingerprint] = field(default_factory=dict)
    structures: Mapping[int, StructureFingerprint] = field(default_factory=dict)
    problem: str = ""


def read_case_facts(name: str, section: Section, case: Case, datalist: Datalist) -> CaseFacts:
    """Read all files of a case; what fails becomes its ``problem``, the rest is kept."""
    images: dict[str, ImageFingerprint] = {}
    first: Pixels | None = None
    problems: list[str] = []
    for word, path in named_images(case, datalist).items():
        try:
            pixels = read_pixels(path)
            images[word] = fingerprint_image(pixels, path)
        except (DataError, GeometryError, OSError, MemoryError) as err:
            problems.append(f"{word} {_reason(err)}")
            continue
        first = first or pixels
    structures: dict[int, StructureFingerprint] = {}
    if case.label is not None and first is not None:
        try:
            structures = fingerprint_structures(read_pixels(case.label, as_label=True), first)
        except (DataError, GeometryError, OSError, MemoryError) as err:
            problems.append(f"label {_reason(err)}")
    return CaseFacts(name, section, case, class_name(case, datalist), images, structures, "; ".join(problems))


def named_images(case: Case, datalist: Datalist) -> dict[str, Path]:
    """The images of a case by a word for each: their names, their modality, else ``image``, ``image 2``."""
    if case.images:
        return dict(case.images)
    if len(case.files) == 1:
        return {"image": case.files[0]}
    words = [datalist.modality.get(str(n)) or f"image {n + 1}" for n in range(len(case.files))]
    unique = [f"{word} {n + 1}" if words.count(word) > 1 else word for n, word in enumerate(words)]
    return dict(zip(unique, case.files, strict=True))


def class_name(case: Case, datalist: Datalist) -> str | None:
    """The name of the case's class, its index as text where classes have no names; None without a class."""
    label = case.class_label
    if isinstance(label, int) and datalist.classes:
        return datalist.classes[label]
    return None if label is None else str(label)


def _reason(err: Exception) -> str:
    if isinstance(err, (DataError, GeometryError)):
        return str(err)
    return f"cannot be read ({type(err).__name__})"  # the system's own words hold paths
