"""Keeps the stack on which a thread handles its signals, where OpenVINO would leave one behind that is gone.

On processors with matrix units, each ``openvino.Core`` gives the thread that first compiles with it a stack of its own
for signals, and puts the earlier one back when it ends; unless a later core has put its own in its place, which then
restores that of the ended one. The next signal, the end of a child process or Ctrl-C, would kill the process.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class _Stack(ctypes.Structure):
    """``stack_t`` of signal.h."""

    _fields_ = (("ss_sp", ctypes.c_void_p), ("ss_flags", ctypes.c_int), ("ss_size", ctypes.c_size_t))


@contextmanager
def kept_signal_stack() -> Iterator[None]:
    """After the block, this thread handles its signals on the stack that it had before (Linux; elsewhere nothing).

    Cores that end later leave it as it is.

    Source: sigaltstack(2).
    """
    sigaltstack = getattr(ctypes.CDLL(None), "sigaltstack", None) if sys.platform == "linux" else None
    if sigaltstack is None:
        yield
        return
    before = _Stack()
    sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        sigaltstack(ctypes.byref(before), None)
