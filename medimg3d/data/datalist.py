"""The datalist: one JSON file that says which images belong to a study, in MONAI's Decathlon form.

Plain Decathlon files load unchanged. What medimg3d adds is optional, case by case: ``id``, ``patient``,
``fold``, ``images`` (several named images), ``class_label`` and ``values``; see ``docs/datalist.md``.
Needs no torch and no MONAI.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from medimg3d.data.folds import case_name
from medimg3d.data.json_file import is_int, kind_of
from medimg3d.errors import DataError

Section = Literal["training", "validation", "test"]
SECTIONS: tuple[Section, ...] = ("training", "validation", "test")

CASE_KEYS = ("id", "patient", "fold", "image", "images", "label", "class_label", "values")


@dataclass(frozen=True)
class Case:
    """One case: its image or images, and what is known of it.

    Attributes:
        image: Absolute path, or several of the same grid (read as channels, as in Decathlon lists). A path
            may be a folder: one DICOM series.
        images: Several named images (``{"ct": ..., "pet": ...}``); give either this or ``image``.
        label: Absolute path of the label map.
        id: Name of the case, unique in its datalist; by default the image's file name without its ending.
        patient: Identifies the patient, so that splits can keep a patient's cases together.
        fold: Cross-validation fold, from 0.
        class_label: Name or index of the class of the whole image.
        values: Values of a table (age, days of survival), by name; ``None`` where missing.
        extra: Keys of the file that medimg3d does not know; kept as they are.

    Raises:
        DataError: Neither or both of ``image`` and ``images``, or a value of the wrong kind.
    """

    image: Path | tuple[Path, ...] | None = None
    images: Mapping[str, Path] = field(default_factory=dict)
    label: Path | None = None
    id: str | None = None
    patient: str | None = None
    fold: int | None = None
    class_label: str | int | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if bool(self.image) == bool(self.images):
            found = "both" if self.image else "neither"
            raise DataError(f'Case has {found} of "image" and "images"; expected exactly one of them.')
        if self.fold is not None and (not is_int(self.fold) or self.fold < 0):
            raise DataError(f'"fold" is {self.fold!r}; expected a whole number from 0.')
        if self.class_label is not None and not (
            isinstance(self.class_label, str) or is_int(self.class_label)
        ):
            raise DataError(
                f'"class_label" is a {kind_of(self.class_label)}; expected a name or a whole number.'
            )
        reserved = sorted(set(self.images) & {*CASE_KEYS, *self.extra})
        if reserved:
            raise DataError(
                f'"images" names an image {reserved[0]!r}, which is a key of a case; choose another name.'
            )
        for key, value in self.values.items():
            _check_table_value(key, value)

    @property
    def name(self) -> str:
        """The ``id``, else the name of the first image's file."""
        return case_name({"id": self.id, "image": str(self.files[0])})

    @property
    def files(self) -> tuple[Path, ...]:
        """Every image file (or DICOM folder) of the case, in order; the label is not among them."""
        if self.images:
            return tuple(self.images.values())
        assert self.image is not None  # __post_init__
        return self.image if isinstance(self.image, tuple) else (self.image,)


