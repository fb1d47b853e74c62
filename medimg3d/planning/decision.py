"""One decision of a plan: what, why, and how to decide otherwise."""

from __future__ import annotations

from dataclasses import dataclass, replace
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


def asked_for(value: Any, rule: Decision, *, words: str | None = None) -> Decision:
    """A decision that the user took, with what the rule says; where both agree, the rule's.

    Args:
        value: What was asked for.
        rule: The decision without the user.
        words: The rule's value in words; as Python writes it if None.
    """
    if value == rule.value:
        return rule
    reason = f"As asked for; by the rule {rule.value if words is None else words}: {rule.reason}"
    return replace(rule, value=value, reason=reason)


def times(sizes: Any) -> str:
    """``64 x 64 x 1``."""
    return " x ".join(f"{size:g}" for size in sizes)
