"""Reading and writing the datalist: medimg3d's own JSON, Decathlon's, and nnU-Net's forms of its parts."""

from __future__ import annotations

import json
import os
from itertools import combinations
from pathlib import Path
from typing import Any

from medimg3d.data.datalist import CASE_KEYS, SECTIONS, Case, Datalist
from medimg3d.data.json_file import is_int, kind_of, write_json
from medimg3d.errors import DataError

_TEXT_KEYS = ("name", "description", "licence", "reference")
_COUNT_KEYS = ("numTraining", "numTest")  # written anew, never trusted
_REGION_EXAMPLE = '{"background": 0, "whole": [1, 2], "core": 2}'


def load_datalist(path: str | Path) -> Datalist:
    """Read a datalist, medimg3d's or any Decathlon JSON.

    Args:
        path: The JSON file; relative paths in it count from its folder.

    Returns:
        The datalist; whether the images exist is not looked at (see :mod:`medimg3d.data.checks`). Regions in nnU-Net's
        form stand in its ``extra`` as ``regions``, unless the file has that key itself.

    Raises:
        DataError: No such file, broken JSON, no case list, labels in no known form, or a case with missing or wrong
            keys.
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
        regions = parse_regions(content.get("labels"), content.get("regions_class_order"))
        return Datalist(
            **texts,
            modality=_parse_modality(content.get("modality")),
            labels=parse_labels(content.get("labels")),
            classes=_parse_classes(content.get("classes")),
            split=parse_split(content.get("split")),
            extra=({"regions": regions} if regions else {})
            | {key: value for key, value in content.items() if key not in known},
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

    Where nnU-Net has regions (see :func:`parse_regions`), a value takes the name of the region that holds it alone,
    else ``label 1``.

    Raises:
        DataError: None of these forms.
    """
    if not labels:
        return {}
    if isinstance(labels, list):
        return {value: str(name) for value, name in enumerate(labels)}
    if not isinstance(labels, dict):
        raise DataError(f'"labels" is a {kind_of(labels)}; expected {{"0": "background", "1": "liver"}}.')
    if _is_keyed_by_value(labels):
        return {int(key): _label_name(key, name) for key, name in labels.items()}
    held = _values_by_name(labels)
    names = {value: f"label {value}" for values in held.values() for value in values}
    names |= {values[0]: name for name, values in held.items() if len(values) == 1}
    return dict(sorted(names.items()))


def parse_regions(labels: Any, class_order: Any = None) -> dict[str, list[int]]:
    """Overlapping regions of nnU-Net's ``{"background": 0, "whole": [1, 2], "core": 2}``.

    As in nnU-Net there are regions where one name unites several values; then each name but the background and
    ``ignore`` is a region.

    Args:
        labels: ``labels`` of a ``dataset.json``, in any form of :func:`parse_labels`.
        class_order: Its ``regions_class_order``, the number that nnU-Net writes for each region in their order; None
            if there is none.

    Returns:
        Region to its values, the larger first, as planned bundles number them. Of one size they come by nnU-Net's
        number; where two of one size overlap, in the file's order, so that the same one wins. Empty without regions.

    Raises:
        DataError: A value that is none, a region with the background or the ignored value, or another number of
            entries in ``class_order`` than there are regions.

    Source: nnU-Net, documentation/region_based_training.md, and its ``LabelManager``.
    """
    if not isinstance(labels, dict) or _is_keyed_by_value(labels):
        return {}
    held = _values_by_name(labels)
    if all(len(values) == 1 for values in held.values()):
        return {}
    regions = {name: values for name, values in held.items() if values != [0] and not _is_ignored(name)}
    numbers = _class_numbers(class_order, list(regions))
    same_size_overlaps = any(
        len(one) == len(other) and set(one) & set(other) for one, other in combinations(regions.values(), 2)
    )
    order = list(regions) if same_size_overlaps else sorted(regions, key=numbers.__getitem__)
    return {name: regions[name] for name in sorted(order, key=lambda name: -len(regions[name]))}