@dataclass(frozen=True)
class Datalist:
    """The cases of a study in three lists, and what they share.

    Attributes:
        name: Name of the study.
        description: One sentence.
        modality: Channel index to modality, ``{"0": "MRI"}``.
        labels: Value in the label maps to structure, ``{0: "background", 1: "liver"}``; empty if not known.
        licence: Licence of the images.
        reference: Where they come from, what to cite.
        training: Cases to learn from, with their folds.
        validation: Cases set apart for choosing; usually empty, the folds do that.
        test: Cases that choose nothing.
        classes: Class names in the order of their index; empty if not known.
        split: How the folds were made: ``by``, ``num_folds``, ``seed``, ``note``.
        extra: Keys of the file that medimg3d does not know; kept as they are.

    Raises:
        DataError: A label value or a class that does not fit.
    """

    name: str = ""
    description: str = ""
    modality: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[int, str] = field(default_factory=dict)
    licence: str = ""
    reference: str = ""
    training: tuple[Case, ...] = ()
    validation: tuple[Case, ...] = ()
    test: tuple[Case, ...] = ()
    classes: tuple[str, ...] = ()
    split: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if any(not is_int(value) or value < 0 for value in self.labels):
            raise DataError(f'"labels" has the values {list(self.labels)}; expected whole numbers from 0.')
        if len(set(self.classes)) != len(self.classes):
            raise DataError(f'"classes" names a class twice: {list(self.classes)}.')
        for case in self.cases():
            self._check_class(case)

    def _check_class(self, case: Case) -> None:
        label = case.class_label
        if not self.classes or label is None:
            return
        known = label in self.classes if isinstance(label, str) else 0 <= label < len(self.classes)
        if not known:
            raise DataError(
                f"Case {case.name}: class_label is {label!r}; expected {list(self.classes)} or an index."
            )

    def cases(self) -> tuple[Case, ...]:
        """All cases: training, validation, test."""
        return self.training + self.validation + self.test

    def section(self, section: Section) -> tuple[Case, ...]:
        """The cases of one list.

        Raises:
            DataError: There is no such list.
        """
        if section not in SECTIONS:
            raise DataError(f"Datalist has no section {section!r}; expected one of {', '.join(SECTIONS)}.")
        cases: tuple[Case, ...] = getattr(self, section)
        return cases

    def named_cases(self) -> list[tuple[str, Section, Case]]:
        """Every case with its section and a name that is its own: a name seen before becomes ``name #2``.

        Test comes first, then validation, then training: where a case stands twice, the test set keeps it.
        """
        seen: Counter[str] = Counter()
        named = []
        for section in reversed(SECTIONS):
            for case in self.section(section):
                seen[case.name] += 1
                count = seen[case.name]
                named.append((case.name if count == 1 else f"{case.name} #{count}", section, case))
        return named

    @property
    def has_voxel_size(self) -> bool:
        """Whether the headers' voxel sizes are true; not where the file says ``"voxel_size": "unknown"``.

        Raises:
            DataError: It says something else.
        """
        said = self.extra.get("voxel_size")
        if said not in (None, "unknown"):
            raise DataError(
                f'"voxel_size" is {said!r}; expected "unknown", or nothing where the headers are right.'
            )
        return said is None

    @property
    def image_keys(self) -> tuple[str, ...]:
        """Keys under which :meth:`as_monai` gives the images: ``("image",)`` or the names in ``images``."""
        names = dict.fromkeys(name for case in self.cases() for name in case.images)
        plain = any(case.image for case in self.cases())
        return ("image",) * plain + tuple(names)

    def class_index(self, case: Case) -> str | int | None:
        """Index of the case's class in ``classes``; the class label itself where no classes are known."""
        if isinstance(case.class_label, str) and self.classes:
            return self.classes.index(case.class_label)
        return case.class_label

    def as_monai(self, section: Section) -> list[dict[str, Any]]:
        """One list as MONAI's transforms want it, with absolute paths.

        Args:
            section: ``"training"``, ``"validation"`` or ``"test"``.

        Returns:
            A dictionary a case: ``id``; ``image`` (a path or a list of paths), or one key for each named
            image; ``label``, ``class_label`` (index), ``patient``, ``fold``, ``values`` where it has them.

        Raises:
            DataError: There is no such section.
        """
        return [self._case_for_monai(case) for case in self.section(section)]

    def _case_for_monai(self, case: Case) -> dict[str, Any]:
        item: dict[str, Any] = {**case.extra, "id": case.name}
        if case.image:
            item["image"] = (
                [str(file) for file in case.image] if isinstance(case.image, tuple) else str(case.image)
            )
        item.update({name: str(file) for name, file in case.images.items()})
        optional = {
            "label": None if case.label is None else str(case.label),
            "class_label": self.class_index(case),
            "patient": case.patient,
            "fold": case.fold,
            "values": dict(case.values) or None,
        }
        return item | {key: value for key, value in optional.items() if value is not None}


def with_cases(datalist: Datalist, cases: Mapping[Section, list[Case]]) -> Datalist:
    """The datalist with the given lists in place of its own."""
    lists: dict[str, Any] = {section: tuple(chosen) for section, chosen in cases.items()}
    return replace(datalist, **lists)


def _check_table_value(key: str, value: Any) -> None:
    if value is not None and not isinstance(value, (str, int, float)):
        raise DataError(
            f'"values" has a {kind_of(value)} at {key!r}; expected text, a number, true, false or null.'
        )
    if isinstance(value, float) and not math.isfinite(value):
        raise DataError(
            f'"values" has {value} at {key!r}, which JSON cannot hold; write null where it is missing.'
        )
