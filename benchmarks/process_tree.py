"""A command and everything that it starts: its wall time, and the most memory that all of it held together (Linux)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread

PROC = Path("/proc")
NOTE_EVERY_S = 10.0


@dataclass(frozen=True)
class Watched:
    """A command that has ended.

    Attributes:
        seconds: Wall time, that of earlier, interrupted runs included.
        peak_memory_gb: The larger of two figures, in GB (10⁹ bytes): the largest sum of the proportional set sizes of
            the tree (a page that several processes share counts once) that was seen at a sample, and the largest
            peak of one of its processes, which the system keeps without gaps.
        was_interrupted: Whether an earlier run of it was.
    """

    seconds: float
    peak_memory_gb: float
    was_interrupted: bool = False


def run_watched(
    command: Sequence[object],
    log: Path,
    *,
    environment: Mapping[str, str] | None = None,
    every_s: float = 0.25,
    note: Path | None = None,
) -> Watched:
    """Run a command to its end and watch its processes.

    Args:
        command: What to run; its output is appended to ``log``.
        log: File for standard output and standard error.
        environment: Variables to set beside the process's own.
        every_s: Seconds between two samples of the memory. A sample costs some milliseconds.
        note: File that keeps time and memory while it runs, so that a run which is interrupted and begun again adds
            to them. Removed at the end.

    Raises:
        SystemExit: The command failed; names the log.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    before = json.loads(note.read_text()) if note is not None and note.is_file() else {}
    with log.open("a", encoding="utf-8") as out:
        begin = time.perf_counter()
        process = subprocess.Popen(
            [str(part) for part in command],
            stdout=out,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
        watch = _Watch(process.pid, every_s, before, note)
        watch.start()
        try:
            code = process.wait()
        finally:
            seconds = time.perf_counter() - begin
            if process.poll() is None:  # stopped by the user: nothing stays behind
                os.killpg(process.pid, signal.SIGTERM)
                process.wait()
            watch.stop()
    if code:
        raise SystemExit(f"exit code {code} of {Path(str(command[0])).name}; its output is in {log}")
    if note is not None:
        note.unlink(missing_ok=True)
    return Watched(before.get("seconds", 0.0) + seconds, watch.peak_bytes / 1e9, bool(before))


class _Watch(Thread):
    """Samples the memory of a process and its descendants."""

    def __init__(self, pid: int, every_s: float, before: Mapping[str, float], note: Path | None) -> None:
        super().__init__(daemon=True)
        self.pid, self.every_s, self.before, self.note = pid, every_s, before, note
        self.peak_bytes = int(before.get("peak_bytes", 0))
        self._ended = Event()

    def run(self) -> None:
        begin = noted = time.perf_counter()
        while not self._ended.is_set():
            self.peak_bytes = max(self.peak_bytes, tree_bytes(self.pid))
            now = time.perf_counter()
            if self.note is not None and now - noted > NOTE_EVERY_S:
                seconds = self.before.get("seconds", 0.0) + now - begin
                self.note.write_text(json.dumps({"seconds": seconds, "peak_bytes": self.peak_bytes}))
                noted = now
            self._ended.wait(self.every_s)

    def stop(self) -> None:
        self._ended.set()
        self.join()


def tree_bytes(pid: int) -> int:
    """Memory of a process and its descendants now, or the peak of one of them where that is more; 0 if they ended."""
    pids = descendants(pid)
    together = sum(_kilobytes(PROC / str(one) / "smaps_rollup", "Pss:") for one in pids)
    highest = max((_kilobytes(PROC / str(one) / "status", "VmHWM:") for one in pids), default=0)
    return max(together, highest) * 1024


def descendants(pid: int) -> list[int]:
    """The process and all below it.

    Source: proc(5), /proc/pid/task/tid/children.
    """
    found, ahead = [], [pid]
    while ahead:
        found.append(ahead.pop())
        with suppress(OSError):
            for thread in (PROC / str(found[-1]) / "task").iterdir():
                with suppress(OSError):
                    ahead += [int(child) for child in (thread / "children").read_text().split()]
    return found


def _kilobytes(file: Path, name: str) -> int:
    try:
        lines = file.read_text().splitlines()
    except OSError:  # it has ended
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(name)), 0)
