"""The datalist: one JSON file that says which images belong to a study, in MONAI's Decathlon form.

Plain Decathlon files load unchanged. What medimg3d adds is optional, case by case: ``id``, ``patient``,
``fold``, ``images`` (several named images), ``class_label`` and ``values``; see ``docs/datalist.md``.
Needs no torch and no MONAI.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from medimg3d.data.folds import case_name
from medimg3d.errors import DataError

Section = Literal["training", "validation", "test"]
SECTIONS: tuple[Section, ...] = ("training", "validation", "test")

_CASE_KEYS = ("id", "patient", "fold", "image", "images", "label", "class_label", "values")
_TEXT_KEYS = ("name", "description", "licence", "reference")
_COUNT_KEYS = ("numTraining", "numTest")  # written anew, never trusted


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
        if self.fold is not None and (not _is_int(self.fold) or self.fold < 0):
            raise DataError(f'"fold" is {self.fold!r}; expected a whole number from 0.')
        if self.class_label is not None and not (
            isinstance(self.class_label, str) or _is_int(self.class_label)
        ):
            raise DataError(
                f'"class_label" is a {_kind(self.class_label)}; expected a name or a whole number.'
            )
        reserved = sorted(set(self.images) & {*_CASE_KEYS, *self.extra})
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
        if any(not _is_int(value) or value < 0 for value in self.labels):
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


def load_datalist(path: str | Path) -> Datalist:
    """Read a datalist, medimg3d's or any Decathlon JSON.

    Args:
        path: The JSON file; relative paths in it count from its folder.

    Returns:
        The datalist; whether the images exist is not looked at (see :mod:`medimg3d.data.checks`).

    Raises:
        DataError: No such file, broken JSON, no case list, or a case with missing or wrong keys.
    """
    path = Path(path)
    content = _read_json(path)
    base = Path(os.path.abspath(path)).parent
    if not any(section in content for section in SECTIONS):
        raise DataError(
            f"{path} has none of the lists {', '.join(SECTIONS)}; expected a Decathlon-like datalist. "
            "Make one with: medimg3d datalist FOLDER --out FILE"
        )
    lists: dict[str, Any] = {
        section: _parse_section(content.get(section), section, base, path) for section in SECTIONS
    }
    texts: dict[str, Any] = {key: str(content.get(key) or "") for key in _TEXT_KEYS}
    known = {*_TEXT_KEYS, *_COUNT_KEYS, *SECTIONS, "modality", "labels", "classes", "split"}
    try:
        return Datalist(
            **texts,
            modality=_parse_modality(content.get("modality")),
            labels=parse_labels(content.get("labels")),
            classes=_parse_classes(content.get("classes")),
            split=content.get("split") or {},
            extra={key: value for key, value in content.items() if key not in known},
            **lists,
        )
    except DataError as err:
        raise DataError(f"{path}: {err}") from err


def save_datalist(datalist: Datalist, path: str | Path) -> Path:
    """Write a datalist so that MONAI's ``load_decathlon_datalist`` reads it, too.

    Paths below the file's folder are written relative to it (the folder can move), others absolute. Written
    to a temporary file first: a crash leaves the old file whole.

    Args:
        datalist: What to write.
        path: The JSON file; its folder is made if need be.

    Returns:
        ``path``.

    Raises:
        DataError: Something in ``extra`` is not JSON.
    """
    path = Path(path)
    return write_json(_as_json(datalist, Path(os.path.abspath(path)).parent), path)


def write_json(content: Mapping[str, Any], path: Path) -> Path:
    """Write one JSON object in one step (temporary file, then rename).

    Raises:
        DataError: The content is not JSON (NaN, or an object without a JSON form).
    """
    try:
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    except (TypeError, ValueError) as err:
        raise DataError(
            f"{path.name} cannot be written: {err}. Use text, finite numbers, lists or null."
        ) from err
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp's 0600 would shut colleagues out
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


def with_cases(datalist: Datalist, cases: Mapping[Section, list[Case]]) -> Datalist:
    """The datalist with the given lists in place of its own."""
    lists: dict[str, Any] = {section: tuple(chosen) for section, chosen in cases.items()}
    return replace(datalist, **lists)


def parse_labels(labels: Any) -> dict[int, str]:
    """Label names by value, from ``{"0": "background"}``, nnU-Net's ``{"background": 0}`` or a list of names.

    A value that only regions name (nnU-Net: ``{"whole": [1, 2]}``) takes the name of the smallest region.

    Raises:
        DataError: None of these forms.
    """
    if not labels:
        return {}
    if isinstance(labels, list):
        return {value: str(name) for value, name in enumerate(labels)}
    if not isinstance(labels, dict):
        raise DataError(f'"labels" is a {_kind(labels)}; expected {{"0": "background", "1": "liver"}}.')
    try:
        if all(str(key).strip().lstrip("-").isdigit() for key in labels):
            return {int(key): str(name) for key, name in labels.items()}
        regions = {name: value if isinstance(value, list) else [value] for name, value in labels.items()}
        by_size = sorted(regions.items(), key=lambda item: -len(item[1]))
        return dict(
            sorted((int(value), str(name)) for name, values in _last_wins(by_size) for value in values)
        )
    except (TypeError, ValueError) as err:
        raise DataError(
            '"labels" mixes names and values; expected {"0": "background", "1": "liver"}.'
        ) from err


def _last_wins(regions: list[tuple[str, list[Any]]]) -> list[tuple[str, list[Any]]]:
    """Regions with each value left only in the last (smallest) one that has it."""
    owner = {value: name for name, values in regions for value in values}
    return [(name, [value for value in values if owner[value] == name]) for name, values in regions]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as err:
        raise DataError(
            f"No datalist at {path}; expected a JSON file. Make one: medimg3d datalist FOLDER --out {path}"
        ) from err
    except (OSError, UnicodeDecodeError) as err:
        raise DataError(
            f"{path} cannot be read ({type(err).__name__}); expected a JSON file in UTF-8."
        ) from err
    except json.JSONDecodeError as err:
        raise DataError(
            f"{path} is broken JSON at line {err.lineno}, column {err.colno}: {err.msg}."
        ) from err
    if not isinstance(content, dict):
        raise DataError(f'{path} holds a {_kind(content)}; expected an object with a list "training".')
    return content


def _parse_section(entries: Any, section: str, base: Path, path: Path) -> tuple[Case, ...]:
    if entries is None:
        return ()
    if not isinstance(entries, list):
        raise DataError(f'{path}: "{section}" is a {_kind(entries)}; expected a list of cases.')
    cases = []
    for index, entry in enumerate(entries):
        try:
            cases.append(_parse_case(entry, base))
        except DataError as err:
            raise DataError(f"{path}: {section}[{index}]: {err}") from err
    return tuple(cases)


def _parse_case(entry: Any, base: Path) -> Case:
    if isinstance(entry, str):  # Decathlon's test list: plain paths
        entry = {"image": entry}
    if not isinstance(entry, dict):
        raise DataError(f"Found a {_kind(entry)}; expected an object or a path.")
    if not entry.get("image") and not entry.get("images"):
        raise DataError(f'Case has no "image" (found {", ".join(entry) or "nothing"}); expected a path.')
    label, class_label = entry.get("label"), entry.get("class_label")
    if _is_int(label) and class_label is None:  # MONAI's classification lists: "label": 1
        label, class_label = None, label
    return Case(
        image=_parse_image(entry.get("image"), base),
        images=_parse_images(entry.get("images"), base),
        label=None if label is None else _absolute(label, base, "label"),
        id=_text(entry.get("id")),
        patient=_text(entry.get("patient")),
        fold=entry.get("fold"),
        class_label=class_label,
        values=_mapping(entry.get("values"), "values"),
        extra={key: value for key, value in entry.items() if key not in _CASE_KEYS},
    )


def _parse_image(image: Any, base: Path) -> Path | tuple[Path, ...] | None:
    if not image:
        return None
    if isinstance(image, list):
        return tuple(_absolute(one, base, "image") for one in image)
    return _absolute(image, base, "image")


def _parse_images(images: Any, base: Path) -> dict[str, Path]:
    return {name: _absolute(one, base, f"images.{name}") for name, one in _mapping(images, "images").items()}


def _parse_modality(modality: Any) -> dict[str, str]:
    if isinstance(modality, str):
        return {"0": modality} if modality else {}
    if isinstance(modality, list):
        return {str(index): str(name) for index, name in enumerate(modality)}
    return {str(index): str(name) for index, name in _mapping(modality, "modality").items()}


def _parse_classes(classes: Any) -> tuple[str, ...]:
    if isinstance(classes, dict):  # {"0": "normal", "1": "pneumonia"}
        classes = [classes[key] for key in sorted(classes, key=int)]
    if not isinstance(classes or [], list):
        raise DataError(f'"classes" is a {_kind(classes)}; expected a list of names.')
    return tuple(str(name) for name in classes or [])


def _absolute(value: Any, base: Path, key: str) -> Path:
    if not isinstance(value, str) or not value:
        raise DataError(f'"{key}" is {"empty" if value == "" else "a " + _kind(value)}; expected a path.')
    return Path(os.path.normpath(base / value))


def _mapping(value: Any, key: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise DataError(f'"{key}" is a {_kind(value)}; expected an object (name: value).')
    return value


def _as_json(datalist: Datalist, base: Path) -> dict[str, Any]:
    lists = {
        section: [_case_as_json(case, base) for case in datalist.section(section)] for section in SECTIONS
    }
    head: dict[str, Any] = {key: getattr(datalist, key) for key in _TEXT_KEYS}
    head |= {
        "modality": dict(datalist.modality),
        "labels": {str(v): name for v, name in datalist.labels.items()},
    }
    head |= {"classes": list(datalist.classes), "split": dict(datalist.split)}
    head = {key: value for key, value in head.items() if value} | dict(datalist.extra)
    counts = {"numTraining": len(datalist.training), "numTest": len(datalist.test)}
    # MONAI looks at the first element of "test": an empty list would crash it, so it is left out.
    filled = {section: cases for section, cases in lists.items() if cases or section == "training"}
    return head | counts | filled


def _case_as_json(case: Case, base: Path) -> dict[str, Any]:
    image = case.image
    entry = {
        "id": case.id,
        "patient": case.patient,
        "fold": case.fold,
        "image": [_written(one, base) for one in image]
        if isinstance(image, tuple)
        else _written(image, base),
        "images": {name: _written(one, base) for name, one in case.images.items()} or None,
        "label": _written(case.label, base),
        "class_label": case.class_label,
        "values": dict(case.values) or None,
    }
    return {key: value for key, value in entry.items() if value is not None} | dict(case.extra)


def _written(path: Path | None, base: Path) -> str | None:
    if path is None:
        return None
    path = Path(os.path.abspath(path))
    return path.relative_to(base).as_posix() if path.is_relative_to(base) else str(path)


def _check_table_value(key: str, value: Any) -> None:
    if value is not None and not isinstance(value, (str, int, float)):
        raise DataError(
            f'"values" has a {_kind(value)} at {key!r}; expected text, a number, true, false or null.'
        )
    if isinstance(value, float) and not math.isfinite(value):
        raise DataError(
            f'"values" has {value} at {key!r}, which JSON cannot hold; write null where it is missing.'
        )


def _text(value: Any) -> str | None:
    return None if value is None or value == "" else str(value)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _kind(value: Any) -> str:
    names = {dict: "object", list: "list", str: "text", bool: "truth value", type(None): "null"}
    return names.get(type(value), type(value).__name__)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
