"""The numbers of a whole data set: counts, sizes, intensities, structures, patients, from the facts of its cases."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from medimg3d.data.case_facts import CaseFacts
from medimg3d.data.datalist import SECTIONS, Datalist
from medimg3d.data.fingerprint import PERCENTILES, ImageFingerprint

MAX_DISTINCT = 12
"""A column of values with more distinct ones is no grouping."""

SCALE_RATIO = 3.0
"""Images whose ranges (0.5th to 99.5th percentile) differ by more have no common scale of grey."""

MAX_LISTED = 20
"""Sizes and spacings that are listed one by one, the most frequent first."""


def count_sections(facts: Sequence[CaseFacts]) -> dict[str, int]:
    """Number of listed cases in each list, readable or not; empty lists left out."""
    counts = Counter(one.section for one in facts)
    return {section: counts[section] for section in SECTIONS if counts[section]}


def count_classes(facts: Sequence[CaseFacts], datalist: Datalist) -> dict[str, dict[str, int]]:
    """Section to class to number of cases; a class that a section lacks counts 0. Empty without classes."""
    found = {one.class_name for one in facts if one.class_name is not None}
    names = [*datalist.classes, *sorted(found - set(datalist.classes))]
    return _counts([(one.section, one.class_name) for one in facts], names) if found else {}


def count_values(facts: Sequence[CaseFacts]) -> dict[str, dict[str, dict[str, int]]]:
    """Column of ``values`` to section to value to number; columns with 2 to :data:`MAX_DISTINCT` values."""
    columns = dict.fromkeys(column for one in facts for column in one.case.values)
    counts = {}
    for column in columns:
        cells = [(one.section, one.case.values.get(column)) for one in facts]
        names = sorted(
            {cell for _, cell in cells if cell is not None}, key=lambda cell: (str(type(cell)), cell)
        )
        if 2 <= len(names) <= MAX_DISTINCT:
            counts[column] = _counts(
                [(s, None if v is None else str(v)) for s, v in cells], list(map(str, names))
            )
    return counts


def count_folds(facts: Sequence[CaseFacts]) -> dict[str, int]:
    """Number of training cases in each fold; empty without folds."""
    folds = Counter(one.case.fold for one in facts if one.section == "training" and one.case.fold is not None)
    return {str(fold): folds[fold] for fold in sorted(folds)}


def patients_summary(facts: Sequence[CaseFacts]) -> dict[str, Any]:
    """How many patients there are, and who stands in several lists, with the cases."""
    cases: dict[str, dict[str, list[str]]] = {}
    for one in facts:
        if one.case.patient:
            cases.setdefault(one.case.patient, {}).setdefault(one.section, []).append(one.name)
    return {
        "cases_with_patient": sum(bool(one.case.patient) for one in facts),
        "count": len(cases),
        "in_several_sections": [
            {"patient": patient, "cases": by_section}
            for patient, by_section in cases.items()
            if len(by_section) > 1
        ],
    }


def images_summary(facts: Sequence[CaseFacts]) -> dict[str, dict[str, Any]]:
    """For each image of a case (``image``, ``ct``): sizes, spacings, intensities; only what could be read."""
    words = dict.fromkeys(word for one in facts for word in one.images)
    return {word: _image_summary([one for one in facts if word in one.images], word) for word in words}


def structures_summary(facts: Sequence[CaseFacts], names: Mapping[int, str]) -> dict[str, dict[str, Any]]:
    """Structure to number of cases that have it, volumes in mL and intensities; the background comes along."""
    labelled = [one for one in facts if one.structures]
    values = sorted(
        {value for one in labelled for value in one.structures} | (set(names) if labelled else set())
    )
    summary = {}
    for value in values:
        own = [one.structures[value] for one in labelled if value in one.structures]
        name = names.get(value) or (f"label {value}" if value else "background")
        summary[name] = {
            "label": value,
            "cases": len(own),
            "of_cases": len(labelled),
            "volume_ml": spread([one.volume_ml for one in own if one.volume_ml is not None]),
            "voxels": spread([float(one.voxels) for one in own]),
            "percentiles": _percentile_medians([one.percentiles for one in own if one.percentiles]),
        }
    return summary


def spread(values: Sequence[float]) -> dict[str, float] | None:
    """Smallest, median and largest; None for no value."""
    if not values:
        return None
    return {"min": float(min(values)), "median": float(np.median(values)), "max": float(max(values))}


def scales_differ(percentiles: Sequence[tuple[float, ...]]) -> bool:
    """Whether the ranges of the images differ so much that their grey values mean different things."""
    ranges = [own[-1] - own[0] for own in percentiles if own[-1] > own[0]]
    return bool(ranges) and max(ranges) > SCALE_RATIO * min(ranges)


def _image_summary(facts: Sequence[CaseFacts], word: str) -> dict[str, Any]:
    images = [one.images[word] for one in facts]
    spacings = [image.spacing_mm for image in images if image.spacing_mm is not None]
    classes = dict.fromkeys(one.class_name for one in facts if one.class_name is not None)
    by_class = {name: [one.images[word] for one in facts if one.class_name == name] for name in classes}
    sections = count_sections(facts)
    return {
        "read": len(images),
        "dimensions": sorted({len(image.shape) for image in images}),
        "sizes": _most_frequent(image.shape for image in images),
        "num_sizes": len({image.shape for image in images}),
        "size": _spread_by_axis([image.shape for image in images]),
        "size_by_section": {
            section: _spread_by_axis([one.images[word].shape for one in facts if one.section == section])
            for section in sections
        },
        "spacings_mm": _most_frequent(_rounded(spacing) for spacing in spacings),
        "num_spacings": len({_rounded(spacing) for spacing in spacings}),
        "spacing_mm": _spread_by_axis(spacings),
        "spacing_unknown": len(images) - len(spacings),
        "intensity": _intensity(images),
        "intensity_by_class": {name: _intensity(own) for name, own in by_class.items()},
        "range": spread([image.percentiles[-1] - image.percentiles[0] for image in images]),
        "scales_differ": scales_differ([image.percentiles for image in images]),
        "constant": [one.name for one in facts if one.images[word].is_constant],
        "not_finite": [one.name for one in facts if one.images[word].num_not_finite],
    }


def _intensity(images: Sequence[ImageFingerprint]) -> dict[str, Any]:
    return {
        "images": len(images),
        "percentiles": _percentile_medians([image.percentiles for image in images]),
        "mean": spread([image.mean for image in images]),
        "border_share": spread([image.border_share for image in images]),
    }


def _percentile_medians(percentiles: Sequence[tuple[float, ...]]) -> dict[str, float]:
    """Percentile to its median over images."""
    if not percentiles:
        return {}
    medians = np.median(np.array(percentiles), axis=0)
    return {f"{point:g}": float(value) for point, value in zip(PERCENTILES, medians, strict=True)}


def _spread_by_axis(rows: Sequence[Sequence[float]]) -> dict[str, list[float]] | None:
    """Smallest, median and largest along each axis, as far as all have it; None for no row."""
    if not rows:
        return None
    axes = min(len(row) for row in rows)
    table = np.array([row[:axes] for row in rows], dtype=np.float64)
    kinds = {"min": table.min(axis=0), "median": np.median(table, axis=0), "max": table.max(axis=0)}
    return {kind: [float(value) for value in values] for kind, values in kinds.items()}


def _most_frequent(items: Iterable[Sequence[float]]) -> list[dict[str, Any]]:
    counts = Counter(tuple(item) for item in items)
    listed = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))[:MAX_LISTED]
    return [{"value": list(value), "n": count} for value, count in listed]


def _rounded(spacing_mm: Sequence[float]) -> tuple[float, ...]:
    return tuple(round(size, 3) for size in spacing_mm)


def _counts(cells: Sequence[tuple[str, str | None]], names: Sequence[str]) -> dict[str, dict[str, int]]:
    """Section to name to number; cases without a name under ``(none)``, where there are such."""
    counts = Counter(cells)
    rows = [*names, None] if any(name is None for _, name in cells) else list(names)
    sections = [section for section in SECTIONS if any(own == section for own, _ in cells)]
    return {
        section: {name if name is not None else "(none)": counts[section, name] for name in rows}
        for section in sections
    }
