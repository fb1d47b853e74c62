"""Recognises a user's own folders and makes a datalist of them; what does not fit is rejected by name.

Layouts, tried in this order: a Decathlon root or an nnU-Net raw folder (``imagesTr``, ``labelsTr``, with or
without ``dataset.json``), ``images/`` with ``labels/``, a table ``labels.csv``, folders for training and test
with pairs or classes inside, and one folder a class.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from medimg3d.data.datalist import SECTIONS, Case, Datalist, Section, with_cases
from medimg3d.data.datalist_file import load_datalist, parse_labels, parse_regions
from medimg3d.data.image_facts import IMAGE_ENDINGS, image_ending, is_dicom_folder
from medimg3d.data.labels_table import TABLE_NAME, read_labels_table
from medimg3d.data.section_names import section_named
from medimg3d.errors import DataError, UsageError

LAYOUTS = (
    "imagesTr/ + labelsTr/ (Decathlon or nnU-Net, dataset.json optional)",
    "images/ + labels/ (or masks/)",
    "CLASS_A/*.png + CLASS_B/*.png (one folder a class)",
    "train/ + test/ (and val/) with one of the last two inside",
    "labels.csv (a row an image: file, label; split, patient and more if known)",
)

_PAIR_FOLDERS = (("images", "labels"), ("images", "masks"), ("image", "label"), ("imgs", "masks"))
_CHANNEL = re.compile(r"^(?P<case>.+)_(?P<channel>\d{4})$")
_LABEL_SUFFIXES = ("_seg", "_segmentation", "_mask", "_label", "_labels", "_gt")


@dataclass(frozen=True)
class FolderScan:
    """What was found in one or more folders.

    Attributes:
        datalist: The cases.
        rejected: File (relative to its folder) to the reason why it is in no case.
        layouts: Layout of each folder, in words.
    """

    datalist: Datalist
    rejected: dict[str, str] = field(default_factory=dict)
    layouts: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Files:
    """Images of one folder by case name, and the files that are none."""

    by_name: dict[str, Path]
    rejected: dict[Path, str]


def read_folders(
    folders: Sequence[str | Path],
    *,
    patient_pattern: str | None = None,
    pair: tuple[str, str] | None = None,
) -> FolderScan:
    """Recognise several folders and merge their cases.

    Args:
        folders: Each in one of :data:`LAYOUTS`. Case names that occur in two of them get the folder's name
            in front.
        patient_pattern: Regular expression searched in each case's path below its folder; its first group
            (the whole match if it has none) is the patient. A case without a match is rejected.
        pair: Names of the folders of images and of label maps, below each of ``folders``, where they are
            none of the usual ones.

    Returns:
        The cases of all folders and the rejected files; nothing is read but names and ``dataset.json``.

    Raises:
        UsageError: No folder, an empty or unknown one, a bad pattern, or folders whose labels or regions disagree.
        DataError: A broken ``dataset.json``, or labels in no known form.
    """
    paths = [Path(folder) for folder in folders]
    if not paths:
        raise UsageError("No folder was given; expected at least one folder with images.")
    scans = [read_folder(path, pair=pair) for path in paths]
    if patient_pattern is not None:
        pattern = _compile(patient_pattern)
        scans = [_with_patients(scan, path, pattern) for scan, path in zip(scans, paths, strict=True)]
        if not any(scan.datalist.cases() for scan in scans):
            raise UsageError(
                f"The patient pattern {patient_pattern!r} fits no file name; expected a match in each."
            )
    return scans[0] if len(scans) == 1 else _merge(scans, paths)


def read_folder(folder: str | Path, *, pair: tuple[str, str] | None = None) -> FolderScan:
    """Recognise one folder; see :func:`read_folders`.

    Raises:
        UsageError: No such folder, nothing in it, or none of the known layouts.
        DataError: A broken ``dataset.json``, or labels in no known form.
    """
    root = Path(folder).absolute()
    if not root.is_dir():
        raise UsageError(f"No folder {folder}; expected a folder with images.")
    if pair is not None:
        return _with_unique_names(_read_named_pair(root, *pair), root)
    if not _visible(root):
        raise UsageError(f"Folder {folder} is empty; expected one of: {'; '.join(LAYOUTS)}.")
    readers: tuple[Callable[[Path], FolderScan | None], ...] = (
        _read_tr,
        _read_pairs,
        _read_table,
        _read_sections,
        _read_classes,
    )
    for reader in readers:
        scan = reader(root)
        if scan is not None:
            return _with_unique_names(scan, root)
    raise UsageError(f"Folder {folder} has no known layout; expected one of: {'; '.join(LAYOUTS)}.")


def _read_tr(root: Path) -> FolderScan | None:
    """Decathlon and nnU-Net: ``imagesTr``, ``labelsTr``, ``imagesTs``, ``dataset.json``."""
    properties = _properties(root / "dataset.json")
    listed = "training" in properties
    if not listed and not (root / "imagesTr").is_dir():
        return None
    if _is_nnunet(root, properties):
        return _read_nnunet(root, properties)
    if listed:
        return _read_decathlon(root)
    training = _pair(root, _scan(root / "imagesTr"), _scan(root / "labelsTr"))
    test = _pair(root, _scan(root / "imagesTs"), _scan(root / "labelsTs"), label_needed=False)
    datalist = Datalist(
        name=root.name,
        training=training.datalist.training,
        test=test.datalist.training,
        **_labels_and_regions(root, properties),
    )
    return FolderScan(datalist, training.rejected | test.rejected, ("imagesTr + labelsTr",))


def _read_decathlon(root: Path) -> FolderScan:
    """A root with a full dataset.json: its lists count; files that it does not list are rejected."""
    datalist = load_datalist(root / "dataset.json")
    listed = {file for case in datalist.cases() for file in (*case.files, case.label)}
    rejected = {}
    for folder in ("imagesTr", "labelsTr", "imagesTs", "labelsTs"):
        files = _scan(root / folder)
        for file in files.by_name.values():
            if file not in listed:
                rejected[_relative(file, root)] = "not listed in dataset.json"
        rejected |= {_relative(file, root): reason for file, reason in files.rejected.items()}
    return FolderScan(datalist, rejected, ("Decathlon (dataset.json)",))


def _is_nnunet(root: Path, properties: Mapping[str, object]) -> bool:
    """By dataset.json (version 2), else by names: every image ends in four digits and no label does."""
    if "channel_names" in properties or "file_ending" in properties:
        return True
    images, labels = _scan(root / "imagesTr").by_name, _scan(root / "labelsTr").by_name
    return bool(images) and all(map(_CHANNEL.match, images)) and not any(name in images for name in labels)


def _read_nnunet(root: Path, properties: Mapping[str, object]) -> FolderScan:
    channels = properties.get("channel_names") or properties.get("modality") or {}
    modality = {str(key): str(name) for key, name in channels.items()} if isinstance(channels, dict) else {}
    training = _pair_channels(root, "imagesTr", "labelsTr", len(modality))
    test = _pair_channels(root, "imagesTs", "labelsTs", len(modality), label_needed=False)
    datalist = Datalist(
        name=str(properties.get("name") or root.name),
        description=str(properties.get("description") or ""),
        licence=str(properties.get("licence") or properties.get("license") or ""),
        reference=str(properties.get("reference") or ""),
        modality=modality,
        training=training.datalist.training,
        test=test.datalist.training,
        **_labels_and_regions(root, properties),
    )
    return FolderScan(datalist, training.rejected | test.rejected, ("nnU-Net raw",))


def _labels_and_regions(root: Path, properties: Mapping[str, object]) -> dict[str, Any]:
    """Names of the label values, and overlapping regions where dataset.json has some."""
    labels = properties.get("labels")
    try:
        regions = parse_regions(labels, properties.get("regions_class_order"))
        return {"labels": parse_labels(labels), "extra": {"regions": regions} if regions else {}}
    except DataError as err:
        raise DataError(f"{root / 'dataset.json'}: {err}") from err


def _pair_channels(
    root: Path, image_folder: str, label_folder: str, num_channels: int, *, label_needed: bool = True
) -> FolderScan:
    """Cases of ``case_0000``, ``case_0001`` images; those without all channels are rejected."""
    files = _scan(root / image_folder)
    channels: dict[str, list[Path]] = {}
    rejected = {_relative(file, root): reason for file, reason in files.rejected.items()}
    for name, file in files.by_name.items():
        match = _CHANNEL.match(name)
        if match is None:
            rejected[_relative(file, root)] = "no channel number in the name; expected NAME_0000"
        else:
            channels.setdefault(match["case"], []).append(file)
    expected = num_channels or max((len(found) for found in channels.values()), default=0)
    for name in [name for name, found in channels.items() if len(found) != expected]:
        incomplete = channels.pop(name)
        reason = f"the case has {len(incomplete)} of {expected} channels"
        rejected |= {_relative(file, root): reason for file in incomplete}
    images = {name: found[0] if expected == 1 else tuple(found) for name, found in channels.items()}
    scan = _pair(root, images, _scan(root / label_folder), label_needed=label_needed)
    return replace(scan, rejected=rejected | scan.rejected)


def _read_pairs(root: Path) -> FolderScan | None:
    """``images/`` and ``labels/``: files of the same name belong together."""
    for image_folder, label_folder in _PAIR_FOLDERS:
        if (root / image_folder).is_dir() and (root / label_folder).is_dir():
            return _read_named_pair(root, image_folder, label_folder)
    return None


def _read_named_pair(root: Path, image_folder: str, label_folder: str) -> FolderScan:
    for name in (image_folder, label_folder):
        if not (root / name).is_dir():
            found = ", ".join(path.name for path in _visible(root) if path.is_dir()) or "no folder"
            raise UsageError(f"No folder {name} in {root}; there is {found}.")
    scan = _pair(root, _scan(root / image_folder), _scan(root / label_folder))
    layout = f"{image_folder} + {label_folder}"
    return replace(scan, datalist=replace(scan.datalist, name=root.name), layouts=(layout,))


def _read_table(root: Path) -> FolderScan | None:
    """``labels.csv``: it says what each image is, wherever it lies below the folder."""
    found = read_labels_table(root)
    return None if found is None else FolderScan(found[0], found[1], (f"table {TABLE_NAME}",))


def _read_sections(root: Path) -> FolderScan | None:
    """``train/``, ``val/``, ``test/``, each with pairs or classes inside."""
    folders = {folder: section_named(folder.name) for folder in _visible(root) if folder.is_dir()}
    if "training" not in folders.values():
        return None
    cases: dict[Section, list[Case]] = {section: [] for section in SECTIONS}
    rejected: dict[str, str] = {}
    found: dict[str, None] = {}
    for folder, section in folders.items():
        scan = None if section is None else _read_pairs(folder) or _read_classes(folder)
        if section is None or scan is None:
            reason = "neither training, validation nor test" if section is None else "no known layout inside"
            rejected[folder.name] = f"folder skipped: {reason}"
            continue
        cases[section] += scan.datalist.training
        rejected |= {f"{folder.name}/{name}": reason for name, reason in scan.rejected.items()}
        found |= dict.fromkeys(scan.layouts)
    if not any(cases.values()) and not found:
        return None
    datalist = with_cases(Datalist(name=root.name, classes=_classes(cases.values())), cases)
    return FolderScan(datalist, rejected, (f"train/val/test with {', '.join(found)}",))


def _read_classes(root: Path) -> FolderScan | None:
    """One folder a class: its name is the class label of every image in it."""
    scans = {folder.name: _scan(folder, keep_endings=True) for folder in _visible(root) if folder.is_dir()}
    if sum(bool(scan.by_name) for scan in scans.values()) < 2:
        return None
    cases = [
        Case(image=file, id=_stem(file), class_label=name)
        for name, scan in scans.items()
        for file in scan.by_name.values()
    ]
    rejected = {_relative(file, root): why for scan in scans.values() for file, why in scan.rejected.items()}
    datalist = Datalist(name=root.name, training=tuple(cases), classes=_classes([cases]))
    return FolderScan(datalist, rejected, ("one folder a class",))


def _pair(
    root: Path,
    images: _Files | Mapping[str, Path | tuple[Path, ...]],
    labels: _Files,
    *,
    label_needed: bool = True,
) -> FolderScan:
    """Match images and labels by name; what is left over is rejected. The cases stand in ``training``."""
    rejected = {_relative(file, root): reason for file, reason in labels.rejected.items()}
    if isinstance(images, _Files):
        rejected |= {_relative(file, root): reason for file, reason in images.rejected.items()}
        images = images.by_name
    free = dict(labels.by_name)
    cases = []
    for name, image in images.items():
        label = free.pop(_label_name(name, free), None)
        if label is None and label_needed:
            files = image if isinstance(image, tuple) else (image,)
            rejected |= {_relative(file, root): "image without a label" for file in files}
        else:
            cases.append(Case(image=image, label=label, id=name))
    rejected |= {_relative(file, root): "label without an image" for file in free.values()}
    return FolderScan(Datalist(training=tuple(cases)), rejected)


def _label_name(name: str, labels: Mapping[str, Path]) -> str:
    """The label's own name for an image: the same, or with ``_seg`` and the like after it."""
    return next((name + suffix for suffix in ("", *_LABEL_SUFFIXES) if name + suffix in labels), name)


