"""The name of what a network runs on: timings and checks of one machine say nothing about another."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def machine_name(device: str = "cpu") -> str:
    """The GPU's name, or the processor's with the number of cores this process may use.

    Args:
        device: ``"cpu"``, ``"cuda"`` or ``"cuda:1"``.
    """
    if device.partition(":")[0] == "cuda":
        import torch

        return torch.cuda.get_device_name(device)
    return f"{_processor()}, {_cores()} cores"


def _processor() -> str:
    facts = Path("/proc/cpuinfo")
    if facts.is_file():
        for line in facts.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
