"""What is checked across the cases of a datalist: do they fit together, does a patient stand in two parts."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from medimg3d.data.case_checks import ReadCase, image_word, other_grid, stacking_difference, times
from medimg3d.data.datalist import SECTIONS, Datalist, Section
from medimg3d.data.finding import Finding
from medimg3d.errors import DataError

STACKED = "stacked_images"
"""Key of a datalist: the names of ``images`` that a network takes together, as its channels."""

NAMED_GRID_MM = 0.1
"""Largest distance between the corners of two named images' grids that is not remarked on, in mm."""

SPACING_FACTOR = 1.5
"""A voxel size this many times larger or smaller than the median, along one axis, is remarked on."""
UNIT_FACTOR = 8.0
"""Voxels this many times larger or smaller than the median (cube root of the volume): another unit of length."""


def check_dimensions(cases: Sequence[ReadCase]) -> list[Finding]:
    """Refuse images that are 2D among 3D ones, and the like; on a tie the larger number stays.

    Single images with channels or times in a fourth axis (4D NIfTI) are right if most are so.
    """
    dimensions = {one.name: len(one.images[0].shape) for one in cases}
    if not dimensions:
        return []
    usual, count = max(Counter(dimensions.values()).items(), key=lambda item: (item[1], item[0]))
    return [
        one.finding(
            "dimensions",
            f"image is {len(one.images[0].shape)}D ({times(one.images[0].shape)})",
            f"{usual}D, as the {count} others",
            _CURE_4D
            if len(one.images[0].shape) > usual
            else "Take it out of the datalist, or make a list of its own",
        )
        for one in cases
        if dimensions[one.name] != usual
    ]


_CURE_4D = "A time series or several channels: save one volume a file, or take the case out"
_CURE_LIST = 'Give each case the same images in the same order ("image": a list), or take the case out'
_CURE_FOURTH_AXIS = "Write the same channels into every file, or take the case out"


def check_channels(cases: Sequence[ReadCase], datalist: Datalist, num_channels: int | None) -> list[Finding]:
    """Refuse another number of channels than the network takes, or than most have, and such as cannot be stacked.

    Args:
        cases: To check.
        datalist: Its ``modality`` settles a tie. Named images that it lists under :data:`STACKED` must be in every case
            that has named ones, on one grid.
        num_channels: Channels that the network takes; None if there is no network yet.

    Raises:
        DataError: What it has under :data:`STACKED` is no list of names.
    """
    names, takes_lists = _stacked_names(datalist), num_channels is not None and num_channels > 1
    stacked = [finding for one in cases for finding in _check_stacked(one, names, takes_lists=takes_lists)]
    return _count_findings(cases, datalist, num_channels) + stacked


def _count_findings(cases: Sequence[ReadCase], datalist: Datalist, num_channels: int | None) -> list[Finding]:
    """What is to be said of the number of channels; colour pictures are remarked on."""
    plain = [one for one in cases if not one.case.images]
    counts = {one.name: count_channels(one) for one in plain}
    listed = len(datalist.modality)
    if not counts:
        return []
    usual = max(Counter(counts.values()).items(), key=lambda item: (item[1], item[0] == listed, item[0]))[0]
    expected = usual if num_channels is None else num_channels
    because = "as most have" if num_channels is None else "as the bundle's network takes"
    findings = []
    for one in plain:
        count, first = counts[one.name], one.images[0]
        if count == expected:
            continue
        if first.affine is None and len(one.images) == 1:  # a picture: its reader turns colours to grey
            text = f"image has {count} channels"
            findings.append(
                one.finding("channels", text, f"{expected}, {because}", "Convert when loading", severe=False)
            )
        elif len(first.shape) == 4 and expected == 1:
            text = f"image is 4D ({times(first.shape)})"
            findings.append(one.finding("dimensions", text, f"3D with 1 channel, {because}", _CURE_4D))
        else:
            along = f" along its fourth axis ({times(first.shape)})" if len(first.shape) == 4 else ""
            text = f"image has {count} channel{'s' if count > 1 else ''}{along}"
            cure = _CURE_FOURTH_AXIS if along else _CURE_LIST
            findings.append(one.finding("channels", text, f"{expected}, {because}", cure))
    return findings


def count_channels(one: ReadCase) -> int:
    """Channels that a case is read with: over its files, colours and fourth axes."""
    return sum(image.channels * (image.shape[3] if len(image.shape) == 4 else 1) for image in one.images)


def _stacked_names(datalist: Datalist) -> tuple[str, ...]:
    names = datalist.extra.get(STACKED, ())
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise DataError(f'"{STACKED}" is {names!r}; expected names of "images", such as ["ct", "pet"].')
    return tuple(names)


