"""Writes the folds of the chosen configurations as one bundle, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from medimg3d.atomic import atomic_file, write_text
from medimg3d.bundle.carried_code import carried_text
from medimg3d.bundle.ensemble_config import ensemble_fast, ensemble_inference
from medimg3d.bundle.finder import CHECKPOINT_KEY, FINDER_WEIGHTS, has_finder
from medimg3d.bundle.folder import (
    TRAINING_CASES,
    WEIGHTS,
    BundleFolder,
    copy_bundle,
    format_json,
    read_json,
)
from medimg3d.bundle.label_rules import LabelRule
from medimg3d.data.content_hash import content_sha256
from medimg3d.data.json_file import write_json
from medimg3d.workflows.cross_validated import CrossValidated

MEMBERS = Path("models") / "ensemble.json"
MOST_BYTES = 25_000_000
"""Most that a file of a shared bundle should have (MONAI's model zoo)."""


@dataclass(frozen=True)
class Member:
    """One set of weights of an ensemble.

    Attributes:
        configuration: Name of its configuration.
        fold: The fold that it held out.
        file: Name of its file below ``models/``.
        source: The file it comes from.
    """

    configuration: str
    fold: int
    file: str
    source: Path


def export_ensemble(
    parts: Sequence[CrossValidated],
    rules: Sequence[LabelRule],
    record: Mapping[str, Any],
    out: Path,
    *,
    work: Path,
) -> Path:
    """Write a bundle whose prediction is the mean of all members, cleaned by the rules.

    Args:
        parts: The chosen configurations.
        rules: Rules in order.
        record: What else ``models/ensemble.json`` says of the choice.
        out: Folder of the bundle; it becomes one when its ``configs`` are put in place, which is done last.
        work: Folder of one's own, on the same disk.

    Returns:
        ``out``.

    Raises:
        BundleError: A configuration has no argmax.
    """
    draft = work / "bundle"
    shutil.rmtree(draft, ignore_errors=True)
    bundle = copy_bundle(parts[0].first, draft)
    for other in parts[1:]:
        _copy_code(other.first.root, draft)
    package = _package(draft, out)
    members = _members(parts)
    sha256 = {
        member.file: _write_weights(member.source, draft / "models" / member.file) for member in members
    }
    finders = _write_finders(parts, draft)
    _write_configs(bundle, parts, members, sha256, rules, package, out.name, finders)
    for name in (
        "ensemble_inferer.py",
        *(["small_components.py"] if any(rule.needs_own for rule in rules) else []),
    ):
        write_text(draft / package / name, carried_text(name))
    if not (draft / package / "__init__.py").is_file():
        note = '"""Code of medimg3d that this bundle carries: it runs without medimg3d installed."""\n'
        write_text(draft / package / "__init__.py", note)
    _write_training_cases(parts, draft)
    content = {
        "format": 1,
        "members": [
            {
                "file": one.file,
                "configuration": one.configuration,
                "fold": one.fold,
                "sha256": sha256[one.file],
            }
            for one in members
        ],
        "postprocessing": [rule.as_json() for rule in rules],
        **record,
    }
    write_json(content, draft / MEMBERS)
    _put_in_place(draft, out)
    return out


def _members(parts: Sequence[CrossValidated]) -> list[Member]:
    members: list[Member] = []
    for number, part in enumerate(parts):
        for fold in part.folds:
            file = f"fold_{fold}.pt" if number == 0 else f"{part.name}_fold_{fold}.pt"
            name = WEIGHTS.name if not members else file
            members.append(Member(part.name, fold, name, part.bundle(fold).root / WEIGHTS))
    return members


def _write_weights(source: Path, target: Path) -> str:
    """Copy weights, in half precision where they are too large to share and half of them is not; their SHA-256."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.stat().st_size < MOST_BYTES:
        shutil.copy2(source, target)
    else:
        import torch

        state = torch.load(source, map_location="cpu", weights_only=True)
        state = state.get("model", state)
        halved = {
            name: value.half() if torch.is_tensor(value) and value.is_floating_point() else value
            for name, value in state.items()
        }
        with atomic_file(target) as temporary:
            torch.save({"model": halved}, temporary)
        if target.stat().st_size >= MOST_BYTES:
            shutil.copy2(source, target)
    return hashlib.sha256(target.read_bytes()).hexdigest()


def _write_finders(parts: Sequence[CrossValidated], draft: Path) -> list[str]:
    """Copy the region finders of all folds, which are averaged, too; their files, none without finders."""
    if not has_finder(parts[0].first):
        return []
    names: list[str] = []
    for number, part in enumerate(parts):
        for fold in part.folds:
            file = f"finder_fold_{fold}.pt" if number == 0 else f"finder_{part.name}_fold_{fold}.pt"
            names.append(file if names else FINDER_WEIGHTS.name)
            _write_weights(part.bundle(fold).root / FINDER_WEIGHTS, draft / "models" / names[-1])
    return names


def _write_configs(
    bundle: BundleFolder,
    parts: Sequence[CrossValidated],
    members: Sequence[Member],
    sha256: Mapping[str, str],
    rules: Sequence[LabelRule],
    package: str,
    name: str,
    finders: Sequence[str],
) -> None:
    plain = [read_json(part.first.config("inference")) for part in parts]
    files = [[one.file for one in members if one.configuration == part.name] for part in parts]
    if all(one == plain[0] for one in plain):  # they differ in their weights alone
        plain, files = plain[:1], [[one.file for one in members]]
    hashes = [[sha256[file] for file in group] for group in files]
    combined = len(parts) > 1
    config = ensemble_inference(plain, files, hashes, rules, package=package, combined=combined)
    if finders:
        config[CHECKPOINT_KEY] = [f"$os.path.join(@bundle_root, 'models', '{file}')" for file in finders]
    write_text(bundle.root / "configs" / "inference.json", format_json(config))
    overlay = bundle.root / "configs" / "inference_fast.json"
    if overlay.is_file():
        fast = (
            ensemble_fast(plain[0], read_json(overlay), files[0], rules, package=package, combined=combined)
            if len(plain) == 1
            else None
        )
        if fast is None:
            overlay.unlink()
        else:
            write_text(overlay, format_json(fast))
    write_text(
        bundle.root / "configs" / "metadata.json", format_json(_metadata(bundle, parts, members, rules, name))
    )


def _metadata(
    bundle: BundleFolder,
    parts: Sequence[CrossValidated],
    members: Sequence[Member],
    rules: Sequence[LabelRule],
    name: str,
) -> dict[str, Any]:
    metadata: dict[str, Any] = json.loads(json.dumps(bundle.metadata))
    what = f"Mean of {len(members)} networks ({', '.join(part.name for part in parts)})"
    metadata["name"] = f"{metadata.get('name', name)}, ensemble of {len(members)}"
    metadata["version"] = "0.1.0"
    metadata["changelog"] = {"0.1.0": f"{what}, made by medimg3d ensemble"}
    packages = dict(metadata.get("required_packages_version") or {})
    if any(rule.needs_skimage for rule in rules):
        packages["scikit-image"] = version("scikit-image")
    if rules:
        packages["scipy"] = version("scipy")
    if packages:
        metadata["required_packages_version"] = packages
    return metadata


def _package(root: Path, out: Path) -> str:
    """The package that the bundle carries, or a name for one, which no other bundle's has."""
    found = sorted(path.parent.name for path in root.glob("medimg3d_*/__init__.py"))
    return found[0] if found else f"medimg3d_{re.sub(r'[^0-9a-zA-Z]+', '_', out.name)}"


def _copy_code(source: Path, target: Path) -> None:
    for file in source.glob("*/__init__.py"):
        if file.parent.name.startswith("medimg3d_"):
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(file.parent, target / file.parent.name, dirs_exist_ok=True, ignore=ignore)


def _write_training_cases(parts: Sequence[CrossValidated], draft: Path) -> None:
    """Every case that a member has seen: for the ensemble none of them is a test case."""
    cases: dict[str, dict[str, Any]] = {}
    split = "case"
    for part in parts:
        for fold in part.folds:
            path = part.bundle(fold).root / TRAINING_CASES
            if path.is_file():
                record = read_json(path)
                split = record.get("split_by", split)
                cases |= {json.dumps(case, sort_keys=True): case for case in record.get("cases") or []}
    content = {
        "format": 1,
        "split_by": split,
        "cases": sorted(cases.values(), key=lambda case: str(case.get("name"))),
        "weights_sha256": content_sha256(draft / WEIGHTS),
    }
    write_json(content, draft / TRAINING_CASES)


def _put_in_place(draft: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    entries = sorted(draft.iterdir(), key=lambda path: path.name == "configs")  # it makes the folder a bundle
    for entry in entries:
        target = out / entry.name
        if target.is_dir():
            shutil.rmtree(target)
        os.replace(entry, target)