def _is_keyed_by_value(labels: dict[Any, Any]) -> bool:
    return all(str(key).strip().lstrip("-").isdigit() for key in labels)


def _label_name(value: Any, name: Any) -> str:
    if isinstance(name, (list, dict)):
        raise DataError(
            f'"labels" has a {kind_of(name)} for {value}; expected a name: {{"0": "background", "1": "liver"}}. '
            f"Regions have names that are no numbers: {_REGION_EXAMPLE}."
        )
    return str(name)


def _values_by_name(labels: dict[Any, Any]) -> dict[str, list[int]]:
    """The values of each name, none of them twice."""
    held = {str(name): _label_values(str(name), found) for name, found in labels.items()}
    ignored = {value for name, values in held.items() if _is_ignored(name) for value in values}
    for name, values in held.items():
        if ignored & set(values) and not _is_ignored(name):
            raise DataError(
                f'"labels" has the ignored value {min(ignored & set(values))} in {name}; expected it under "ignore" '
                f"alone. Take it out of {name}."
            )
    return held


def _label_values(name: str, found: Any) -> list[int]:
    values = [_as_number(value) for value in (found if isinstance(found, list) else [found])]
    numbers = list(dict.fromkeys(value for value in values if value is not None))
    if isinstance(found, str) and not numbers:
        raise DataError(
            f'"labels" mixes names and values ("{name}": "{found}"); expected {{"0": "background", "1": "liver"}}.'
        )
    if not numbers or None in values or (0 in numbers and len(numbers) > 1):
        raise DataError(
            f'"labels" has {json.dumps(found)} for {name}; expected a whole number from 0, or a list of whole '
            f"numbers from 1 for a region: {_REGION_EXAMPLE}. Correct this entry."
        )
    if _is_ignored(name) and len(numbers) > 1:
        raise DataError(
            f'"labels" has {json.dumps(found)} for {name}; expected one whole number, the value of voxels that nobody '
            "labelled. Give them one value in every label map."
        )
    return numbers


def _as_number(value: Any) -> int | None:
    """A label value, which nnU-Net also takes as text; None if it is none."""
    if isinstance(value, str) and value.strip().isdecimal():
        return int(value)
    return value if is_int(value) and value >= 0 else None


def _is_ignored(name: str) -> bool:
    return name.lower() == "ignore"


def _class_numbers(class_order: Any, regions: list[str]) -> dict[str, int]:
    """The number that nnU-Net writes for each region; their places in the file where it says none."""
    if class_order is None:
        return {name: number for number, name in enumerate(regions, start=1)}
    numbers = class_order if isinstance(class_order, list) and all(map(is_int, class_order)) else []
    if len(numbers) != len(regions):
        raise DataError(
            f'"regions_class_order" is {json.dumps(class_order)}; expected {len(regions)} whole numbers, one for each '
            f"of {', '.join(regions)}. Correct it, or take it out: the larger regions then come first."
        )
    return dict(zip(regions, numbers, strict=True))


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


def parse_split(split: Any) -> dict[str, Any]:
    """The ``split`` of a datalist; empty where it has none.

    Raises:
        DataError: It is no object, or its number of folds or its seed is no whole number.
    """
    found = _mapping(split, "split")
    for key, least in (("num_folds", 2), ("seed", 0)):
        value = found.get(key)
        if value is not None and (not is_int(value) or value < least):
            raise DataError(f'"split" has {value!r} as {key}; expected a whole number from {least}.')
    return found


def _parse_classes(classes: Any) -> tuple[str, ...]:
    if isinstance(classes, dict):  # {"0": "normal", "1": "pneumonia"}
        words = [key for key in classes if not key.isdigit()]
        if words:
            raise DataError(
                f'"classes" has {words[0]!r} where an index belongs; expected {{"0": NAME, "1": NAME}}.'
            )
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