def _check_stacked(one: ReadCase, names: Sequence[str], *, takes_lists: bool) -> list[Finding]:
    """Refuse a case whose images a training cannot stack as channels: the named ones, or a list of them."""
    own = list(one.case.images)
    lacking = [name for name in names if name not in own] if own else []
    if lacking:
        expected = f"each of {', '.join(names)}: the channels of one network"
        return [one.finding("channels", _lacks(lacking), expected, "Add it, or take the case out")]
    if own:
        return _check_one_grid(one, [own.index(name) for name in names])
    return _check_one_grid(one, range(len(one.images))) if takes_lists else []


def _check_one_grid(one: ReadCase, numbers: Sequence[int]) -> list[Finding]:
    """Refuse the first of some images that does not lie on the grid of the first."""
    for n in numbers[1:]:
        difference = stacking_difference(one.images[numbers[0]], one.images[n])
        if difference:
            first, own = image_word(one.case, numbers[0]), image_word(one.case, n)
            cure = f"Resample {own} onto {first}; where only its header is off, copy the geometry into it"
            found, expected = f"{first} and {own} {difference}", "one grid, since MONAI stacks no others"
            return [one.finding("grid", found, expected, cure, file=one.case.files[n])]
    return []


def check_named_images(cases: Sequence[ReadCase]) -> list[Finding]:
    """Remark on cases that lack one of the named images which others have, or have them on different grids."""
    counts = Counter(name for one in cases for name in one.case.images)
    findings = []
    for one in cases:
        lacking = [name for name in counts if one.case.images and name not in one.case.images]
        if lacking:
            expected = f"one, as {counts[lacking[0]]} others have"
            cure = "Add it, or train a network that does without"
            findings.append(one.finding("channels", _lacks(lacking), expected, cure, severe=False))
        n, difference = other_grid(one.images, NAMED_GRID_MM) if one.case.images else (0, "")
        if difference:
            found, cure = f"the named images {difference}", "Resample them before stacking"
            file = one.case.files[n]
            findings.append(one.finding("grid", found, "one grid", cure, file=file, severe=False))
    return findings


def _lacks(names: Sequence[str]) -> str:
    return f"the case has no image {' and no image '.join(names)}"


def check_orientations(cases: Sequence[ReadCase]) -> list[Finding]:
    """Remark on images whose axes run otherwise than those of most."""
    axes = {one.name: one.images[0].orientation for one in cases if len(one.images[0].shape) > 2}
    counts = Counter(code for code in axes.values() if code)
    if len(counts) < 2:
        return []
    usual = max(counts.items(), key=lambda item: (item[1], item[0]))[0]
    return [
        one.finding(
            "orientation",
            f"the axes of the image run to {axes[one.name]}",
            f"{usual}, as most do",
            "Nothing to do where the recipe has Orientationd; else reorient the image and its label",
            severe=False,
        )
        for one in cases
        if axes.get(one.name) not in (None, "", usual)
    ]


def check_spacings(cases: Sequence[ReadCase]) -> list[Finding]:
    """Remark on other voxel sizes than the median; refuse such as only another unit of length explains.

    Named images (CT, PET) are compared with those of the same name.
    """
    groups: dict[str, list[tuple[ReadCase, int]]] = defaultdict(list)
    for one in cases:
        for n in range(len(one.images) if one.case.images else 1):
            if one.images[n].spacing_mm is not None:
                groups[image_word(one.case, n) if one.case.images else "image"].append((one, n))
    return [finding for word, group in groups.items() for finding in _compare_spacings(word, group)]


