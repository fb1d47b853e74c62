"""Finds the cases of a bundle of several channels: in a datalist, or in folders by the names of the files.

Three ways to name the files of a case, besides one four-dimensional file: nnU-Net's (``case_0000.nii.gz``,
``case_0001.nii.gz``, … in the order of the channels), a folder a case (``case/t1.nii.gz``, or
``case/case_t1.nii.gz``), and the name of the channel behind that of the case (``case_t1.nii.gz``).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from medimg3d.data.datalist import SECTIONS, Case, Datalist
from medimg3d.data.datalist_file import load_datalist
from medimg3d.data.inputs import (
    IGNORED,
    FoundInputs,
    InputFile,
    file_stem,
    find_inputs,
    walk_files,
    why_no_volume,
    with_cases,
)
from medimg3d.data.volume_file import read_volume_grid
from medimg3d.errors import Medimg3dError, UsageError

ALL = "all"
_NUMBERED = re.compile(r"(?P<case>.+)_(?P<number>\d{4})")
_Group = dict[int, list[Path]]


def find_case_inputs(
    paths: Sequence[Path],
    *,
    channels: Sequence[str],
    section: str | None = None,
    without: Path | None = None,
) -> FoundInputs:
    """The cases among files, folders and at most one datalist; each with one file, or one a channel.

    Args:
        paths: Files, folders, or a datalist (.json).
        channels: Names of the channels that the bundle takes, in order; one for a bundle of one channel.
        section: Part of the datalist: ``"test"``, ``"validation"``, ``"training"`` or ``"all"``; by default the
            test cases, and all where it has none.
        without: As for :func:`medimg3d.data.inputs.find_inputs`.

    Returns:
        Cases, and why others are none. A case of several files that lacks a channel is rejected by its name.

    Raises:
        UsageError: No path is given, one does not exist, no image is found, there are two datalists, or a section
            is asked for that is none, is empty, or has no datalist.
        DataError: The datalist cannot be read.
    """
    lists = [path for path in paths if is_datalist(path)]
    others = [path for path in paths if path not in lists]
    if section is not None and not lists:
        raise UsageError(f"--section {section} is of a datalist, and none is given; leave it away.")
    if len(lists) > 1:
        raise UsageError(f"{len(lists)} datalists are given; expected one. Predict them one after the other.")
    listed = _of_datalist(lists[0], channels, section) if lists else FoundInputs((), {}, {})
    if lists and not others:
        return listed
    found = (
        _in_files(others, channels, without) if len(channels) > 1 else find_inputs(others, without=without)
    )
    taken = {image.case for image in listed.images}
    return FoundInputs(
        listed.images + tuple(_renamed(image, taken) for image in found.images),
        listed.rejected | found.rejected,
        listed.ignored | found.ignored,
    )


def is_datalist(path: Path) -> bool:
    """Whether a file is JSON with one of the lists of a datalist, and no sidecar."""
    if path.suffix.lower() != ".json" or not path.is_file():
        return False
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and any(isinstance(content.get(section), list) for section in SECTIONS)


def _renamed(image: InputFile, taken: set[str]) -> InputFile:
    name, number = image.case, 2
    while name in taken:
        name, number = f"{image.case}_{number}", number + 1
    taken.add(name)
    return replace(image, case=name)


def _of_datalist(path: Path, channels: Sequence[str], section: str | None) -> FoundInputs:
    chosen = _section(load_datalist(path), section)
    if not chosen:
        raise UsageError(f"{path} has no case in section {section or ALL!r}; choose another with --section.")
    images: list[InputFile] = []
    rejected: dict[str, str] = {}
    taken: set[str] = set()
    for name, case in chosen.items():
        files, reason = _files_of(case, channels)
        if reason:
            rejected[name] = reason
        else:
            own = re.sub(r"[\\/#\s]+", "_", name)
            images.append(_renamed(InputFile(own, files[0], name, tuple(files[1:])), taken))
    return FoundInputs(tuple(images), rejected, {})


def _section(datalist: Datalist, section: str | None) -> dict[str, Case]:
    """Name → case."""
    if section not in (None, ALL, *SECTIONS):
        raise UsageError(f"Unknown section {section!r}; expected {', '.join(SECTIONS)} or {ALL}.")
    wanted = section or ("test" if datalist.test else ALL)
    return {name: case for name, own, case in datalist.named_cases() if wanted in (ALL, own)}


def _files_of(case: Case, channels: Sequence[str]) -> tuple[list[Path], str]:
    """The files of a listed case in the order of the channels, and why it is none."""
    if case.images and not (len(channels) == len(case.images) == 1):
        lacking = [name for name in channels if name not in case.images]
        if lacking:
            return [], _lacks(lacking, channels)
        files = [case.images[name] for name in channels]
    else:
        files = list(case.files)
        if len(files) not in (1, len(channels)):
            return (
                [],
                f"has {len(files)} files; this bundle takes {len(channels)} channels ({', '.join(channels)})",
            )
    for file in files:
        reason = "is missing" if not file.is_file() else why_no_volume(file)
        if reason:
            return [], f"its file {file.name} {reason}"
    return files, ""


def _in_files(paths: Sequence[Path], channels: Sequence[str], without: Path | None) -> FoundInputs:
    """Group the volumes by case."""
    volumes: dict[Path, tuple[str, bool]] = {}
    rejected: dict[str, str] = {}
    ignored: dict[str, str] = {}
    for path, key, named in walk_files(paths, without):
        reason = why_no_volume(path)
        if not reason:
            volumes.setdefault(Path(os.path.abspath(path)), (key, named))  # a link keeps its name
        elif reason == IGNORED and not named:
            ignored[key] = IGNORED
        else:
            rejected[key] = reason
    groups, strays = _grouped(list(volumes), channels)
    cases: dict[Path, tuple[str, tuple[Path, ...]]] = {}
    for place, group in groups.items():
        key = _shown(place, group, volumes)
        if reason := _why_no_case(group, channels):
            rejected[key] = reason
        else:
            cases[place] = (key, tuple(group[number][0] for number in range(len(channels))))
    folders = {files[0].parent for group in groups.values() for files in group.values()}
    for path in strays:
        key, named = volumes[path]
        if path.parent not in folders:
            cases[path] = (key, (path,))
        else:
            (rejected if named else ignored)[key] = f"is none of the channels {', '.join(channels)}"
    if not cases and not rejected:
        return find_inputs(paths, without=without)  # says that there is no image
    named_cases = with_cases({place: key for place, (key, _) in cases.items()})
    images = [
        InputFile(one.case, cases[one.path][1][0], one.key, cases[one.path][1][1:]) for one in named_cases
    ]
    return FoundInputs(tuple(images), rejected, ignored)


def _grouped(paths: Sequence[Path], channels: Sequence[str]) -> tuple[dict[Path, _Group], list[Path]]:
    """Groups by a path of the case's name, where one file could stand for all; and files that are in none."""
    groups: dict[Path, _Group] = {}
    strays: list[Path] = []
    for path in paths:
        found = _channel_of(file_stem(path), channels)
        if found is None:
            strays.append(path)
            continue
        prefix, number = found
        place = path.parent / f"{prefix}.nii" if prefix else path.parent.with_name(f"{path.parent.name}.nii")
        groups.setdefault(place, {}).setdefault(number, []).append(path)
    for place, group in list(groups.items()):
        files = [file for own in group.values() for file in own]
        is_number = all(_NUMBERED.fullmatch(file_stem(file)) for file in files)
        if (is_number and 0 not in group) or (len(files) == 1 and _has_channels(files[0])):
            strays += files
            del groups[place]
    return groups, strays


