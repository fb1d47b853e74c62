"""One decision of a plan: what, why, and how to decide otherwise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Decision:
    """One line of ``plan.md``.

    Attributes:
        name: What was decided, in words.
        value: What came out; a plain value.
        reason: One or two sentences.
        change: Flag or setting that decides otherwise; empty where nothing does.
    """

    name: str
    value: Any
    reason: str
    change: str = ""


def chosen(name: str, value: Any, change: str) -> Decision:
    """A decision that the user took."""
    return Decision(name, value, "As asked for.", change)