def _compare_spacings(word: str, group: Sequence[tuple[ReadCase, int]]) -> list[Finding]:
    sizes = [one.images[n].spacing_mm or () for one, n in group]
    usual = tuple(sorted(axis)[(len(sizes) - 1) // 2] for axis in zip(*sizes, strict=True))
    findings = []
    for (one, n), own in zip(group, sizes, strict=True):
        ratios = [max(a / b, b / a) for a, b in zip(own, usual, strict=True)]
        product = own[0] * own[1] * own[2] / (usual[0] * usual[1] * usual[2])
        is_other_unit = max(product, 1 / product) >= UNIT_FACTOR**3
        if max(ratios) <= SPACING_FACTOR and not is_other_unit:
            continue
        findings.append(
            one.finding(
                "spacing",
                f"{word} has voxels of {_size(own)} mm",
                f"about {_size(usual)} mm, the median",
                "The header is in another unit of length (m or cm instead of mm), or it is wrong: correct it"
                if is_other_unit
                else "Nothing to do where the recipe resamples (Spacingd) and the header is right; else correct it",
                file=one.case.files[n],
                severe=is_other_unit,
            )
        )
    return findings


def check_folds(cases: Sequence[ReadCase], datalist: Datalist) -> list[Finding]:
    """Refuse a fold that there is not, and a patient in two folds: the fold with most of its cases stays."""
    num_folds = datalist.split.get("num_folds")
    findings = []
    by_patient: dict[str, list[ReadCase]] = defaultdict(list)
    for one in cases:
        fold = one.case.fold
        if one.section != "training" or fold is None:
            continue
        if isinstance(num_folds, int) and fold >= num_folds:
            expected = f"0 to {num_folds - 1}"
            cure = 'Correct "fold" or "split": {"num_folds": ...} in the datalist'
            findings.append(one.finding("fold", f"the case carries fold {fold}", expected, cure))
        elif one.case.patient:
            by_patient[one.case.patient].append(one)
    for own in by_patient.values():
        counts = Counter(one.case.fold for one in own)
        stays = max(counts.items(), key=lambda item: (item[1], -(item[0] or 0)))[0]
        findings += [
            one.finding(
                "patient in two folds",
                f"the case is in fold {one.case.fold}, others of its patient are in fold {stays}",
                "all cases of a patient in one fold",
                f'Set its "fold" to {stays}, or make the folds anew with medimg3d datalist',
            )
            for one in own
            if one.case.fold != stays
        ]
    return findings


def check_patients(cases: Sequence[ReadCase]) -> list[Finding]:
    """Refuse a patient in two lists (test stays, then validation); remark on cases without a patient."""
    order: list[Section] = list(reversed(SECTIONS))
    home: dict[str, Section] = {}
    for one in sorted(cases, key=lambda one: order.index(one.section)):
        if one.case.patient:
            home.setdefault(one.case.patient, one.section)
    known = sum(bool(one.case.patient) for one in cases)
    findings = []
    for one in cases:
        if one.case.patient and home[one.case.patient] != one.section:
            findings.append(
                one.finding(
                    "patient in two lists",
                    f"its patient is also in the {home[one.case.patient]} list",
                    "a patient in one list only",
                    "The results would look too good: move all of the patient's cases to one list",
                )
            )
        elif known and not one.case.patient:
            findings.append(
                one.finding(
                    "patient not given",
                    "the case names no patient",
                    f"one, as {known} other cases have",
                    "Name it, so that folds keep the patient's cases together",
                    severe=False,
                )
            )
    return findings


def check_twice(cases: Sequence[ReadCase]) -> list[Finding]:
    """Refuse a case, a name or an image's content that occurs twice: the first stays.

    Args:
        cases: In the order of :meth:`Datalist.named_cases`: test, validation, training.
    """
    by_files: dict[tuple[Path, ...], ReadCase] = {}
    by_content: dict[tuple[str, ...], ReadCase] = {}
    findings = []
    for one in cases:
        content = tuple(image.digest for image in one.images)
        listed, same = by_files.get(one.case.files), by_content.get(content)
        if listed is not None:
            found = f"the same image is listed twice: {_already(listed, one)}"
            findings.append(
                one.finding("duplicate", found, "each image once", "Take one entry out of the datalist")
            )
        elif one.name != one.case.name:
            found = f"the name {one.case.name} is used twice"
            findings.append(one.finding("name", found, "a name of its own", 'Give each case its own "id"'))
        elif same is not None:
            found = f"the image has the same content as another: {_already(same, one)}"
            cure = "Take one of them out; if their labels differ, find out which is right"
            findings.append(one.finding("duplicate", found, "each image once", cure))
        else:
            by_files[one.case.files], by_content[content] = one, one
    return findings


def check_labels_twice(cases: Sequence[ReadCase]) -> list[Finding]:
    """Remark on one label map under two different images."""
    by_content: dict[str, ReadCase] = {}
    findings = []
    for one in cases:
        if one.label is None or one.label.box is None:
            continue
        first = by_content.setdefault(one.label.digest, one)
        if first is not one:
            findings.append(
                one.finding(
                    "duplicate",
                    f"the label has the same content as that of {first.name}",
                    "a label of its own",
                    "Look at both: one of the labels may have been copied to the wrong name",
                    file=one.case.label,
                    severe=False,
                )
            )
    return findings


def check_unused_labels(cases: Sequence[ReadCase], datalist: Datalist) -> list[Finding]:
    """Remark on structures that the datalist names and no label map holds."""
    held = {value for one in cases for value in one.label_values}
    unused = [value for value in datalist.labels if value > 0 and value not in held] if any(held) else []
    return [
        Finding(
            "label values",
            "",
            None,
            None,
            f"the label {value} ({datalist.labels[value]}) occurs in no label map",
            "every structure in some case",
            'Take it out of "labels", or add cases that have it',
            severe=False,
        )
        for value in unused
    ]


def _already(first: ReadCase, own: ReadCase) -> str:
    where = "" if first.section == own.section else f" in the {first.section} list"
    return f"already there as {first.name}{where}, which stays"


def _size(spacing_mm: Sequence[float]) -> str:
    return " x ".join(f"{size:.3g}" for size in spacing_mm)
