"""Facts of many image files: read in parallel, each file once, remembered while it does not change."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType

import medimg3d
from medimg3d.data.facts_worker import facts_or_problem
from medimg3d.data.image_facts import ImageFacts

FORMAT = 1
MAX_PROCESSES = 4  # each holds one image
MIN_FILES, MIN_BYTES = 64, 64 << 20  # below both, a process costs more than it saves

Job = tuple[Path, bool]

_STOPPED = "was not read: the check was stopped"


class FactsReader:
    """Gives the facts of files; a context manager, since it may hold processes.

    Args:
        memory: File that keeps facts from one run to the next, a line a file; entries count by path, size and
            time of change. Lines are added as files are read, so that a killed check goes on where it was.
        processes: Number of processes; by default one a processor, at most 4, and none for little data.
    """

    def __init__(self, *, memory: Path | None = None, processes: int | None = None) -> None:
        self._memory = memory
        self._processes = processes
        self._remembered = _read_memory(memory)
        self._known: dict[Job, ImageFacts | str] = {}
        self._begun: dict[Job, Future[ImageFacts | str]] = {}
        self._idle: SimpleQueue[_Child] = SimpleQueue()
        self._children: list[_Child] = []
        self._pool: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> FactsReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            for child in self._children:
                child.kill()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        for child in self._children:
            child.close()

    def begin(self, jobs: Iterable[Job]) -> None:
        """Start to read files in the background: path, and whether it is read as a label.

        Little data is left to be read when it is asked for.
        """
        wanted = [job for job in dict.fromkeys(jobs) if self._recall(job) is None]
        count = min(_processes_for(wanted) if self._processes is None else self._processes, len(wanted))
        if not count:
            return
        self._children = [_Child() for _ in range(count)]
        for child in self._children:
            self._idle.put(child)
        self._pool = ThreadPoolExecutor(count)
        self._begun = {job: self._pool.submit(self._ask, job) for job in wanted}

    def facts(self, path: Path, *, as_label: bool = False) -> ImageFacts | str:
        """The facts of a file, or why it cannot be read (starts with a verb, holds no path)."""
        job = (path, as_label)
        if job not in self._known:
            if job in self._begun:
                found = self._begun[job].result()
            else:
                found = self._recall(job) or facts_or_problem(path, as_label=as_label)
            self._known[job] = found
            self._remember(job, found)
        return self._known[job]

    def _ask(self, job: Job) -> ImageFacts | str:
        child = self._idle.get()
        try:
            found = child.ask(job)
        finally:
            self._idle.put(child)
        self._remember(job, found)
        return found

    def _recall(self, job: Job) -> ImageFacts | None:
        key = _key(job) if self._remembered else None
        return self._remembered.get(key) if key else None

    def _remember(self, job: Job, found: ImageFacts | str) -> None:
        """Add a line; what cannot be read is tried again the next time."""
        if self._memory is None or isinstance(found, str):
            return
        key = _key(job)
        with self._lock:
            if key is None or key in self._remembered:
                return
            self._remembered[key] = found
            self._memory.parent.mkdir(parents=True, exist_ok=True)
            with self._memory.open("a", encoding="utf-8") as file:
                file.write("\n" + json.dumps({"key": key, "facts": found.as_json()}))


class _Child:
    """One worker process, begun when first asked and again after a crash."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._closed = False

    def ask(self, job: Job) -> ImageFacts | str:
        """The facts of a file, or why it has none."""
        if self._closed:
            return _STOPPED
        process = self._begin()
        assert process.stdin is not None  # both are pipes
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps([str(job[0]), job[1]]) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except (OSError, ValueError):  # the pipe broke, or was closed
            line = ""
        if not line:
            return self._crashed()
        answer = json.loads(line)
        return ImageFacts.from_json(answer["facts"]) if "facts" in answer else str(answer["problem"])

    def kill(self) -> None:
        """Stop in the middle of a file; whoever waits for it gets a text."""
        self._closed = True
        if self._process is not None:
            self._process.kill()

    def close(self) -> None:
        """End the process, once nobody waits for it."""
        self._closed = True
        process, self._process = self._process, None
        if process is not None:
            _end(process)

    def _begin(self) -> subprocess.Popen[str]:
        if self._process is None:
            # the child must find this package, however the parent did
            paths = [str(Path(medimg3d.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
            self._process = subprocess.Popen(
                [sys.executable, "-m", "medimg3d.data.facts_worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                encoding="utf-8",
                env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in paths if path)},
            )
        return self._process

    def _crashed(self) -> str:
        if self._closed or self._process is None:
            return _STOPPED
        process, self._process = self._process, None
        return (
            f"crashed the program that read it (exit code {_end(process)}); expected a file that the libraries "
            "can read. It may be damaged or too large for the memory: copy or save it anew"
        )


def _end(process: subprocess.Popen[str]) -> int:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):  # what was still to be written finds no reader
                pipe.close()
    return process.wait()


def _processes_for(jobs: list[Job]) -> int:
    """One a processor where there is much to read, else none."""
    sizes = [path.stat().st_size for path, _ in jobs if path.is_file()]
    folders = sum(path.is_dir() for path, _ in jobs)
    if len(jobs) < 2 or (len(jobs) < MIN_FILES and sum(sizes) < MIN_BYTES and folders < 2):
        return 0
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(processors, MAX_PROCESSES)


def _read_memory(path: Path | None) -> dict[str, ImageFacts]:
    """Facts by key; a line that a killed run left half-written is passed over."""
    if path is None or not path.is_file():
        return {}
    remembered = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
            remembered[str(entry["key"])] = ImageFacts.from_json(entry["facts"])
        except (ValueError, KeyError, TypeError):
            continue
    return remembered


def _key(job: Job) -> str | None:
    """Hash of path, size and time of change, so that no path is kept; None if there is no such file."""
    path, as_label = job
    try:
        files = sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]
        stats = [(str(file.absolute()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    except OSError:
        return None
    return hashlib.blake2b(json.dumps([FORMAT, as_label, stats]).encode(), digest_size=16).hexdigest()
