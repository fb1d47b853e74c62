"""The backend that a trial chose, remembered for a machine and a bundle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medimg3d.atomic import write_text
from medimg3d.inference.backends.model_key import key_digest

FORMAT = 1


@dataclass(frozen=True)
class Choice:
    """What a trial chose.

    Attributes:
        name: The fastest backend that agrees with torch.
        seconds: Best time of each that was measured, in seconds a window.
        passed_over: Backend → why it was not measured, or not taken.
        machine: What they ran on, and with how many threads.
        remembered: Whether it comes from an earlier trial.
    """

    name: str
    seconds: Mapping[str, float]
    passed_over: Mapping[str, str]
    machine: str
    remembered: bool = False


def read_choice(facts: Mapping[str, Any], cache_dir: Path) -> Choice | None:
    """The choice remembered for the same facts; None if there is none, or its file is damaged."""
    try:
        content = json.loads(_file(facts, cache_dir).read_text(encoding="utf-8"))
        if content["facts"] != json.loads(json.dumps(facts)):
            return None
        choice = Choice(
            content["name"], dict(content["seconds"]), dict(content["passed_over"]), content["machine"]
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return replace(choice, remembered=True)


def write_choice(choice: Choice, facts: Mapping[str, Any], cache_dir: Path) -> None:
    """Remember a choice for what it depends on (plain values, with ``weights_sha256``)."""
    content = {
        "format": FORMAT,
        "name": choice.name,
        "seconds": dict(choice.seconds),
        "passed_over": dict(choice.passed_over),
        "machine": choice.machine,
        "facts": dict(facts),
    }
    write_text(_file(facts, cache_dir), json.dumps(content, indent=2) + "\n")


def forget_choices(weights_sha256: str, cache_dir: Path) -> None:
    """Remove every choice made for some weights."""
    for path in (cache_dir / "choices").glob(f"{weights_sha256[:16]}-*.json"):
        path.unlink(missing_ok=True)


def _file(facts: Mapping[str, Any], cache_dir: Path) -> Path:
    return cache_dir / "choices" / f"{facts['weights_sha256'][:16]}-{key_digest(facts)}.json"
