"""Lets the process keep the memory that a network frees, instead of giving it back after every layer.

On Linux, glibc maps each large block anew and unmaps it when it is freed, so that every activation and gradient
costs page faults again in each iteration.
"""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache

from medimg3d.inference.process_memory import give_back_freed

# malloc.h of glibc
_M_TRIM_THRESHOLD = -1
_M_TOP_PAD = -2
_M_MMAP_THRESHOLD = -3
_M_MMAP_MAX = -4

TOP_PAD_BYTES = 256 * 2**20
SMALL_BLOCK_BYTES = 32 * 2**20  # the most that glibc takes
MAPPED_BLOCKS = 65536  # glibc's own value

_keeps_all = False


def keep_freed_memory() -> bool:
    """Tell glibc to keep freed memory for the next allocation, until :func:`keep_small_blocks`.

    Results do not change. The process does not shrink, but for a fork: what is free then is handed back,
    since the forked processes, those that load for a training, would hold on to it. Its peak grows by up to 256 MiB.

    Returns:
        Whether it was taken up; False on systems without glibc.

    Source: mallopt(3).
    """
    global _keeps_all
    _keeps_all = _set_malloc((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1), (_M_TOP_PAD, TOP_PAD_BYTES))
    if _keeps_all:
        _give_back_before_forks()
    return _keeps_all


def keeps_freed_memory() -> bool:
    """Whether this process keeps all that it frees (:func:`keep_freed_memory`)."""
    return _keeps_all


@cache  # once in a process: a handler of forks cannot be taken back
def _give_back_before_forks() -> None:
    os.register_at_fork(before=give_back_freed)


def keep_small_blocks() -> bool:
    """Tell glibc to keep up to 256 MiB of freed blocks below 32 MiB, and larger ones no longer.

    For predictions of small volumes, whose activations are such blocks; larger ones go back to the system as ever, so
    that the peak of a large volume hardly grows. Holds until :func:`keep_freed_memory`.

    Returns:
        Whether it was taken up; False on systems without glibc.

    Source: mallopt(3).
    """
    global _keeps_all
    _keeps_all = False
    return _set_malloc(
        (_M_MMAP_MAX, MAPPED_BLOCKS),
        (_M_MMAP_THRESHOLD, SMALL_BLOCK_BYTES),
        (_M_TRIM_THRESHOLD, TOP_PAD_BYTES),
    )


def _set_malloc(*settings: tuple[int, int]) -> bool:
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # musl
        return False
    taken = [mallopt(name, value) == 1 for name, value in settings]
    return all(taken)
