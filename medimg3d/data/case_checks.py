"""What is checked within one case: can its files be read, are image and label of one grid, are the values right."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise, product
from pathlib import Path

import numpy as np

from medimg3d.data.datalist import Case, Section
from medimg3d.data.facts_reader import FactsReader
from medimg3d.data.finding import Finding
from medimg3d.data.image_facts import ImageFacts, corner_distance_mm


@dataclass(frozen=True, eq=False)
class ReadCase:
    """A case and what its files hold.

    Attributes:
        name: Its name, unique in the datalist.
        section: The list that it stands in.
        case: As listed.
        images: Facts of its images, in order; empty if one cannot be read.
        label: Facts of its label map.
        findings: What was found within it.
    """

    name: str
    section: Section
    case: Case
    images: tuple[ImageFacts, ...] = ()
    label: ImageFacts | None = None
    findings: list[Finding] = field(default_factory=list)

    @property
    def label_values(self) -> tuple[int, ...]:
        """Whole numbers in the label map, ascending."""
        return () if self.label is None else tuple(int(value) for value in self.label.label_values)

    def finding(
        self,
        defect: str,
        found: str,
        expected: str,
        cure: str,
        *,
        file: Path | None = None,
        severe: bool = True,
    ) -> Finding:
        """A finding on this case, by default on its first image."""
        return Finding(
            defect, self.name, self.section, file or self.case.files[0], found, expected, cure, severe
        )


def files_to_read(case: Case) -> list[tuple[Path, bool]]:
    """Every file of a case, and whether it is read as a label."""
    label = [] if case.label is None or case.label in case.files else [(case.label, True)]
    return [(file, False) for file in case.files] + label


def read_case(
    name: str,
    section: Section,
    case: Case,
    reader: FactsReader,
    *,
    labels: Collection[int],
    tolerance_mm: float,
) -> ReadCase:
    """Read the files of a case and check what can be said of it alone.

    Args:
        name: Its name, unique in the datalist.
        section: The list that it stands in.
        case: As listed.
        reader: Gives the facts of files.
        labels: Values that a label map may hold; any whole number from 0 if empty.
        tolerance_mm: Allowed distance between the corners of the grids of image and label.

    Returns:
        The case, its facts and the findings.
    """
    findings: list[Finding] = []
    found = partial(Finding, case=name, section=section)
    images = [reader.facts(file) for file in case.files]
    for n, (file, facts) in enumerate(zip(case.files, images, strict=True)):
        word = image_word(case, n)
        if isinstance(facts, str):
            findings.append(_unreadable(facts, word, found, file))
        else:
            findings += _check_voxels(facts, word, found, file)
    readable = tuple(facts for facts in images if not isinstance(facts, str))
    if len(readable) < len(images):
        readable = ()
    findings += _check_channels(case, readable, found, tolerance_mm)
    label = None
    if case.label is not None:
        label, of_label = _check_label(case, readable, reader, found, labels, tolerance_mm)
        findings += of_label
    return ReadCase(name, section, case, readable, label, findings)


def image_word(case: Case, index: int) -> str:
    """How a message calls the image: "image", "image 2 of 4", "image pet"."""
    if case.images:
        return f"image {list(case.images)[index]}"
    return "image" if len(case.files) == 1 else f"image {index + 1} of {len(case.files)}"


def times(shape: tuple[int, ...]) -> str:
    """A shape as people write it: 4x5x6."""
    return "x".join(str(size) for size in shape)


def _unreadable(reason: str, word: str, found: partial[Finding], file: Path) -> Finding:
    """The reader's sentence "is so; expected that. Do this" in its parts."""
    what, _, rest = reason.partition("; expected ")
    expected, _, cure = rest.partition(". ")
    cure = cure or "Restore or repair the file, or take the case out of the datalist"
    return found(
        "unreadable", file=file, found=f"{word} {what}", expected=expected or "a whole file", cure=cure
    )


def _check_voxels(facts: ImageFacts, word: str, found: partial[Finding], file: Path) -> list[Finding]:
    if not facts.finite:
        return [
            found(
                "not finite",
                file=file,
                found=f"{word} holds NaN or infinity",
                expected="finite numbers",
                cure="One such voxel ruins a training: set it to the background's value, or take the case out",
            )
        ]
    if facts.box is None:
        return [
            found(
                "constant",
                file=file,
                found=f"{word} holds one value only",
                expected="a picture",
                cure="Export it anew, or take the case out",
                severe=False,
            )
        ]
    return []


def _check_channels(
    case: Case, images: tuple[ImageFacts, ...], found: partial[Finding], tolerance_mm: float
) -> list[Finding]:
    """Whether a list of images lies on one grid; named ones may differ (see :mod:`medimg3d.data.set_checks`)."""
    n, difference = (0, "") if case.images else other_grid(images, tolerance_mm)
    if not difference:
        return []
    return [
        found(
            "grid",
            file=case.files[n],
            found=f"the images of the channels {difference}",
            expected="one grid",
            cure="Resample them to the first image's grid",
        )
    ]


def other_grid(images: Sequence[ImageFacts], tolerance_mm: float) -> tuple[int, str]:
    """Number of the first image on another grid than the one before it, and how they differ; empty if none does."""
    pairs = enumerate(pairwise(images), start=1)
    differing = ((n, grid_difference(a, b, tolerance_mm)) for n, (a, b) in pairs)
    return next(((n, text) for n, text in differing if text), (0, ""))


