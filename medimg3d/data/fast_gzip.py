"""Gzip streams by ISA-L where it is installed, by zlib where not: the same interface, two to ten times faster."""

from __future__ import annotations

import gzip
from typing import IO, Any

GZIP_MARK = b"\x1f\x8b"

_ISAL_LEVEL = 1  # label maps: level 0 is as fast and twice as large, level 3 six times slower and no smaller
_ZLIB_LEVEL = 1  # nibabel's own


def gzip_reader(file: IO[bytes]) -> gzip.GzipFile:
    """The decompressed content of an open file, of one gzip member or several one after another (bgzip)."""
    reader: gzip.GzipFile = _gzip_file()(fileobj=file, mode="rb")
    return reader


def gzip_writer(file: IO[bytes]) -> gzip.GzipFile:
    """A stream that compresses into an open file; no name and no time in it, so same content, same bytes.

    The bytes are those of one machine: ISA-L may compress differently on another kind of processor.
    """
    made = _gzip_file()
    writer: gzip.GzipFile = made(filename="", fileobj=file, mode="wb", compresslevel=_level(), mtime=0)
    return writer


def compress(content: bytes) -> bytes:
    """Content as one gzip member; same content, same bytes on one machine."""
    return bytes(_module().compress(content, _level(), mtime=0))


def decompress(content: bytes) -> bytes:
    """The content of gzip members."""
    return bytes(_module().decompress(content))


def _gzip_file() -> Any:
    module = _module()
    return module.GzipFile if module is gzip else module.IGzipFile


def _level() -> int:
    return _ZLIB_LEVEL if _module() is gzip else _ISAL_LEVEL


def _module() -> Any:
    try:
        from isal import igzip
    except ImportError:
        return gzip
    return igzip