def _channel_of(stem: str, channels: Sequence[str]) -> tuple[str, int] | None:
    """Name of the case, empty if the folder has it, and number of the channel; None if the name tells none."""
    numbered = _NUMBERED.fullmatch(stem)
    if numbered and int(numbered["number"]) < len(channels):
        return numbered["case"], int(numbered["number"])
    for name in sorted(channels, key=len, reverse=True):
        if stem.lower() == name.lower():
            return "", channels.index(name)
        if stem.lower().endswith(tuple(f"{mark}{name.lower()}" for mark in "_-.")):
            return stem[: -len(name) - 1], channels.index(name)
    return None


def _has_channels(path: Path) -> bool:
    """Whether a file holds several channels itself."""
    try:
        return read_volume_grid(path).array.ndim == 4
    except Medimg3dError:
        return False


def _why_no_case(group: _Group, channels: Sequence[str]) -> str:
    lacking = [name for number, name in enumerate(channels) if number not in group]
    if lacking:
        return _lacks(lacking, channels)
    twice = [channels[number] for number, files in sorted(group.items()) if len(files) > 1]
    return f"has two files for the channel {twice[0]}; expected one" if twice else ""


def _lacks(lacking: Sequence[str], channels: Sequence[str]) -> str:
    word = "channel" if len(lacking) == 1 else "channels"
    return f"lacks the {word} {', '.join(lacking)}; this bundle takes {', '.join(channels)}"


def _shown(place: Path, group: _Group, volumes: Mapping[Path, tuple[str, bool]]) -> str:
    """What the names of a case's files have in common, below the folder that was given."""
    first = group[min(group)][0]
    folder = Path(volumes[first][0]).parent
    return str(folder / place.stem if place.parent == first.parent else folder)
