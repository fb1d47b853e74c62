"""Keeps converters from printing, and from silencing others: bars, notices and the log's own settings."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout


@contextmanager
def quiet(logger: str, *, level: int = logging.ERROR) -> Iterator[None]:
    """Inside, nothing is printed on standard output, warned of, or logged below a level.

    Args:
        logger: Name of the package's logger.
        level: The lowest level that is still logged.
    """
    log = logging.getLogger(logger)
    before = log.level
    log.setLevel(level)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(before)


@contextmanager
def kept_root_log() -> Iterator[None]:
    """Outside, the root logger is as it was: OpenVINO's converter leaves it silent below errors where it fails."""
    root = logging.getLogger()
    level, filters, handlers = root.level, list(root.filters), list(root.handlers)
    try:
        yield
    finally:
        root.setLevel(level)
        root.filters[:] = filters
        root.handlers[:] = handlers
