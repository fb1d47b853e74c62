"""Puts the weights of a trained copy into the bundle that is to be shared."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from medimg3d.atomic import atomic_file, write_text
from medimg3d.bundle.folder import TRAINING_CASES, WEIGHTS, read_json
from medimg3d.data.content_hash import content_sha256
from medimg3d.errors import BundleError
from medimg3d.workflows.train import SETTINGS

RECORDS = (SETTINGS, Path("training") / "history.csv", Path("training") / "history.png")
DECISION_FILES = (
    Path("models") / "decision.json",
    Path("models") / "validation_scores.csv",
    Path("docs") / "validation_confusion.png",
)
LARGEST_MB = 25.0


def install_weights(trained: Path, bundle: Path, *, half: bool = False) -> None:
    """Copy weights, the record of their cases, a classifier's decision, history and settings into a bundle.

    Args:
        trained: Folder made by :func:`medimg3d.workflows.train.train`.
        bundle: The bundle that is to carry the weights.
        half: Store the weights with 16 bits, half the size; a network loads them as its own 32.

    Raises:
        BundleError: The copy has no weights, or they are larger than 25 MB, which model zoos refuse.
    """
    if not (trained / WEIGHTS).is_file():
        raise BundleError(f"{trained} has no {WEIGHTS}; expected a finished training.")
    (bundle / "models").mkdir(exist_ok=True)
    _copy_weights(trained / WEIGHTS, bundle / WEIGHTS, half=half)
    digest = content_sha256(bundle / WEIGHTS)
    shutil.copy2(trained / TRAINING_CASES, bundle / TRAINING_CASES)
    _restamp(bundle / TRAINING_CASES, digest)
    for name in DECISION_FILES:
        if (trained / name).is_file():
            shutil.copy2(trained / name, bundle / name)
    if (bundle / DECISION_FILES[0]).is_file():
        _restamp(bundle / DECISION_FILES[0], digest)
    for name in RECORDS:
        shutil.copy2(trained / name, bundle / "docs" / name.name)


def _copy_weights(source: Path, target: Path, *, half: bool) -> None:
    with atomic_file(target) as temporary:
        if half:
            _save_half(source, temporary)
        else:
            shutil.copyfile(source, temporary)
        size_mb = temporary.stat().st_size / 1e6
        if size_mb > LARGEST_MB:
            hint = "use a narrower network" if half else "store them with half=True"
            raise BundleError(f"The weights have {size_mb:.1f} MB; expected up to {LARGEST_MB:g} MB: {hint}.")


def _save_half(source: Path, target: Path) -> None:
    import torch

    state = torch.load(source, map_location="cpu", weights_only=True)
    state = state.get("model", state)
    small = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    torch.save({"model": small}, target)


def _restamp(path: Path, digest: str) -> None:
    """Say of which weights a record is; those with 16 bits have another hash than those with 32."""
    record = read_json(path)
    record["weights_sha256"] = digest
    write_text(path, json.dumps(record, indent=1) + "\n")
