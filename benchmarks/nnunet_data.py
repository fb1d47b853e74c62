"""One data set in two forms, the same cases in the same folds: a medimg3d datalist, and nnU-Net's raw folder."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medimg3d.data.datalist import Case, Datalist
from medimg3d.data.datalist_file import save_datalist
from medimg3d.data.folds import assign_folds
from medimg3d.data.json_file import write_json
from medimg3d.data.volume_file import Volume, read_volume, read_volume_grid, write_volume
from medimg3d.errors import DataError, UsageError

ENDING = ".nii.gz"
DATASET = "Dataset001_Compared"
DEFAULT_FOLDS = 5

# What stands where in the work folder.
DATALIST, HELD_OUT = "datalist.json", "held_out.json"
RAW, IMAGES = "nnunet_raw", "images"


def with_folds(datalist: Datalist) -> Datalist:
    """The labelled training cases, each with its name and fold written down, so that both sides split alike.

    The folds are those of ``medimg3d train``: the case's own, else by patient (or case) and the split's seed.

    Raises:
        DataError: No labelled case, two cases of one name, regions, or an ignored label.
    """
    refused = sorted({"regions", "ignore_label"} & set(datalist.extra))
    if refused:
        raise DataError(f'The datalist has "{refused[0]}", which is not compared; expected plain label maps.')
    cases = [case for case in datalist.training if case.label is not None]
    names = [case.name for case in cases]
    if not cases or len(set(names)) < len(names):
        raise DataError(
            f"Found {len(cases)} labelled cases of {len(set(names))} names; expected a name each."
        )
    num_folds = int(datalist.split.get("num_folds") or DEFAULT_FOLDS)
    seed = int(datalist.split.get("seed") or 0)
    keys = [{"id": case.name, "patient": case.patient, "fold": case.fold, "image": ""} for case in cases]
    folds = assign_folds(keys, num_folds=num_folds, seed=seed)
    named = (replace(case, id=case.name, fold=fold) for case, fold in zip(cases, folds, strict=True))
    split = {**datalist.split, "num_folds": num_folds, "seed": seed}
    return replace(
        datalist,
        training=tuple(sorted(named, key=lambda case: case.name)),
        validation=(),
        test=(),
        split=split,
    )


def fewer_cases(datalist: Datalist, fold: int, number: int) -> Datalist:
    """The first cases by name, a third of them (at least one) from the held-out fold: to try the road.

    Raises:
        UsageError: Fewer than two cases are asked for.
    """
    if number < 2:
        raise UsageError(f"--cases is {number}; expected at least 2, one to train on and one to score.")
    held_out = [case for case in datalist.training if case.fold == fold][: max(1, number // 3)]
    others = [case for case in datalist.training if case.fold != fold][: number - len(held_out)]
    chosen = sorted([*held_out, *others], key=lambda case: case.name)
    return replace(datalist, training=tuple(chosen))


def splits(datalist: Datalist) -> list[dict[str, list[str]]]:
    """The content of nnU-Net's ``splits_final.json``: a fold each."""
    num_folds = int(datalist.split["num_folds"])
    return [
        {
            "train": [case.name for case in datalist.training if case.fold != fold],
            "val": [case.name for case in datalist.training if case.fold == fold],
        }
        for fold in range(num_folds)
    ]


def consecutive_labels(labels: Mapping[int, str]) -> dict[int, int]:
    """Own label value → nnU-Net's, which must be whole numbers from 0 without a gap.

    Raises:
        DataError: The datalist does not name its labels, or has no background.
    """
    if 0 not in labels or len(labels) < 2:
        raise DataError(f'"labels" is {dict(labels)}; expected 0 (background) and at least one structure.')
    return {value: number for number, value in enumerate(sorted(labels))}


def dataset_json(datalist: Datalist, channels: Sequence[str]) -> dict[str, Any]:
    """The content of nnU-Net's ``dataset.json``."""
    numbers = consecutive_labels(datalist.labels)
    names = {0: "background"} | {value: name for value, name in datalist.labels.items() if value != 0}
    return {
        "channel_names": {str(number): name for number, name in enumerate(channels)},
        "labels": {names[value]: number for value, number in numbers.items()},
        "numTraining": len(datalist.training),
        "file_ending": ENDING,
    }


def channel_names(datalist: Datalist, given: str | None = None) -> list[str]:
    """What nnU-Net is told of each channel: "CT" where it is one (its own intensity scheme), else any name.

    Args:
        datalist: Its ``modality``, or the names of its ``images``.
        given: The names instead, with commas between.
    """
    if given:
        names = given.split(",")
    elif datalist.modality:
        names = [datalist.modality[key] for key in sorted(datalist.modality, key=int)]
    else:
        names = list(datalist.training[0].images) or ["image"]
    return ["CT" if re.fullmatch(r"ct\b.*", name.strip().lower()) else name.strip() for name in names]


