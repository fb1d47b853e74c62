"""Keeps converters from printing: progress bars, notices and warnings of other packages."""

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
