"""Converted networks on disk: whole and checked, or absent, and never used for other weights.

An entry is a folder named by the hash of all that the conversion depends on. It is written under another name
and renamed when it is whole and has been held against torch; what was damaged since is made anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medimg3d.atomic import write_text
from medimg3d.inference.backends.model_key import key_digest

CACHE_VARIABLE = "MEDIMG3D_CACHE"
ENTRY = "entry.json"
_ABANDONED_S = 24 * 3600.0

Convert = Callable[[Path], Mapping[str, Any] | None]
"""Writes the files of a converted network into a folder; may return facts to keep with it."""
Check = Callable[[Path], Mapping[str, Any]]
"""Holds the converted network in a folder against torch; raises BackendError to refuse it."""


def default_cache_dir() -> Path:
    """Folder for what can be made again: ``$MEDIMG3D_CACHE``, or ``medimg3d`` in the user's cache folder."""
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        return (
            Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "medimg3d" / "Cache"
        )
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "medimg3d"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "medimg3d"


@dataclass(frozen=True)
class Entry:
    """A converted network on disk.

    Attributes:
        folder: Its files.
        facts: ``key``, ``seconds`` of the conversion, ``agreement`` with torch, ``files`` with their hashes.
    """

    folder: Path
    facts: Mapping[str, Any]

    def note(self, name: str) -> dict[str, Any] | None:
        """What was written down about it later; None if nothing, or it is damaged."""
        return _read_object(self.folder / f"{name}.json")

    def write_note(self, name: str, content: Mapping[str, Any]) -> None:
        """Write something down about it."""
        write_text(self.folder / f"{name}.json", json.dumps(content, indent=2) + "\n")


def converted(
    key: Mapping[str, Any], cache_dir: Path, *, convert: Convert, check: Check | None = None
) -> Entry:
    """The entry of a key; converts if there is none that is whole.

    Args:
        key: All that the conversion depends on, plain values with a ``form``.
        cache_dir: The cache.
        convert: Makes the files.
        check: Its answer is kept as ``agreement``.

    Raises:
        BackendError: As ``convert`` or ``check`` raise it; nothing is left behind.
    """
    entry = stored(key, cache_dir)
    return _make(_folder(key, cache_dir), key, convert, check) if entry is None else entry


def stored(key: Mapping[str, Any], cache_dir: Path) -> Entry | None:
    """The entry of a key if it is there and whole; a damaged one is removed."""
    folder = _folder(key, cache_dir)
    if not folder.is_dir():
        return None
    facts = _read_object(folder / ENTRY)
    if facts is None or facts.get("key") != dict(key) or not _is_whole(folder, facts.get("files")):
        shutil.rmtree(folder, ignore_errors=True)
        return None
    return Entry(folder, facts)


def discard(entry: Entry) -> None:
    """Remove an entry."""
    shutil.rmtree(entry.folder, ignore_errors=True)


def _folder(key: Mapping[str, Any], cache_dir: Path) -> Path:
    return cache_dir / "converted" / f"{key['form']}-{key_digest(key)}"


def _make(folder: Path, key: Mapping[str, Any], convert: Convert, check: Check | None) -> Entry:
    folder.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(folder.parent)
    temporary = Path(tempfile.mkdtemp(prefix=".partial-", dir=folder.parent))
    try:
        started = time.monotonic()
        facts = dict(convert(temporary) or {})
        facts |= {"key": dict(key), "seconds": round(time.monotonic() - started, 2)}
        facts["agreement"] = None if check is None else dict(check(temporary))
        facts["files"] = {path.name: _file_sha256(path) for path in sorted(temporary.iterdir())}
        (temporary / ENTRY).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        try:
            os.rename(temporary, folder)
        except OSError:
            if not folder.is_dir():  # else another process was first: its entry is as good
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Entry(folder, facts)


def _is_whole(folder: Path, files: Any) -> bool:
    if not isinstance(files, dict) or not files:
        return False
    paths = {folder / name: sha256 for name, sha256 in files.items()}
    return all(path.is_file() and _file_sha256(path) == sha256 for path, sha256 in paths.items())


def _file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        while part := handle.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def _read_object(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _remove_abandoned(folder: Path) -> None:
    """What killed conversions left behind a day ago or longer."""
    for path in folder.glob(".partial-*"):
        try:
            if time.time() - path.stat().st_mtime > _ABANDONED_S:
                shutil.rmtree(path, ignore_errors=True)
        except FileNotFoundError:
            continue
