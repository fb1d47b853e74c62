"""Chooses what is drawn of a data set, and draws it; a picture that fails is named, the others go on."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medimg3d.data.case_facts import CaseFacts, named_images
from medimg3d.data.datalist import Datalist
from medimg3d.data.dataset_summary import scales_differ
from medimg3d.data.fingerprint import ImageFingerprint
from medimg3d.data.pixels import read_pixels
from medimg3d.data.shortcuts import FEATURES
from medimg3d.errors import Medimg3dError
from medimg3d.report.explore_figures import Floats, count_bars, histograms, size_scatter
from medimg3d.report.figures import box_plot
from medimg3d.report.sample_grid import Sample, sample_grid, sample_of

MAX_ROWS = 8
MAX_IMAGES = 4
MAX_FEATURES = 6

_Job = Callable[[Path], Path]


def draw_all(
    facts: Sequence[CaseFacts],
    datalist: Datalist,
    summary: Mapping[str, Any],
    folder: Path,
    *,
    num_samples: int,
    seed: int,
) -> tuple[dict[str, Path], dict[str, str]]:
    """Draw the figures of a data set.

    Args:
        facts: Its cases.
        datalist: Where they are listed.
        summary: Its numbers; see :func:`medimg3d.workflows.explore.explore`.
        folder: Where the PNG files go.
        num_samples: Sample images a class; 0 draws none.
        seed: Seed of their choice.

    Returns:
        Name of a figure to its PNG, in the order of the page (``counts:<what>``, ``samples``, ``features``,
        ``intensity:<image>``, ``sizes:<image>``, ``spacings:<image>``, ``volumes``); and name to the reason
        why it was not drawn.
    """
    read = [one for one in facts if one.images]
    jobs: dict[str, _Job] = {
        **_count_jobs(summary),
        **_sample_jobs(read, datalist, num_samples, seed),
        **_feature_jobs(read, summary),
        **_image_jobs(read, datalist),
        **_volume_jobs(summary, read, datalist),
    }
    drawn: dict[str, Path] = {}
    failed: dict[str, str] = {}
    for name, draw in jobs.items():
        try:
            drawn[name] = draw(folder / f"{_file_name(name)}.png")
        except Exception as err:  # noqa: BLE001 - a picture that fails must not lose the numbers
            failed[name] = str(err) if isinstance(err, Medimg3dError) else f"{type(err).__name__}: {err}"
    return drawn, failed


def _count_jobs(summary: Mapping[str, Any]) -> dict[str, _Job]:
    tables = {"class": summary["classes"]} | dict(summary["values"])
    classes = list(dict.fromkeys(name for part in summary["classes"].values() for name in part))
    return {
        f"counts:{name}": partial(count_bars, counts, classes=classes)
        for name, counts in tables.items()
        if counts
    }


def _sample_jobs(
    facts: Sequence[CaseFacts], datalist: Datalist, num_samples: int, seed: int
) -> dict[str, _Job]:
    if not num_samples:
        return {}

    def draw(path: Path) -> Path:
        return sample_grid(
            _sample_rows(facts, datalist, num_samples, seed), path, label_names=datalist.labels
        )

    return {"samples": draw}


def _sample_rows(
    facts: Sequence[CaseFacts], datalist: Datalist, num_samples: int, seed: int
) -> list[tuple[str, list[Sample]]]:
    """A row for each class of the largest section and each image of a case, as many as fit on a page."""
    section = _largest_section(facts)
    own = [one for one in facts if one.section == section]
    found = dict.fromkeys(one.class_name for one in own)
    names = sorted(
        found,
        key=lambda name: (name is None, datalist.classes.index(name) if name in datalist.classes else 0),
    )
    rows = []
    for name in names:
        pool = [one for one in own if one.class_name == name]
        chosen = random.Random(f"{seed}:{name}").sample(pool, min(num_samples, len(pool)))
        words = list(dict.fromkeys(word for one in chosen for word in one.images))
        for word in words:
            title = " ".join(part for part in (name or "", word if len(words) > 1 else "") if part)
            samples = [_sample(one, word, datalist) for one in chosen if word in one.images]
            rows.append((title or str(section), samples))
    return rows[:MAX_ROWS]


def _sample(facts: CaseFacts, word: str, datalist: Datalist) -> Sample:
    image = read_pixels(named_images(facts.case, datalist)[word])
    label = None
    if facts.case.label is not None and facts.structures:
        label = read_pixels(facts.case.label, as_label=True)
    percentiles = facts.images[word].percentiles
    return sample_of(facts.name, image, label, (percentiles[0], percentiles[-1]))


def _feature_jobs(facts: Sequence[CaseFacts], summary: Mapping[str, Any]) -> dict[str, _Job]:
    """Histograms of the features that separate the first pair of classes, the strongest first."""
    entries = summary["shortcuts"]["classes"]
    if not entries:
        return {}
    entry = entries[0]
    own = [one for one in facts if one.section == entry["section"] and one.class_name is not None]
    names = (
        [entry["second"], entry["first"]]
        if len(summary["classes"][entry["section"]]) == 2
        else [entry["first"], entry["second"]]
    )
    groups = {
        name: [one for one in own if (one.class_name == entry["first"]) is (name == entry["first"])]
        for name in names
    }
    panels = {
        f"{one['feature']}: AUC {max(one['auc'], 1 - one['auc']):.2f}": {
            name: np.array([FEATURES[one["feature"]](_first_image(case)) for case in cases])
            for name, cases in groups.items()
        }
        for one in entry["features"][:MAX_FEATURES]
    }
    return {"features": partial(histograms, panels)}


def _image_jobs(facts: Sequence[CaseFacts], datalist: Datalist) -> dict[str, _Job]:
    jobs: dict[str, _Job] = {}
    words = list(dict.fromkeys(word for one in facts for word in one.images))
    for word in words[:MAX_IMAGES]:
        own = [one for one in facts if word in one.images]
        scaled = scales_differ([one.images[word].percentiles for one in own])
        panels = _intensity_panels(own, word, datalist, scaled=scaled, with_structures=word == words[0])
        label = "Grey value, 0 to 1: the image's own 0.5th to 99.5th percentile" if scaled else "Grey value"
        jobs[f"intensity:{word}"] = partial(histograms, panels, axis_label=label)
        jobs |= _size_jobs(own, word)
    return jobs


def _intensity_panels(
    facts: Sequence[CaseFacts], word: str, datalist: Datalist, *, scaled: bool, with_structures: bool
) -> dict[str, dict[str, Floats]]:
    section = _largest_section(facts)
    panels: dict[str, dict[str, Floats]] = {}
    classes = dict.fromkeys(one.class_name for one in facts if one.class_name is not None)
    main = [one for one in facts if one.section == section]
    if classes:
        panels[f"by class ({section})"] = {
            str(name): _pooled([one for one in main if one.class_name == name], word, scaled)
            for name in classes
        }
    if with_structures and any(one.structures for one in facts):
        panels["by structure"] = _structure_samples(facts, word, datalist, scaled)
    sections = dict.fromkeys(one.section for one in facts)
    if len(sections) > 1:
        for name in classes or [None]:
            same = [one for one in facts if one.class_name == name]
            panels[f"by part{f', {name}' if name else ''}"] = {
                part: _pooled([one for one in same if one.section == part], word, scaled) for part in sections
            }
    return dict(list(panels.items())[:MAX_FEATURES]) or {"all images": {"all": _pooled(facts, word, scaled)}}


def _structure_samples(
    facts: Sequence[CaseFacts], word: str, datalist: Datalist, scaled: bool
) -> dict[str, Floats]:
    """Values inside each structure, the background last: colours are then those of the outlines."""
    values = sorted(
        {value for one in facts for value in one.structures}, key=lambda value: (value == 0, value)
    )
    return {
        datalist.labels.get(value) or (f"label {value}" if value else "background"): np.concatenate(
            [
                _scaled(one.structures[value].sample, one.images[word], scaled)
                for one in facts
                if value in one.structures and word in one.images
            ]
        )
        for value in values[: MAX_FEATURES + 1]
    }


def _pooled(facts: Sequence[CaseFacts], word: str, scaled: bool) -> Floats:
    samples = [_scaled(one.images[word].sample, one.images[word], scaled) for one in facts]
    return np.concatenate(samples) if samples else np.zeros(0)


def _scaled(sample: Floats, image: ImageFingerprint, wanted: bool) -> NDArray[np.float64]:
    low, high = image.percentiles[0], image.percentiles[-1]
    values = sample.astype(np.float64)
    return (values - low) / (high - low) if wanted and high > low else values


def _size_jobs(facts: Sequence[CaseFacts], word: str) -> dict[str, _Job]:
    shapes = [one.images[word].shape for one in facts]
    if min(map(len, shapes)) >= 3:
        jobs = {f"sizes:{word}": _axes_box(shapes, "Size (voxels)")}
        spacings = [one.images[word].spacing_mm for one in facts]
        known = [spacing for spacing in spacings if spacing is not None and len(spacing) >= 3]
        return jobs | ({f"spacings:{word}": _axes_box(known, "Spacing (mm)")} if len(set(known)) > 1 else {})
    if len(set(shapes)) == 1:
        return {}
    sections = dict.fromkeys(one.section for one in facts)
    sizes: dict[str, list[tuple[int, int]]] = {
        section: [
            (shape[0], shape[1]) for one, shape in zip(facts, shapes, strict=True) if one.section == section
        ]
        for section in sections
    }
    return {f"sizes:{word}": partial(size_scatter, sizes)}


def _axes_box(rows: Sequence[Sequence[float]], axis_label: str) -> _Job:
    by_axis = {axis: [float(row[n]) for row in rows] for n, axis in enumerate("IJK")}
    return partial(box_plot, by_axis, axis_label=axis_label)


def _volume_jobs(
    summary: Mapping[str, Any], facts: Sequence[CaseFacts], datalist: Datalist
) -> dict[str, _Job]:
    volumes: dict[str, list[float]] = {}
    for name, entry in summary["structures"].items():
        own = [one.structures[entry["label"]] for one in facts if entry["label"] in one.structures]
        if entry["label"]:
            volumes[name] = [one.volume_ml for one in own if one.volume_ml is not None]
    if not any(volumes.values()):
        return {}
    return {"volumes": partial(box_plot, volumes, axis_label="Volume (mL)")}


def _first_image(facts: CaseFacts) -> ImageFingerprint:
    return next(iter(facts.images.values()))


def _largest_section(facts: Sequence[CaseFacts]) -> str:
    sections = [one.section for one in facts]
    return max(dict.fromkeys(sections), key=sections.count)


def _file_name(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in name)
