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
from medimg3d.engines.heap import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
np.ones(8_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(9):
    np.ones(8_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _page_faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", _FAULTS, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives memory back")
def test_kept_memory_is_not_faulted_in_again():
    assert _page_faults("keep") * 10 < _page_faults("plain")


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(heap.sys, "platform", "darwin")
    assert not heap.keep_freed_memory()
