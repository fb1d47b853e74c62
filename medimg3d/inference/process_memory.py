"""What this process holds in memory, and the most that a call makes it hold (Linux; elsewhere not known)."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

Result = TypeVar("Result")

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # proc(5)
_earlier_peak = 0


def resident_bytes() -> int | None:
    """Bytes of memory that the process holds now; None where the system does not tell."""
    return _status("VmRSS")


def peak_bytes() -> int | None:
    """Most bytes that the process has held so far, peaks before a :func:`peak_of` among them; None if not known."""
    now = _status("VmHWM")
    return None if now is None else max(_earlier_peak, now)


def peak_of(call: Callable[[], Result]) -> tuple[Result, int | None]:
    """Run something and see how much more memory than before the process held at most meanwhile.

    The peak of the process is set back for it, so that a later ``ru_maxrss`` no longer knows earlier peaks;
    :func:`peak_bytes` does.

    Args:
        call: What to run.

    Returns:
        Its result, and the bytes; None where the system does not tell.

    Source: proc(5), clear_refs and VmHWM.
    """
    global _earlier_peak
    before, highest = resident_bytes(), peak_bytes()
    try:
        _CLEAR.write_text(_RESET_PEAK)
    except OSError:
        return call(), None
    _earlier_peak = max(_earlier_peak, highest or 0)
    result = call()
    peak = _status("VmHWM")
    return result, None if peak is None or before is None else max(0, peak - before)


def give_back_freed() -> None:
    """Hand memory that was freed back to the system now (glibc; elsewhere nothing).

    The C library keeps up to 64 MB of it, and more in pieces, for later.

    Source: malloc_trim(3).
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(ctypes.c_size_t(0))


def _status(name: str) -> int | None:
    try:
        text = _STATUS.read_text()
    except OSError:
        return None
    found: Any = next((line.split() for line in text.splitlines() if line.startswith(f"{name}:")), None)
    return None if found is None else int(found[1]) * 1024
