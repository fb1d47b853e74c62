# Copied from medimg3d/data/folds.py; do not edit here.
# Source sha256: ffc9f29f68b2beb7ca6ce416b9e7ce8059a57c425dc445d42d768cde3930d9de
"""Deterministic folds: by patient where the patient is known, else by case.

Pure Python, no dependency: bundles carry a copy of this file so that stock MONAI splits as medimg3d does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def case_name(case: Mapping[str, Any]) -> str:
    """Name of a case: its ``id``, else its (first) image's file name without ``.nii.gz`` and the like."""
    if case.get("id"):
        return str(case["id"])
    image = case.get("image") or next(iter(case.get("images", {}).values()))
    if isinstance(image, (list, tuple)):
        image = image[0]
    name = Path(str(image)).name
    for ending in (".nii.gz", ".mha.gz", ".nrrd.gz"):
        if name.lower().endswith(ending):
            return name[: -len(ending)]
    return Path(name).stem


def split_unit(cases: Sequence[Mapping[str, Any]]) -> str:
    """``"patient"`` if every case names its patient, else ``"case"``."""
    return "patient" if cases and all(case.get("patient") for case in cases) else "case"


def assign_folds(cases: Sequence[Mapping[str, Any]], *, num_folds: int = 5, seed: int = 0) -> list[int]:
    """The fold of each case; cases of one patient share a fold.

    A case that carries its own ``fold`` keeps it. Other patients (or cases) are ordered by the SHA-256 of
    seed and name and dealt out in turn, so that the folds depend on the names and the seed alone: not on the
    order of the list, the operating system or a library's random generator.

    Args:
        cases: Decathlon-like dictionaries (``image``, optionally ``patient``, ``fold``, ``id``).
        num_folds: Number of folds, at least 2.
        seed: Another seed gives another split.

    Returns:
        Fold of each case, 0 to ``num_folds - 1``, in the order of ``cases``.

    Raises:
        ValueError: Fewer than two folds, or fewer patients (cases) than folds.
    """
    if num_folds < 2:
        raise ValueError(f"num_folds must be at least 2, got {num_folds}.")
    groups = [str(case.get("patient") or case_name(case)) for case in cases]
    fixed = {
        group: int(case["fold"])
        for group, case in zip(groups, cases, strict=True)
        if case.get("fold") is not None
    }
    outside = sorted({fold for fold in fixed.values() if not 0 <= fold < num_folds})
    if outside:
        raise ValueError(f"Cases carry fold {outside[0]}; expected 0 to {num_folds - 1}. Mend the datalist.")
    free = sorted(
        set(groups) - set(fixed), key=lambda group: hashlib.sha256(f"{seed}:{group}".encode()).hexdigest()
    )
    if free and len(free) + len(set(fixed)) < num_folds:
        raise ValueError(
            f"Found {len(set(groups))} patients or cases; {num_folds} folds need at least that many."
        )
    dealt = {group: position % num_folds for position, group in enumerate(free)} | fixed
    return [dealt[group] for group in groups]


def select_fold(
    cases: Sequence[Mapping[str, Any]],
    *,
    fold: int,
    part: str,
    num_folds: int = 5,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """The training or validation part of one fold.

    Args:
        cases: As for :func:`assign_folds`.
        fold: Fold that is held out for validation; -1 trains on everything and validates on fold 0.
        part: ``"training"`` or ``"validation"``.
        num_folds: Number of folds.
        seed: Seed of the split.

    Returns:
        Copies of the chosen cases, in their order; gaps in their ``values`` are NaN, or empty text.

    Raises:
        ValueError: An unknown part, or a fold that does not exist.
    """
    if part not in ("training", "validation"):
        raise ValueError(f'part must be "training" or "validation", got {part!r}.')
    if not -1 <= fold < num_folds:
        raise ValueError(f"fold must be -1 (all cases) or 0 to {num_folds - 1}, got {fold}.")
    folds = assign_folds(cases, num_folds=num_folds, seed=seed)
    if part == "validation":
        chosen = [case for case, own in zip(cases, folds, strict=True) if own == max(fold, 0)]
    else:
        chosen = [case for case, own in zip(cases, folds, strict=True) if own != fold]
    return _without_gaps(chosen)


def select_part(
    cases: Sequence[Mapping[str, Any]], *, section: str, fold: int, num_folds: int = 5, seed: int = 0
) -> list[dict[str, Any]]:
    """The cases to score: of the training list those that the fold held out, of any other list all.

    Args:
        cases: The list of ``section``.
        section: ``"training"``, ``"validation"`` or ``"test"``.
        fold: Held-out fold, as for :func:`select_fold`.
        num_folds: Number of folds.
        seed: Seed of the split.

    Returns:
        Copies of the chosen cases, in their order; gaps in their ``values`` are NaN, or empty text.
    """
    if section == "training":
        return select_fold(cases, fold=fold, part="validation", num_folds=num_folds, seed=seed)
    return _without_gaps(cases)


def _without_gaps(cases: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Copies whose tables can be put into batches: None becomes NaN in a column of numbers, else empty text."""
    columns: dict[str, Any] = {}
    for case in cases:
        for name, value in (case.get("values") or {}).items():
            if isinstance(value, (int, float)):
                columns[name] = float("nan")
            else:
                columns.setdefault(name, "")
    filled = []
    for case in cases:
        copy = dict(case)
        if copy.get("values"):
            copy["values"] = {
                name: columns[name] if value is None else value for name, value in copy["values"].items()
            }
        filled.append(copy)
    return filled
