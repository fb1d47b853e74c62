"""Files that are either whole or absent, whatever interrupts their writer."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PARTIAL = ".partial-"


@contextmanager
def atomic_file(path: Path | str) -> Iterator[Path]:
    """A temporary name beside ``path`` to write to, put in its place when the block ends without an error.

    The data is on disk before the name changes, so that a killed process or a full disk leaves the old file
    as it was. The temporary name keeps the ending (writers choose their format by it).

    Args:
        path: The file to make or replace; its folder is made if need be.

    Yields:
        Path to write to.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{_PARTIAL}{os.getpid()}-{path.name}")
    try:
        yield temporary
        with open(temporary, "rb+") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_partial_files(folder: Path) -> None:
    """Remove what killed processes left of files in a folder; not to be called while another one writes there."""
    for file in folder.glob(f"{_PARTIAL}*"):
        file.unlink(missing_ok=True)


def write_text(path: Path | str, text: str) -> None:
    """Write a UTF-8 text file atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
