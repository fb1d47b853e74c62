"""Reading and writing the datalist: medimg3d's own JSON, Decathlon's, and nnU-Net's forms of its parts."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from medimg3d.data.datalist import CASE_KEYS, SECTIONS, Case, Datalist
from medimg3d.data.json_file import is_int, kind_of, write_json
from medimg3d.errors import DataError

_TEXT_KEYS = ("name", "description", "licence", "reference")
_COUNT_KEYS = ("numTraining", "numTest")  # written anew, never trusted


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
        raise DataError(f'"labels" is a {kind_of(labels)}; expected {{"0": "background", "1": "liver"}}.')
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
        raise DataError(f'{path} holds a {kind_of(content)}; expected an object with a list "training".')
    return content


def _parse_section(entries: Any, section: str, base: Path, path: Path) -> tuple[Case, ...]:
    if entries is None:
        return ()
    if not isinstance(entries, list):
        raise DataError(f'{path}: "{section}" is a {kind_of(entries)}; expected a list of cases.')
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
        raise DataError(f"Found a {kind_of(entry)}; expected an object or a path.")
    if not entry.get("image") and not entry.get("images"):
        raise DataError(f'Case has no "image" (found {", ".join(entry) or "nothing"}); expected a path.')
    label, class_label = entry.get("label"), entry.get("class_label")
    if is_int(label) and class_label is None:  # MONAI's classification lists: "label": 1
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
        extra={key: value for key, value in entry.items() if key not in CASE_KEYS},
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
        raise DataError(f'"classes" is a {kind_of(classes)}; expected a list of names.')
    return tuple(str(name) for name in classes or [])


def _absolute(value: Any, base: Path, key: str) -> Path:
    if not isinstance(value, str) or not value:
        raise DataError(f'"{key}" is {"empty" if value == "" else "a " + kind_of(value)}; expected a path.')
    return Path(os.path.normpath(base / value))


def _mapping(value: Any, key: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise DataError(f'"{key}" is a {kind_of(value)}; expected an object (name: value).')
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


def _text(value: Any) -> str | None:
    return None if value is None or value == "" else str(value)
