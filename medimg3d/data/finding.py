"""One defect of a data set: where it is, what was found, what was expected, how to cure it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medimg3d.data.datalist import Section


@dataclass(frozen=True)
class Finding:
    """A defect of one file, or of the data set as a whole.

    Attributes:
        defect: Kind of defect in one word or two (``"grid"``, ``"label values"``); ``docs/datalist.md`` lists
            them.
        case: Name of the case; empty for the data set as a whole.
        section: The list that the case stands in; None for the data set as a whole.
        file: The file to look at; None for the data set as a whole.
        found: What was found.
        expected: What was expected.
        cure: What to do, without a full stop.
        severe: The case cannot be used as it is; else a person should look at it.
    """

    defect: str
    case: str
    section: Section | None
    file: Path | None
    found: str
    expected: str
    cure: str
    severe: bool = True

    @property
    def sentence(self) -> str:
        """Found, expected and cure in one line, without the file."""
        return f"{self.found}; expected {self.expected}. {self.cure}."

    def place(self, base: Path | None = None) -> str:
        """The file, relative to a folder where it lies below it; "data set" without a file."""
        if self.file is None:
            return "data set"
        inside = base is not None and self.file.is_relative_to(base)
        return self.file.relative_to(base).as_posix() if inside and base else str(self.file)

    def line(self, base: Path | None = None) -> str:
        """File, found, expected and cure in one line."""
        return f"{self.place(base)}: {self.sentence}"

    def as_json(self, base: Path | None = None) -> dict[str, Any]:
        """The finding as plain values."""
        return {
            "severe": self.severe,
            "defect": self.defect,
            "case": self.case,
            "section": self.section,
            "file": None if self.file is None else self.place(base),
            "found": self.found,
            "expected": self.expected,
            "cure": self.cure,
        }