def write_both(datalist: Datalist, fold: int, folder: Path, *, channels: Sequence[str]) -> dict[str, Any]:
    """Write the data set in both forms.

    ``datalist.json`` (all cases) and ``held_out.json`` (those to score) for medimg3d; the held-out images once more as
    each side's predictor takes them; and nnU-Net's raw folder. Files that are right as they are become hard links
    where the file system allows it.

    Args:
        datalist: As :func:`with_folds` gives it.
        fold: The fold that is held out.
        folder: The work folder.
        channels: As :func:`channel_names` gives them.

    Returns:
        Numbers of cases, and the bytes of all images, uncompressed in half precision.

    Raises:
        UsageError: The fold has no case, or all of them.
        DataError: A file cannot be read, or the channels of a case differ in shape or number.
    """
    held_out = tuple(case for case in datalist.training if case.fold == fold)
    if not 0 < len(held_out) < len(datalist.training):
        raise UsageError(
            f"Fold {fold} holds out {len(held_out)} of {len(datalist.training)} cases; choose another."
        )
    raw = folder / RAW / DATASET
    for path in (raw, folder / IMAGES):
        shutil.rmtree(path, ignore_errors=True)
    numbers = consecutive_labels(datalist.labels)
    half_bytes = 0
    for case in datalist.training:
        half_bytes += write_channels(case, raw / "imagesTr", num_channels=len(channels))
        write_label(case, raw / "labelsTr", numbers)
    for case in held_out:
        write_channels(case, folder / IMAGES / "nnunet", num_channels=len(channels))
        write_together(case, folder / IMAGES / "medimg3d")
    write_json(dataset_json(datalist, channels), raw / "dataset.json")
    save_datalist(datalist, folder / DATALIST)
    save_datalist(replace(datalist, training=held_out), folder / HELD_OUT)
    counts = {"training_cases": len(datalist.training) - len(held_out), "held_out_cases": len(held_out)}
    return {**counts, "half_precision_gb": half_bytes / 1e9}


def write_channels(case: Case, folder: Path, *, num_channels: int) -> int:
    """Write ``NAME_0000.nii.gz``, ``NAME_0001.nii.gz``, …; the bytes of the voxels in half precision."""
    grids = [read_volume_grid(file) for file in case.files]
    counts = [1 if grid.array.ndim < 4 else grid.array.shape[3] for grid in grids]
    shapes = {grid.array.shape[:3] for grid in grids}
    if len(shapes) > 1 or sum(counts) != num_channels:
        raise DataError(
            f"{case.name} has {sum(counts)} channels of the shapes {sorted(shapes)}; "
            f"expected {num_channels} on one grid."
        )
    number = 0
    for file, grid, count in zip(case.files, grids, counts, strict=True):
        if grid.array.ndim < 4 and file.name.lower().endswith(ENDING):
            _link(file, folder / f"{case.name}_{number:04d}{ENDING}")
        else:
            volume = read_volume(file)
            for own in range(count):
                array = volume.array[..., own] if grid.array.ndim == 4 else volume.array
                _write(replace(volume, array=array), folder / f"{case.name}_{number + own:04d}{ENDING}")
        number += count
    return 2 * num_channels * int(np.prod(next(iter(shapes))))


def write_together(case: Case, folder: Path) -> None:
    """Write ``NAME.nii.gz``, several channels as a fourth axis."""
    file = case.files[0]
    if len(case.files) == 1 and file.name.lower().endswith(ENDING):
        _link(file, folder / f"{case.name}{ENDING}")
        return
    volumes = [read_volume(one) for one in case.files]
    arrays = [volume.array if volume.array.ndim == 4 else volume.array[..., None] for volume in volumes]
    array = volumes[0].array if len(volumes) == 1 else np.concatenate(arrays, axis=3)
    _write(replace(volumes[0], array=array), folder / f"{case.name}{ENDING}")


def write_label(case: Case, folder: Path, numbers: Mapping[int, int]) -> None:
    """Write ``NAME.nii.gz`` with nnU-Net's label values."""
    assert case.label is not None  # with_folds
    if all(value == number for value, number in numbers.items()) and case.label.name.lower().endswith(ENDING):
        _link(case.label, folder / f"{case.name}{ENDING}")
        return
    volume = read_volume(case.label)
    _write(replace(volume, array=renumbered(volume.array, numbers)), folder / f"{case.name}{ENDING}")


def renumbered(array: NDArray[Any], numbers: Mapping[int, int]) -> NDArray[np.uint8]:
    """A label map with other values.

    Raises:
        DataError: It holds a value that ``numbers`` does not name.
    """
    unknown = sorted(set(np.unique(array).tolist()) - set(numbers))
    if unknown:
        raise DataError(f"A label map holds {unknown[0]}; expected one of {sorted(numbers)}.")
    found = np.zeros(array.shape, np.uint8)
    for value, number in numbers.items():
        found[array == value] = number
    return found


def restore_labels(folder: Path, labels: Mapping[int, str]) -> None:
    """Give predictions of nnU-Net the datalist's own label values, in place."""
    own = {number: value for value, number in consecutive_labels(labels).items()}
    if all(value == number for number, value in own.items()):
        return
    for file in sorted(folder.glob(f"*{ENDING}")):
        volume = read_volume(file)
        _write(replace(volume, array=renumbered(volume.array, own)), file)


def _write(volume: Volume, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_volume(volume, path)


def _link(source: Path, target: Path) -> None:
    """A hard link, else a copy. No symbolic link: its target's name would name the case."""
    target.parent.mkdir(parents=True, exist_ok=True)
    source = source.resolve()
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
