"""Signals after OpenVINO: each of these runs in a process of its own, which a wrong stack would kill."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only there a stack is set up")

_BACKENDS = """
import faulthandler, gc, os, signal, sys
from pathlib import Path
import torch
from medimg3d.inference.backends.backend import WindowBatch
from medimg3d.inference.backends.openvino_backend import convert_to_openvino, openvino_backend

faulthandler.enable()
handled = []
signal.signal(signal.SIGUSR1, lambda *_: handled.append(1))
windows = WindowBatch((8, 8, 8))
folder = Path(sys.argv[1])
convert_to_openvino(torch.nn.Conv3d(1, 2, 3, padding=1), windows, folder)
kept = [openvino_backend("openvino-bf16", folder, windows) for _ in range(3)]
for backend in kept:
    backend(torch.zeros(1, 1, 8, 8, 8))
while kept:
    del backend
    backend = kept.pop(0)  # the first to begin is the first to end
    gc.collect()
del backend
gc.collect()
os.kill(os.getpid(), signal.SIGUSR1)
print("handled", len(handled))
"""

_OTHER_STACK = """
import ctypes, mmap
from medimg3d.inference.backends.signal_stack import _Stack, kept_signal_stack

sigaltstack = ctypes.CDLL(None).sigaltstack

def now():
    found = _Stack()
    sigaltstack(None, ctypes.byref(found))
    return found.ss_sp, found.ss_flags, found.ss_size

def use(memory):
    new = _Stack(ctypes.addressof(memory), 0, ctypes.sizeof(memory))
    assert sigaltstack(ctypes.byref(new), None) == 0

before = now()
with kept_signal_stack():
    use(first := ctypes.create_string_buffer(1 << 18))
    assert now() != before
assert now() == before
use(first)
before = now()
try:
    with kept_signal_stack():
        use(second := ctypes.create_string_buffer(1 << 18))
        raise KeyError
except KeyError:
    assert now() == before
print("handled 1")
"""


_needs_openvino = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="needs openvino")


@pytest.mark.parametrize(
    "code",
    [pytest.param(_BACKENDS, marks=_needs_openvino, id="backends"), pytest.param(_OTHER_STACK, id="another")],
)
def test_a_signal_is_handled_after_other_stacks_came_and_went(code, tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip().endswith("handled 1")
