"""What this process holds in memory, and the most that a call makes it hold (Linux; elsewhere not known)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

Result = TypeVar("Result")

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # proc(5)


def resident_bytes() -> int | None:
    """Bytes of memory that the process holds now; None where the system does not tell."""
    return _status("VmRSS")


def peak_of(call: Callable[[], Result]) -> tuple[Result, int | None]:
    """Run something and see how much more memory than before the process held at most meanwhile.

    The peak of the process is set back for it, so that a later ``ru_maxrss`` no longer knows earlier peaks.

    Args:
        call: What to run.

    Returns:
        Its result, and the bytes; None where the system does not tell.

    Source: proc(5), clear_refs and VmHWM.
    """
    before = resident_bytes()
    try:
        _CLEAR.write_text(_RESET_PEAK)
    except OSError:
        return call(), None
    result = call()
    peak = _status("VmHWM")
    return result, None if peak is None or before is None else max(0, peak - before)


def _status(name: str) -> int | None:
    try:
        text = _STATUS.read_text()
    except OSError:
        return None
    found: Any = next((line.split() for line in text.splitlines() if line.startswith(f"{name}:")), None)
    return None if found is None else int(found[1]) * 1024
