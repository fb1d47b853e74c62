"""Which list of a datalist a word of a person means: ``train``, ``val_original``, ``Test``."""

from __future__ import annotations

import re
from collections.abc import Mapping

from medimg3d.data.datalist import Section

_PATTERNS: Mapping[Section, re.Pattern[str]] = {
    "training": re.compile(r"^train(ing)?([_-].*)?$", re.IGNORECASE),
    "validation": re.compile(r"^val(id|idation)?([_-].*)?$", re.IGNORECASE),
    "test": re.compile(r"^test(ing)?([_-].*)?$", re.IGNORECASE),
}


def section_named(name: str) -> Section | None:
    """The list that a folder's name or a table's word for a split means; None if it means none."""
    return next((section for section, pattern in _PATTERNS.items() if pattern.match(name)), None)
