"""Checks every case of a datalist: each ends accepted, or rejected with a reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

from medimg3d.data.datalist import SECTIONS, Case, Datalist, Section, with_cases
from medimg3d.data.image_facts import ImageFacts, corner_distance_mm, read_facts
from medimg3d.errors import DataError, GeometryError

TOLERANCE_MM = 0.1
"""Largest distance between the corners of an image's and its label's grid, in mm."""

Progress = Callable[[int, int], None]
"""Called with the number of cases done and the number of all cases."""


@dataclass(frozen=True)
class CheckReport:
    """What became of each case: ``set(accepted) | set(rejected)`` is the set of all cases.

    Attributes:
        accepted: Names, in the order of checking: test, validation, training.
        rejected: Name to reason.
        warnings: Name to what a person should look at; the case is accepted all the same.
        label_values: Values that occur in the accepted label maps, ascending.

    Raises:
        ValueError: A case is both accepted and rejected.
    """

    accepted: list[str] = field(default_factory=list)
    rejected: dict[str, str] = field(default_factory=dict)
    warnings: dict[str, str] = field(default_factory=dict)
    label_values: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        both = sorted(set(self.accepted) & set(self.rejected))
        if both:
            raise ValueError(f"Cases are both accepted and rejected: {', '.join(both)}.")


class _RejectedError(Exception):
    """The reason why a case is refused."""


@dataclass(frozen=True)
class _Finding:
    """An accepted case: its facts and the remarks on it."""

    section: Section
    facts: tuple[ImageFacts, ...]
    label_values: tuple[int, ...]
    remarks: tuple[str, ...]


def check_datalist(
    datalist: Datalist, *, tolerance_mm: float = TOLERANCE_MM, progress: Progress | None = None
) -> CheckReport:
    """Read every file of a datalist once and check each case.

    Rejected: files missing or unreadable, image and label of different shape or grid, values in a label that
    are not in ``labels`` or no whole numbers, NaN or infinity in an image, a case, image, id or content that
    occurs twice (the first stays; test before validation before training), an image with another number of
    dimensions than most. Warned of: an empty label, named images on different grids, another number of
    channels than most, a patient in training and test.

    Args:
        datalist: What to check.
        tolerance_mm: Allowed distance between the corners of the grids of image and label.
        progress: Called after each case.

    Returns:
        The report, by the names of :meth:`Datalist.named_cases`.
    """
    named = datalist.named_cases()
    checker = _Checker(datalist, tolerance_mm)
    for done, (name, section, case) in enumerate(named, start=1):
        checker.check(name, section, case)
        if progress is not None:
            progress(done, len(named))
    checker.reject_odd_dimensions()
    checker.remark_odd_channels()
    checker.remark_shared_patients(named)
    return checker.report()


def keep_accepted(datalist: Datalist, report: CheckReport) -> Datalist:
    """The datalist without the rejected cases; each case carries its name as ``id``."""
    kept: dict[Section, list[Case]] = {section: [] for section in SECTIONS}
    for name, section, case in datalist.named_cases():
        if name in report.accepted:
            kept[section].append(replace(case, id=name))
    return with_cases(datalist, kept)


class _Checker:
    """Goes through the cases and remembers what it has seen."""

    def __init__(self, datalist: Datalist, tolerance_mm: float) -> None:
        self._labels = datalist.labels
        self._tolerance_mm = tolerance_mm
        self._read: dict[tuple[Path, bool], ImageFacts | str] = {}
        self._by_files: dict[tuple[Path, ...], tuple[str, Section]] = {}
        self._by_content: dict[tuple[str, ...], tuple[str, Section]] = {}
        self._found: dict[str, _Finding] = {}
        self._rejected: dict[str, str] = {}

    def check(self, name: str, section: Section, case: Case) -> None:
        """Accept or reject one case."""
        try:
            self._refuse_listed_twice(name, section, case)
            facts = tuple(self._facts(file, _image_word(case, n)) for n, file in enumerate(case.files))
            remarks = self._check_images(case, facts)
            values, label_remarks = self._check_label(case, facts)
            self._refuse_same_content(name, section, facts)
        except _RejectedError as reason:
            self._rejected[name] = str(reason)
            return
        self._by_files[case.files] = (name, section)
        self._found[name] = _Finding(section, facts, values, remarks + label_remarks)

    def _facts(self, path: Path, word: str, *, as_label: bool = False) -> ImageFacts:
        """Facts of a file, read only the first time; ``word`` names its part in the case."""
        key = (path, as_label)
        if key not in self._read:
            try:
                self._read[key] = read_facts(path, as_label=as_label)
            except (DataError, GeometryError) as err:
                self._read[key] = str(err)
        facts = self._read[key]
        if isinstance(facts, str):
            raise _RejectedError(f"{word} {facts}")
        return facts

    def _refuse_listed_twice(self, name: str, section: Section, case: Case) -> None:
        if case.files in self._by_files:
            first, first_section = self._by_files[case.files]
            raise _RejectedError(f"the same image is listed twice: {_already(first, first_section, section)}")
        if name != case.name:
            raise _RejectedError(f'the name {case.name} is used twice; give each case its own "id"')

    def _refuse_same_content(self, name: str, section: Section, facts: tuple[ImageFacts, ...]) -> None:
        content = tuple(fact.digest for fact in facts)
        first, first_section = self._by_content.setdefault(content, (name, section))
        if first != name:
            raise _RejectedError(
                f"the image has the same content as another: {_already(first, first_section, section)}"
            )

    def _check_images(self, case: Case, facts: tuple[ImageFacts, ...]) -> tuple[str, ...]:
        for n, fact in enumerate(facts):
            if not fact.finite:
                raise _RejectedError(f"{_image_word(case, n)} holds NaN or infinity; expected finite numbers")
        differences = [self._grid_difference(a, b) for a, b in pairwise(facts)]
        found = next((difference for difference in differences if difference), None)
        if found and not case.images:
            raise _RejectedError(f"the images of the channels {found}; expected one grid")
        return (f"the named images {found}: resample them before stacking",) if found else ()

    def _check_label(
        self, case: Case, facts: tuple[ImageFacts, ...]
    ) -> tuple[tuple[int, ...], tuple[str, ...]]:
        """Distinct label values and remarks; nothing for a case without label."""
        if case.label is None:
            return (), ()
        if case.label in case.files:
            raise _RejectedError("image and label are the same file")
        label = self._facts(case.label, "label", as_label=True)
        if label.channels > 1:
            raise _RejectedError(f"label has {label.channels} colour channels; expected one number a voxel")
        differences = [self._grid_difference(fact, label) for fact in facts]
        if all(differences):
            raise _RejectedError(f"image and label {differences[0]}; expected the same grid")
        values = self._check_values(label)
        return values, () if any(values) else ("label is empty (background only)",)

    def _check_values(self, label: ImageFacts) -> tuple[int, ...]:
        odd = [value for value in label.label_values if value != value // 1]  # NaN differs from itself
        if odd:
            raise _RejectedError(f"label holds {_some(odd)}; expected whole numbers")
        values = tuple(int(value) for value in label.label_values)
        unknown = [value for value in values if (value not in self._labels if self._labels else value < 0)]
        if unknown:
            expected = f"one of {sorted(self._labels)}" if self._labels else "values from 0"
            raise _RejectedError(f"label holds {_some(unknown)}; expected {expected}")
        return values

    def _grid_difference(self, first: ImageFacts, second: ImageFacts) -> str:
        """How two grids differ, empty if they do not; a time axis of the first is left aside."""
        shape = first.shape[:3] if len(second.shape) == 3 else first.shape
        if shape != second.shape:
            return f"differ in shape ({_times(first.shape)} and {_times(second.shape)})"
        apart_mm = corner_distance_mm(first, second)
        if apart_mm > self._tolerance_mm:
            return f"lie up to {apart_mm:.3g} mm apart (allowed {self._tolerance_mm:g} mm)"
        return ""

    def reject_odd_dimensions(self) -> None:
        """Refuse images that are 2D among 3D ones, and the like; on a tie the larger number stays."""
        dimensions = {name: len(found.facts[0].shape) for name, found in self._found.items()}
        if not dimensions:
            return
        usual, count = max(Counter(dimensions.values()).items(), key=lambda item: (item[1], item[0]))
        for name, own in dimensions.items():
            if own != usual:
                shape = _times(self._found.pop(name).facts[0].shape)
                self._rejected[name] = f"image is {own}D ({shape}); the {count} others are {usual}D"

    def remark_odd_channels(self) -> None:
        """Remark on colour images among grey ones, and the reverse."""
        channels = {name: found.facts[0].channels for name, found in self._found.items()}
        if not channels:
            return
        usual = Counter(channels.values()).most_common(1)[0][0]
        for name, own in channels.items():
            if own != usual:
                self._remark(name, f"image has {own} channels, most have {usual}: convert when loading")

    def remark_shared_patients(self, named: list[tuple[str, Section, Case]]) -> None:
        """Remark on training and validation cases whose patient is also in the test list."""
        patients = {
            case.patient for name, section, case in named if section == "test" and name in self._found
        }
        for name, section, case in named:
            if section != "test" and case.patient and case.patient in patients and name in self._found:
                self._remark(name, "its patient is also in the test list: the test result will look too good")

    def _remark(self, name: str, text: str) -> None:
        found = self._found[name]
        self._found[name] = replace(found, remarks=(*found.remarks, text))

    def report(self) -> CheckReport:
        """The result so far."""
        return CheckReport(
            accepted=list(self._found),
            rejected=self._rejected,
            warnings={name: "; ".join(found.remarks) for name, found in self._found.items() if found.remarks},
            label_values=tuple(
                sorted({value for found in self._found.values() for value in found.label_values})
            ),
        )


def _image_word(case: Case, index: int) -> str:
    """How a message calls the image: "image", "image 2 of 4", "image pet"."""
    if case.images:
        return f"image {list(case.images)[index]}"
    return "image" if len(case.files) == 1 else f"image {index + 1} of {len(case.files)}"


def _already(first: str, first_section: Section, section: Section) -> str:
    where = "" if first_section == section else f" in the {first_section} list"
    return f"already there as {first}{where}, which stays"


def _some(values: list[float] | list[int]) -> str:
    shown = ", ".join(f"{value:g}" for value in values[:4])
    return f"the value{'s' if len(values) > 1 else ''} {shown}{' and more' if len(values) > 4 else ''}"


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(str(size) for size in shape)