def _scan(folder: Path, *, keep_endings: bool = False) -> _Files:
    """Images (files and DICOM folders) directly in a folder, sorted; none if there is no such folder.

    With ``keep_endings`` two files that differ only in their ending are two images; else the second is
    rejected.
    """
    by_name: dict[str, Path] = {}
    rejected: dict[Path, str] = {}
    for path in _visible(folder):
        name = path.name if keep_endings else _stem(path)
        if path.is_dir() and not is_dicom_folder(path):
            rejected[path] = "a folder that holds no DICOM series"
        elif path.is_file() and not image_ending(path):
            if path.suffix.lower() not in (".raw", ".zraw"):  # the voxels of a .mhd
                rejected[path] = f"not an image that can be read; expected {', '.join(IMAGE_ENDINGS)}"
        elif name in by_name:
            rejected[path] = f"has the same name as {by_name[name].name}; expected one image of a name"
        else:
            by_name[name] = path
    return _Files(by_name, rejected)


def _with_unique_names(scan: FolderScan, root: Path) -> FolderScan:
    """Names that occur twice within a folder get the folders below the root in front."""
    counts = Counter(case.name for case in scan.datalist.cases())

    def named(case: Case) -> Case:
        if counts[case.name] == 1 or not case.files[0].is_relative_to(root):
            return case
        return replace(case, id="_".join((*case.files[0].relative_to(root).parent.parts, case.name)))

    return replace(scan, datalist=_map_cases(scan.datalist, named))


