"""Which cases a bundle's weights were trained on, so that a test on them does not pass unnoticed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

RECORD_FILE = Path("models") / "training_cases.json"
RUN_FILE = "run.json"


@dataclass(frozen=True)
class TrainingRecord:
    """The files that weights have seen, by the SHA-256 of their bytes.

    Attributes:
        name_by_hash: Hash of an image or a label map → name of the training case.
        bundle: ``name``, ``version``, ``weights_sha256`` of the bundle, as far as known.
        missing: Why there is no record; empty if there is one.
        doubt: Why the record may be that of other weights; empty if there is no doubt.
    """

    name_by_hash: Mapping[str, str] = field(default_factory=dict)
    bundle: Mapping[str, Any] = field(default_factory=dict)
    missing: str = ""
    doubt: str = ""

    def seen(self, hashes: Iterable[str | None]) -> str | None:
        """Name of the training case that one of the hashes belongs to, or None."""
        return next((self.name_by_hash[key] for key in hashes if key and key in self.name_by_hash), None)


def find_training_record(predictions: Path, bundle: Path | None) -> TrainingRecord:
    """The record of the given bundle, else what ``run.json`` beside the predictions says or points to."""
    run = read_json(predictions / RUN_FILE)
    told: dict[str, Any] = dict(run.get("bundle") or {})
    folder = bundle or (Path(told["path"]) if told.get("path") else None)
    record = read_json(folder / RECORD_FILE) if folder else {}
    cases = record.get("cases") or []
    if bundle is None:
        cases = run.get("training_cases") or cases
    about = _about_bundle(bundle, told, record)
    if not cases:
        return TrainingRecord(bundle=about, missing=_why_missing(bundle, run))
    return TrainingRecord(_by_hash(cases), about, doubt=_doubt(told, record))


def input_hashes(predictions: Path) -> dict[str, str]:
    """Case → hash of the image that was predicted on, from ``run.json``; empty without it."""
    cases = read_json(predictions / RUN_FILE).get("cases") or []
    return {
        str(case.get("case")): case["input_sha256"]
        for case in cases
        if isinstance(case, dict) and case.get("input_sha256")
    }


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object, or an empty one if the file is absent, broken or something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _by_hash(cases: Iterable[Any]) -> dict[str, str]:
    return {
        case[key]: str(case.get("name", "unnamed"))
        for case in cases
        if isinstance(case, dict)
        for key in ("image_sha256", "label_sha256")
        if case.get(key)
    }


def _about_bundle(bundle: Path | None, told: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
    """Name, version and weights: of the given bundle from its own files, else as ``run.json`` tells."""
    if bundle is None:
        return {key: told[key] for key in ("name", "version", "weights_sha256") if told.get(key)}
    metadata = read_json(bundle / "configs" / "metadata.json")
    about = {
        "name": bundle.resolve().name,
        "version": metadata.get("version"),
        "weights_sha256": record.get("weights_sha256"),
    }
    return {key: value for key, value in about.items() if value}


def _why_missing(bundle: Path | None, run: Mapping[str, Any]) -> str:
    if bundle is not None:
        return f"the bundle has no {RECORD_FILE.as_posix()}"
    return (
        f"{RUN_FILE} names no training cases"
        if run
        else f"no bundle given and no {RUN_FILE} beside the predictions"
    )


def _doubt(told: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    predicted_by, recorded = told.get("weights_sha256"), record.get("weights_sha256")
    if predicted_by and recorded and predicted_by != recorded:
        return "the predictions were made by other weights than those the bundle has a record of"
    return ""
