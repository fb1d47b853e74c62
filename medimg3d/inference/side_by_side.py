"""Runs many small pieces of work on the processor's cores, each on one core."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from threading import Barrier
from types import TracebackType
from typing import Any

import torch

MOST_WORKERS = 8


class SideBySide:
    """A pool of threads, as many as torch is set to, in each of which torch uses one.

    Operations on small tensors gain little from several threads each; several of them side by side do. Use it in a
    ``with`` block.

    Args:
        workers: Number of threads; torch's, at most 8, if None. With 1 the work is done in the caller's thread.
    """

    def __init__(self, workers: int | None = None) -> None:
        self.workers = min(torch.get_num_threads(), MOST_WORKERS) if workers is None else workers
        self._pool: ThreadPoolExecutor | None = None

    def run(self, pieces: Iterable[Callable[[], Any]]) -> None:
        """Do all pieces, in any order, and wait for them; the first error is raised."""
        if self._pool is None:
            for piece in pieces:
                piece()
            return
        tasks = [self._pool.submit(piece) for piece in pieces]
        try:
            for task in tasks:
                task.result()
        finally:  # none may still be at work when the caller goes on
            for task in tasks:
                task.cancel()
            wait(tasks)

    def __enter__(self) -> SideBySide:
        if self.workers > 1:
            self._pool = one_thread_each(self.workers, "piece")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None


def one_thread_each(workers: int, name: str) -> ThreadPoolExecutor:
    """A pool of threads in each of which torch uses one; elsewhere it keeps the number that it has.

    Threads of torch wait busily for a while after each operation, and would take the cores from the network.
    """
    threads, ready = torch.get_num_threads(), Barrier(workers + 1)
    pool = ThreadPoolExecutor(workers, name, initializer=_begin, initargs=(ready,))
    for _ in range(workers):  # each starts a thread, as none of them is free before the barrier
        pool.submit(int)
    ready.wait()
    torch.set_num_threads(threads)  # threads that begin later take the last number that was set
    return pool


def _begin(ready: Barrier) -> None:
    torch.get_num_threads()  # a new thread takes over the common number when it is first asked, so ask before
    torch.set_num_threads(1)
    ready.wait()