def _with_patients(scan: FolderScan, root: Path, pattern: re.Pattern[str]) -> FolderScan:
    """Give each case its patient; cases whose path the pattern does not fit are rejected."""
    cases: dict[Section, list[Case]] = {section: [] for section in SECTIONS}
    rejected = dict(scan.rejected)
    for section in SECTIONS:
        for case in scan.datalist.section(section):
            match = pattern.search(_relative(case.files[0], root.absolute()))
            if match is None:
                rejected[case.name] = "the patient pattern does not fit its name; widen the pattern"
            else:
                cases[section].append(replace(case, patient=match[1] if pattern.groups else match[0]))
    return replace(scan, datalist=with_cases(scan.datalist, cases), rejected=rejected)


def _merge(scans: Sequence[FolderScan], folders: Sequence[Path]) -> FolderScan:
    prefixes = _prefixes(folders)
    counts = Counter(name for scan in scans for name in {case.name for case in scan.datalist.cases()})
    cases: dict[Section, list[Case]] = {section: [] for section in SECTIONS}
    rejected: dict[str, str] = {}
    for scan, prefix in zip(scans, prefixes, strict=True):
        rejected |= {f"{prefix}/{name}": reason for name, reason in scan.rejected.items()}
        for section in SECTIONS:
            for case in scan.datalist.section(section):
                name = f"{prefix}_{case.name}" if counts[case.name] > 1 else case.name
                cases[section].append(replace(case, id=name, class_label=_class_name(case, scan.datalist)))
    datalists = [scan.datalist for scan in scans]
    head = Datalist(
        name=" + ".join(dict.fromkeys(datalist.name for datalist in datalists if datalist.name)),
        description=" ".join(
            dict.fromkeys(datalist.description for datalist in datalists if datalist.description)
        ),
        licence="; ".join(dict.fromkeys(datalist.licence for datalist in datalists if datalist.licence)),
        reference="; ".join(
            dict.fromkeys(datalist.reference for datalist in datalists if datalist.reference)
        ),
        modality=_common_modality(datalists),
        labels=_common_labels(datalists, prefixes),
        classes=_common_classes(datalists),
        extra=_common_regions(datalists, prefixes),
    )
    layouts = tuple(layout for scan in scans for layout in scan.layouts)
    return FolderScan(with_cases(head, cases), rejected, layouts)


