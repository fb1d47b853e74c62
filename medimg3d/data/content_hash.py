"""SHA-256 of a file's bytes, or of a folder's files, remembered while the file does not change."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path


def content_sha256(path: Path | str) -> str:
    """Hash of a file's bytes; of a folder, the hash of its files' names and hashes.

    Args:
        path: An existing file or folder (a DICOM series).

    Returns:
        64 hexadecimal digits.

    Raises:
        FileNotFoundError: There is no such path.
    """
    path = Path(path)
    if path.is_dir():
        parts = [
            f"{p.relative_to(path).as_posix()} {content_sha256(p)}"
            for p in sorted(path.rglob("*"))
            if p.is_file()
        ]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()
    stat = path.stat()
    return _file_sha256(str(path.resolve()), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=100_000)
def _file_sha256(path: str, size: int, modified_ns: int) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
