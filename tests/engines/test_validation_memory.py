"""What a process holds around a validation, each time in a process of its own."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps memory")

# Prints MB held: after 320 MB were freed, as the validation begins, with a block larger than any piece, and after
# it was freed; then whether memory is kept again.
_VALIDATION = """
import sys
import numpy as np
from ignite.engine import Engine, Events
from medimg3d.engines.heap import keep_freed_memory, keeps_freed_memory
from medimg3d.engines.validation_memory import ValidationMemory
from medimg3d.inference.process_memory import resident_bytes

if sys.argv[1] == "keep":
    keep_freed_memory()
held = []
evaluator = Engine(lambda engine, batch: (np.ones(50_000_000), held.append(resident_bytes()))[1])
ValidationMemory(evaluator).attach(Engine(lambda engine, batch: None))
evaluator.add_event_handler(Events.STARTED, lambda engine: held.append(resident_bytes()))
evaluator.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: held.append(resident_bytes()))
before = resident_bytes()
blocks = [np.ones(1_000_000) for _ in range(40)]  # 320 MB in pieces
last = blocks[-1]
del blocks
held.append(resident_bytes())
evaluator.run([0])
print(*(round((one - before) / 1e6) for one in held), keeps_freed_memory())
"""


def run(how: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", _VALIDATION, how], capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def test_a_validation_begins_without_what_training_freed_and_hands_large_blocks_back():
    freed, begun, working, worked, kept = run("keep")
    assert int(freed) > 300
    assert int(begun) < 60
    assert 380 < int(working) < 460
    assert int(worked) < 60
    assert kept == "True"


def test_a_process_that_keeps_nothing_is_left_alone():
    assert run("plain")[-1] == "False"
