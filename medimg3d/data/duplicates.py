"""Images that occur more than once: the same file, or the same picture under other names or encodings."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from medimg3d.data.datalist import Section


@dataclass(frozen=True)
class Occurrence:
    """One image of one case.

    Attributes:
        case: Name of the case.
        section: The list it stands in.
        class_name: Its class; None where it has none.
        sha256: Hash of the file's bytes.
        pixel_hash: Hash of the decoded values.
    """

    case: str
    section: Section
    class_name: str | None
    sha256: str
    pixel_hash: str


@dataclass(frozen=True)
class DuplicateGroup:
    """Cases that share an image.

    Args:
        occurrences: Two or more, of as many cases.

    Raises:
        ValueError: Fewer than two.
    """

    occurrences: tuple[Occurrence, ...]

    def __post_init__(self) -> None:
        if len(self.occurrences) < 2:
            raise ValueError(
                f"A group of duplicates has {len(self.occurrences)} image; expected two or more."
            )

    @property
    def same_bytes(self) -> bool:
        """Whether the files are the same to the byte; else only what they show is."""
        return len({one.sha256 for one in self.occurrences}) == 1

    @property
    def sections(self) -> tuple[Section, ...]:
        """The lists in which it occurs, each once."""
        return tuple(dict.fromkeys(one.section for one in self.occurrences))

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes that its cases have, each once."""
        return tuple(dict.fromkeys(one.class_name for one in self.occurrences if one.class_name is not None))

    @property
    def crosses_sections(self) -> bool:
        """Whether it stands in more than one list: a test on it is no test."""
        return len(self.sections) > 1

    @property
    def contradicts_itself(self) -> bool:
        """Whether the same picture has several classes: at least one of them is wrong."""
        return len(self.classes) > 1


def find_duplicates(occurrences: Iterable[Occurrence]) -> list[DuplicateGroup]:
    """Group the images that show the same, the first come first; two images of one case are no duplicates.

    Args:
        occurrences: Every image of every case.

    Returns:
        Groups of two or more cases.
    """
    by_pixels: dict[str, dict[str, Occurrence]] = {}
    for one in occurrences:
        by_pixels.setdefault(one.pixel_hash, {}).setdefault(one.case, one)
    return [DuplicateGroup(tuple(group.values())) for group in by_pixels.values() if len(group) > 1]