def _prefixes(folders: Sequence[Path]) -> list[str]:
    """For each folder the shortest end of its path that no other has, joined by ``_``."""
    parts = [folder.resolve().parts for folder in folders]
    if len(set(parts)) != len(parts):
        raise UsageError("A folder was given twice; give each folder once.")
    for depth in range(1, max(map(len, parts)) + 1):
        ends = ["_".join(part.strip("/\\:") for part in own[-depth:]) for own in parts]
        if len(set(ends)) == len(ends):
            return ends
    raise UsageError("Two folders have the same path; give each folder once.")


def _common_labels(datalists: Sequence[Datalist], prefixes: Sequence[str]) -> dict[int, str]:
    labels: dict[int, str] = {}
    for datalist, prefix in zip(datalists, prefixes, strict=True):
        for value, name in datalist.labels.items():
            if labels.setdefault(value, name) != name:
                raise UsageError(
                    f"Label {value} is {name!r} in {prefix} and {labels[value]!r} in another folder; "
                    "expected the same labels in all. Make one datalist for each."
                )
    return dict(sorted(labels.items()))


def _common_regions(datalists: Sequence[Datalist], prefixes: Sequence[str]) -> dict[str, Any]:
    """``regions`` as an extra key; folders whose labels are not known have no say."""
    found = {
        prefix: datalist.extra.get("regions") or {}
        for datalist, prefix in zip(datalists, prefixes, strict=True)
        if datalist.labels
    }
    (first, regions), *others = found.items() or [("", {})]
    for prefix, other in others:
        if other != regions:
            raise UsageError(
                f"The regions are {other or 'none'} in {prefix} and {regions or 'none'} in {first}; expected the same "
                "in all. Make one datalist for each."
            )
    return {"regions": regions} if regions else {}


