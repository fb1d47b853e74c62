"""OpenVINO and NNCF report their use to a server (Google Analytics) unless told not to; here they do not."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

_REPORTER = "openvino_telemetry"


@contextmanager
def without_telemetry() -> Iterator[None]:
    """Load and use OpenVINO and NNCF as if their reporting package were not installed.

    Both then take their own path for its absence. Where something else in the process has loaded the package
    before, its user's setting stands (``opt_in_out --opt_out`` turns it off).
    """
    if _REPORTER in sys.modules:
        yield
        return
    sys.modules[_REPORTER] = None  # type: ignore[assignment]  # Python's own sign for: cannot be imported
    try:
        yield
    finally:
        sys.modules.pop(_REPORTER, None)
