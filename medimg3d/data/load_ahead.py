"""Loads the next images in threads while the network works on the current ones."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

MOST_THREADS = 8

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")


def loading_threads() -> int:
    """Half of the cores that this process may use, 1 to 8: the other half is the network's."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only: leaves out cores of other processes
    cores = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    return max(1, min(MOST_THREADS, cores // 2))


def load_ahead(
    batches: Iterable[Sequence[Item]],
    load: Callable[[Item], Loaded],
    *,
    num_threads: int | None = None,
    num_ahead: int = 1,
) -> Generator[list[tuple[Item, Future[Loaded]]], None, None]:
    """Batches of items with what was loaded for each, in order; each item fails alone.

    A caller that stops early (Ctrl-C, ``break``) waits for the items that are being loaded, and no more begin.

    Args:
        batches: Drawn in the caller's thread, at most ``num_ahead`` ahead.
        load: Item → what is wanted; runs in several threads at once. What is set for one thread, such as
            ``torch.no_grad``, does not reach it.
        num_threads: :func:`loading_threads` if None.
        num_ahead: Batches that are loaded or being loaded while the caller has one.

    Returns:
        Iterator of lists of (item, future). The futures are done: ``result()`` gives what was loaded or raises
        what ``load`` raised.

    Raises:
        ValueError: ``num_ahead`` is below 1.
    """
    if num_ahead < 1:
        raise ValueError(f"num_ahead must be at least 1, got {num_ahead}")
    return _loaded_ahead(iter(batches), load, num_threads or loading_threads(), num_ahead)


def _loaded_ahead(
    batches: Iterable[Sequence[Item]], load: Callable[[Item], Loaded], num_threads: int, num_ahead: int
) -> Generator[list[tuple[Item, Future[Loaded]]], None, None]:
    pool = ThreadPoolExecutor(num_threads, "load")
    ahead: deque[list[tuple[Item, Future[Loaded]]]] = deque()
    remaining = iter(batches)
    try:
        while True:
            for batch in islice(remaining, num_ahead + 1 - len(ahead)):
                ahead.append([(item, pool.submit(load, item)) for item in batch])
            if not ahead:
                return
            current = ahead.popleft()
            for _, future in current:
                future.exception()  # waits
            yield current
            del current  # it holds images
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
