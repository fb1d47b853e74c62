"""What the folder of a cross-validation was begun with, and whether what lies in it may be gone on with."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medimg3d.bundle.finder import FINDER_CONFIG, has_finder
from medimg3d.bundle.folder import TRAINING_CASES, BundleFolder, read_json, value_at
from medimg3d.bundle.start_weights import find_start_weights
from medimg3d.data.content_hash import content_sha256
from medimg3d.data.folds import case_name, select_fold
from medimg3d.data.json_file import write_json
from medimg3d.errors import BundleError, UsageError
from medimg3d.workflows.train import SETTINGS
from medimg3d.workflows.training_copy import read_training_list, refuse_other_values

STATE = "cross_validation.json"
SUMMARY = Path("held_out") / "summary.json"
LABEL_HASHES = Path("held_out") / "labels_sha256.json"
_USUAL_PRECISION = "auto"
_WITHOUT_EFFECT = ("progress", "num_workers", "cache_dir", "tracking", "max_minutes")
_BY_MINUTES = "by_minutes"
_MAX_EPOCHS = "train#trainer#max_epochs"


def begun_with(bundle: Path, list_file: Path, training: Mapping[str, Any]) -> dict[str, Any]:
    """What the folds depend on; two runs into one folder must agree."""
    source = BundleFolder(bundle)
    chosen = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in training.items()
        if value not in (None, False, {}) and name not in _WITHOUT_EFFECT
    }
    if chosen.get("precision") == _USUAL_PRECISION:  # `train --fold all` names it, `cross-validate` does not
        del chosen["precision"]
    recipes = ("train", "inference", *((FINDER_CONFIG,) if has_finder(source) else ()))
    overlay, start = training.get("overlay"), training.get("start_from")
    by_content = {
        **({"overlay_sha256": content_sha256(source.config(overlay))} if overlay else {}),
        **({"start_sha256": find_start_weights(Path(start)).sha256} if start else {}),
    }
    return {
        "format": 1,
        "bundle": source.name,
        "configs_sha256": {name: content_sha256(source.config(name)) for name in recipes},
        "datalist_sha256": content_sha256(list_file),
        "training": chosen,
        **by_content,
    }


def begin_folder(out: Path, settings: dict[str, Any], *, by_minutes: bool) -> None:
    """Write what a folder is begun with, unless it is begun; to be called when nothing is refused any more."""
    if not (out / STATE).is_file():
        write_json(settings | ({_BY_MINUTES: True} if by_minutes else {}), out / STATE)


def refuse_other_beginning(out: Path, settings: Mapping[str, Any]) -> None:
    """Refuse to go on in a folder that was begun with something else.

    Args:
        out: Folder of the cross-validation.
        settings: Of :func:`begun_with`.

    Raises:
        UsageError: It was.
    """
    begun = _begun(out)
    if not begun:
        return
    for name in ("overlay_sha256", "start_sha256"):  # not of an earlier version
        begun.setdefault(name, settings.get(name))
    if begun.get("training", {}).get("precision") == _USUAL_PRECISION:  # of an earlier version
        del begun["training"]["precision"]
    for name, value in settings.items():
        if begun.get(name) != json.loads(json.dumps(value)):
            raise UsageError(
                f"{out} was begun with another {name} ({begun.get(name)}, now {value}); expected the same to go on. "
                "Choose another --out."
            )


def with_epochs_of(out: Path, folds: Sequence[int], training: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a training: where a time was given, the epochs of the fold that was begun first hold for all."""
    options = dict(training)
    begun = [file for fold in folds if (file := out / f"fold_{fold}" / SETTINGS).is_file()]
    if begun and _is_by_minutes(out, training):
        options |= {"epochs": int(read_json(begun[0])["epochs"]), "max_minutes": None}
    return options


def _begun(out: Path) -> dict[str, Any]:
    path = out / STATE
    return dict(read_json(path)) if path.is_file() else {}


def _is_by_minutes(out: Path, training: Mapping[str, Any]) -> bool:
    return training.get("max_minutes") is not None or bool(_begun(out).get(_BY_MINUTES))


def is_trained(folder: Path) -> bool:
    """Whether the training of a fold is whole."""
    return (folder / "docs" / "README.md").is_file()  # written last


def refuse_other_training(
    source: BundleFolder, folder: Path, list_file: Path, fold: int, training: Mapping[str, Any]
) -> None:
    """A fold that is trained may be of another command: fold, length, seed, values and cases must be those asked for.

    Raises:
        UsageError: They are not.
    """
    variant = read_json(source.config(training["overlay"])) if training.get("overlay") else {}
    values = variant | dict(training.get("overrides") or {})
    copy = BundleFolder(folder)
    epochs = training.get("epochs")
    if epochs is None and not _is_by_minutes(folder.parent, training):
        epochs = values.get(_MAX_EPOCHS, value_at(read_json(source.config("train")), _MAX_EPOCHS))
    asked: dict[str, Any] = {"fold": fold, "epochs": epochs, "seed": training.get("seed")}
    begun = read_json(folder / SETTINGS) if (folder / SETTINGS).is_file() else {}
    for name, value in asked.items():
        if value is not None and begun.get(name, value) != value:
            raise UsageError(
                f"{folder} was trained with {name} {begun[name]}, not {value}; expected the same in all folds. Choose "
                "another --out, or delete that folder."
            )
    try:
        refuse_other_values(copy, {name: value for name, value in values.items() if name != _MAX_EPOCHS})
    except BundleError as err:
        raise UsageError(f"{folder}: {err}") from err
    record = folder / TRAINING_CASES
    known = (
        {case["name"] for case in read_json(record)["cases"] if "from" not in case}
        if record.is_file()
        else None
    )
    config = read_json(copy.config("train"))
    cases = read_training_list(list_file, of_classes=False, class_names=None).cases
    split = {"num_folds": config["num_folds"], "seed": config["fold_seed"]}
    expected = {case_name(case) for case in select_fold(cases, fold=fold, part="training", **split)}
    if known is not None and known != expected:
        other = sorted(known ^ expected)
        raise UsageError(
            f"{folder} was trained on other cases than fold {fold} of {list_file.name} has now ({len(other)} differ, "
            f"the first: {other[0]}); expected the same. Choose another --out, or delete that folder."
        )


def is_scored(folder: Path) -> bool:
    """Whether the held-out cases are scored, by the label maps that lie there now."""
    if not (folder / SUMMARY).is_file():
        return False
    scored = folder / LABEL_HASHES
    return not scored.is_file() or read_json(scored) == label_hashes(folder)


def label_hashes(folder: Path) -> dict[str, str]:
    """Label map → SHA-256, of the held-out cases; one that is gone has none."""
    cases = read_json(folder / "held_out" / "datalist.json")["training"]
    files = [Path(case["label"]) for case in cases]
    return {str(file): content_sha256(file) if file.is_file() else "" for file in files}