def _check_label(
    case: Case,
    images: tuple[ImageFacts, ...],
    reader: FactsReader,
    found: partial[Finding],
    labels: Collection[int],
    tolerance_mm: float,
) -> tuple[ImageFacts | None, list[Finding]]:
    """Facts of the label map, unless its values are wrong, and what was found."""
    assert case.label is not None  # the caller looked
    on_label = partial(found, file=case.label)
    if case.label in case.files:
        finding = on_label(
            "label",
            found="image and label are the same file",
            expected="two files",
            cure="Name the label map in the datalist",
        )
        return None, [finding]
    label = reader.facts(case.label, as_label=True)
    if isinstance(label, str):
        return None, [_unreadable(label, "label", found, case.label)]
    if label.channels > 1:
        finding = on_label(
            "label values",
            found=f"label has {label.channels} colour channels",
            expected="one number a voxel",
            cure="Export the label map with one number a structure, not a colour",
        )
        return None, [finding]
    wrong_values = _check_values(label, on_label, labels)
    findings = wrong_values + _check_grids(images, label, on_label, tolerance_mm)
    if not any(label.label_values) and not wrong_values:
        findings.append(
            on_label(
                "empty label",
                found="label is empty (background only)",
                expected="a structure",
                cure="Right for a healthy case, else restore the lost label",
                severe=False,
            )
        )
    return None if wrong_values else label, findings


def _check_values(label: ImageFacts, on_label: partial[Finding], labels: Collection[int]) -> list[Finding]:
    odd = [value for value in label.label_values if value != value // 1]  # NaN differs from itself
    if odd:
        return [
            on_label(
                "fractional label",
                found=f"label holds {_some(odd)}",
                expected="whole numbers",
                cure="Export the label map anew; resample label maps with nearest neighbour",
            )
        ]
    values = [int(value) for value in label.label_values]
    unknown = [value for value in values if (value not in labels if labels else value < 0)]
    if not unknown:
        return []
    return [
        on_label(
            "label values",
            found=f"label holds {_some(unknown)}",
            expected=f"one of {sorted(labels)}" if labels else "values from 0",
            cure="Correct the label map; a structure of its own gets the next number, in every label map, and its "
            'name in the datalist\'s "labels"'
            if labels
            else "Correct the label map",
        )
    ]


def _check_grids(
    images: tuple[ImageFacts, ...], label: ImageFacts, on_label: partial[Finding], tolerance_mm: float
) -> list[Finding]:
    differences = [grid_difference(image, label, tolerance_mm) for image in images]
    if not images:
        return []
    if all(differences):
        outside = all(_lies_outside(image, label) for image in images)
        beyond = ", and the label's foreground lies wholly outside the image" if outside else ""
        return [
            on_label(
                "grid",
                found=f"image and label {differences[0]}{beyond}",
                expected="the same grid",
                cure="Take the label map that was drawn on this image; if only its header is wrong, copy the "
                "image's geometry into it; else resample it with nearest neighbour",
            )
        ]
    if all(image.box and label.box and _apart(image.box, label.box) for image in images):
        return [
            on_label(
                "label outside",
                found="the label's foreground lies where the image holds nothing but its background value",
                expected="a structure inside the picture",
                cure="Look at both in a viewer: the label is flipped, shifted or of another image",
            )
        ]
    return []


def grid_difference(first: ImageFacts, second: ImageFacts, tolerance_mm: float) -> str:
    """How two grids differ, empty if they do not; a time axis of the first is left aside."""
    shape = first.shape[:3] if len(second.shape) == 3 else first.shape
    if shape != second.shape:
        return f"differ in shape ({times(first.shape)} and {times(second.shape)})"
    apart_mm = corner_distance_mm(first, second)
    if apart_mm > tolerance_mm:
        return f"lie up to {apart_mm:.3g} mm apart (allowed {tolerance_mm:g} mm)"
    return ""


def stacking_difference(first: ImageFacts, own: ImageFacts) -> str:
    """How two images differ that MONAI does not stack as channels; empty if it does.

    Its ``LoadImage`` compares affines by ``np.allclose``, far more strictly than is asked of an image and its label.
    """
    if first.shape != own.shape:
        return f"differ in shape ({times(first.shape)} and {times(own.shape)})"
    if first.affine is None or own.affine is None or np.allclose(own.affine, first.affine):
        return ""
    return f"lie up to {corner_distance_mm(first, own):.3g} mm apart"


def _apart(first: tuple[tuple[int, int], ...], second: tuple[tuple[int, int], ...]) -> bool:
    """Whether two boxes on one grid have no voxel in common."""
    return any(a[1] <= b[0] or b[1] <= a[0] for a, b in zip(first, second, strict=False))


def _lies_outside(image: ImageFacts, label: ImageFacts) -> bool:
    """Whether the label's foreground, placed by its affine, touches no voxel of the image."""
    if image.affine is None or label.affine is None or label.box is None:
        return False
    bounds = [*label.box, (0, 1), (0, 1)][:3]
    corners = np.array([[*corner, 1.0] for corner in product(*((start, stop - 1) for start, stop in bounds))])
    in_image = (np.linalg.inv(image.affine) @ label.affine @ corners.T)[:3]
    size = np.array([*image.shape[:3], 1, 1, 1][:3])
    return bool(((in_image.max(axis=1) < -0.5) | (in_image.min(axis=1) > size - 0.5)).any())


def _some(values: list[float] | list[int]) -> str:
    shown = ", ".join(f"{value:g}" for value in values[:4])
    return f"the value{'s' if len(values) > 1 else ''} {shown}{' and more' if len(values) > 4 else ''}"
