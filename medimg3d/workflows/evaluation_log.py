"""The log of every time a test set was looked at: a test set that is asked often enough chooses a model."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

LOG_FILE = Path("docs") / "test_evaluations.jsonl"


@dataclass(frozen=True)
class TestEvaluation:
    """One evaluation on a test section.

    Attributes:
        bundle: Name of the bundle.
        version: Its version, if known.
        weights_sha256: The weights that made the predictions, if known.
        datalist: Name of the list of films; no path.
        section: Section that was scored.
        n: Films scored.
        auc: Area below the ROC curve; None where undefined.
        accuracy: Share of right decisions; None where undefined.
        command: What was called, with file names only.
    """

    __test__ = False  # no test class for pytest

    bundle: str
    version: str | None
    weights_sha256: str | None
    datalist: str
    section: str
    n: int
    auc: float | None
    accuracy: float | None
    command: str


def log_test_evaluation(entry: TestEvaluation, bundle: Path, *, now: datetime | None = None) -> Path:
    """Append one JSON line to the bundle's log, which is committed with it.

    Args:
        entry: What was measured.
        bundle: Folder of the bundle.
        now: Time of the evaluation; the clock's if None.

    Returns:
        The log, ``docs/test_evaluations.jsonl``.

    Raises:
        OSError: The bundle cannot be written to.
    """
    path = bundle / LOG_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    date = (now or datetime.now(timezone.utc)).astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    line = json.dumps({"date": date, **asdict(entry)}, ensure_ascii=False)
    broken = path.is_file() and not path.read_bytes().endswith(b"\n") and path.stat().st_size > 0
    with open(path, "a", encoding="utf-8") as handle:  # one write: lines of two processes do not mix
        handle.write(("\n" if broken else "") + line + "\n")
        handle.flush()
        os.fsync(handle.fileno())
    return path


def earlier_evaluations(bundle: Path, datalist: str) -> list[Mapping[str, object]]:
    """The lines of the bundle's log about a list of films, oldest first; empty without a log."""
    path = bundle / LOG_FILE
    if not path.is_file():
        return []
    entries: list[Mapping[str, object]] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and entry.get("datalist") == datalist:
            entries.append(entry)
    return entries