def _common_modality(datalists: Sequence[Datalist]) -> Mapping[str, str]:
    known = [datalist.modality for datalist in datalists if datalist.modality]
    if len({len(modality) for modality in known}) > 1:
        raise UsageError("The folders have different numbers of image channels; make one datalist for each.")
    return known[0] if known else {}


def _common_classes(datalists: Sequence[Datalist]) -> tuple[str, ...]:
    """Classes in their own order if all folders agree, else all names sorted."""
    known = list(dict.fromkeys(datalist.classes for datalist in datalists if datalist.classes))
    return known[0] if len(known) == 1 else tuple(sorted({name for classes in known for name in classes}))


def _class_name(case: Case, datalist: Datalist) -> str | int | None:
    """The class by name where it is known: an index means something else in another folder."""
    label = case.class_label
    return datalist.classes[label] if isinstance(label, int) and datalist.classes else label


def _classes(lists: Iterable[list[Case]]) -> tuple[str, ...]:
    cases = [case for chosen in lists for case in chosen]
    return tuple(sorted({str(case.class_label) for case in cases if case.class_label is not None}))


def _map_cases(datalist: Datalist, change: Callable[[Case], Case]) -> Datalist:
    return with_cases(
        datalist, {section: [change(case) for case in datalist.section(section)] for section in SECTIONS}
    )


def _properties(path: Path) -> dict[str, object]:
    """Content of dataset.json, empty if there is none; raises DataError if it is broken."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as err:
        raise DataError(
            f"{path} is broken ({err}); mend it, or move it away to go by the folders alone."
        ) from err
    if not isinstance(content, dict):
        raise DataError(f"{path} holds no JSON object; mend it, or move it away to go by the folders alone.")
    return content


def _compile(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as err:
        raise UsageError(f"The patient pattern {pattern!r} is no regular expression: {err}.") from err


def _visible(folder: Path) -> list[Path]:
    """Entries of a folder, sorted, without hidden ones (``.DS_Store``, ``._copy``)."""
    if not folder.is_dir():
        return []
    return sorted(
        path for path in folder.iterdir() if not path.name.startswith(".") and path.name != "__MACOSX"
    )


def _stem(path: Path) -> str:
    ending = image_ending(path) if path.is_file() else ""
    return path.name[: -len(ending)] if ending else path.name


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
