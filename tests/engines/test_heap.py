from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from medimg3d.engines import heap

# Takes and frees 64 MB ten times; the page faults of the last nine are what keeping memory saves.
_FAULTS = """
import resource, sys
import numpy as np
from medimg3d.engines.heap import keep_freed_memory, keep_small_blocks
if sys.argv[1] == "keep":
    assert keep_freed_memory()
if sys.argv[1] == "small":
    assert keep_small_blocks()
count = int(sys.argv[2])
np.ones(count)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(9):
    np.ones(count)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _page_faults(how: str, count: int = 8_000_000) -> int:
    done = subprocess.run(
        [sys.executable, "-c", _FAULTS, how, str(count)], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives memory back")
def test_kept_memory_is_not_faulted_in_again():
    assert _page_faults("keep") * 10 < _page_faults("plain")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives memory back")
def test_small_blocks_are_kept_and_large_ones_are_not():
    assert _page_faults("small", 3_000_000) * 10 < _page_faults("plain", 3_000_000)
    assert _page_faults("small") > 0.9 * _page_faults("plain")


_FORK = """
import os
import numpy as np
from medimg3d.engines.heap import keep_freed_memory
from medimg3d.inference.process_memory import resident_bytes
keep_freed_memory()
blocks = [np.ones(1_000_000) for _ in range(40)]  # 320 MB
kept = blocks[-1]
del blocks
before = resident_bytes()
child = os.fork()
if child == 0:
    os._exit(0 if resident_bytes() < before - 250e6 else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps memory")
def test_a_forked_process_does_not_hold_what_was_freed():
    done = subprocess.run([sys.executable, "-c", _FORK], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0"


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(heap.sys, "platform", "darwin")
    assert not heap.keep_freed_memory()
    assert not heap.keep_small_blocks()
