"""Loads the next case and saves the previous one while the current one is worked on.

The work stays in the caller's thread, one case at a time; a thread loads ahead and another saves behind. A case
that fails, at whatever stage, fails alone.
"""

from __future__ import annotations

import time
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeVar

from medimg3d.inference.side_by_side import one_thread_each

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")
Made = TypeVar("Made")


_Stage = Callable[[Any, Any], Any]


@dataclass(frozen=True, eq=False)
class Outcome:
    """What became of one item.

    Attributes:
        result: What ``save`` gave back; None if the item failed.
        error: What was raised, or None. Its traceback names the lines but holds no variables (no volumes).
        stage: Stage that raised it (``"load"``, ``"work"``, ``"save"``); empty if none did.
        seconds: Stage → wall time of the stages that ran, the failed one included.
    """

    result: Any = None
    error: Exception | None = None
    stage: str = ""
    seconds: dict[str, float] = field(default_factory=dict)


def overlapped(
    items: Iterable[Item],
    *,
    load: Callable[[Item], Loaded],
    work: Callable[[Item, Loaded], Made],
    save: Callable[[Item, Made], Any],
    depth: int = 1,
) -> Generator[tuple[Item, Outcome], None, None]:
    """Take items through three stages that overlap.

    At most ``depth`` items are loaded or being loaded ahead of the one in work, each in a thread of its own, and at
    most ``depth`` are being saved, one after the other, or waiting for it: what is set for one thread, such as
    ``torch.no_grad``, does not reach them.

    If ``work`` is interrupted (Ctrl-C, any exception that is no :class:`Exception`) nothing new begins, a load
    or save that runs is waited for, so that no file is left half written, items that were done are still given,
    and the interrupt goes on. A caller that stops early (``close``, ``break``) also waits for what runs; an item
    saved then is not given, so a ``save`` whose effect must be on record writes the record itself.

    Args:
        items: What to process; drawn in the caller's thread, at most ``depth`` ahead.
        load: Item → what ``work`` needs. Runs in a thread; several at once if ``depth`` is above 1.
        work: Item and loaded → what ``save`` needs. Runs in the caller's thread, as the iterator is drawn.
        save: Item and made → the result. Runs in a thread.
        depth: Items ahead and behind, and threads that load.

    Returns:
        Iterator of (item, outcome), in the order of the items.

    Raises:
        ValueError: ``depth`` is below 1.
    """
    if depth < 1:
        raise ValueError(f"depth must be at least 1, got {depth}")
    return _Line(iter(items), lambda item, _: load(item), work, save, depth).run()


def in_turn(
    items: Iterable[Item],
    *,
    load: Callable[[Item], Loaded],
    work: Callable[[Item, Loaded], Made],
    save: Callable[[Item, Made], Any],
) -> Generator[tuple[Item, Outcome], None, None]:
    """As :func:`overlapped`, but one stage after the other in the caller's thread: one case in memory at a time."""
    for item in items:
        yield item, _through(item, load, work, save)


def _through(
    item: Any, load: Callable[..., Any], work: Callable[..., Any], save: Callable[..., Any]
) -> Outcome:
    seconds: dict[str, float] = {}
    value: Any = None
    for stage, call in (("load", lambda one, _: load(one)), ("work", work), ("save", save)):
        begin = time.perf_counter()
        try:
            value = call(item, value)
        except Exception as err:  # noqa: BLE001 - a case that fails, fails alone
            _forget_variables(err)
            return Outcome(None, err, stage, seconds | {stage: time.perf_counter() - begin})
        seconds[stage] = time.perf_counter() - begin
    return Outcome(value, None, "", seconds)


@dataclass(frozen=True, eq=False)
class _Step:
    """How far an item has come: what its last stage gave, or what it raised."""

    value: Any = None
    error: Exception | None = None
    stage: str = ""
    seconds: dict[str, float] = field(default_factory=dict)

    def then(self, stage: str, run: _Stage, item: Any) -> _Step:
        """The next stage, unless one has failed."""
        if self.error is not None:
            return self
        begin = time.perf_counter()
        try:
            value, error = run(item, self.value), None
        except Exception as err:  # noqa: BLE001 - it belongs to its item, and the others go on
            value, error = None, err
        seconds = {**self.seconds, stage: time.perf_counter() - begin}
        return _Step(value, error, stage if error else "", seconds)

    def outcome(self) -> Outcome:
        if self.error is not None:
            _forget_variables(self.error)
        return Outcome(self.value, self.error, self.stage, self.seconds)


@dataclass(eq=False)
class _Line:
    items: Iterator[Any]
    load: _Stage
    work: _Stage
    save: _Stage
    depth: int
    loader: ThreadPoolExecutor = field(init=False)
    saver: ThreadPoolExecutor = field(init=False)
    ahead: deque[tuple[Any, Future[_Step]]] = field(default_factory=deque)
    behind: deque[tuple[Any, Future[_Step]]] = field(default_factory=deque)

    def run(self) -> Generator[tuple[Any, Outcome], None, None]:
        self.loader = one_thread_each(self.depth, "load")
        self.saver = one_thread_each(1, "save")
        try:
            yield from self._outcomes()
        except GeneratorExit:
            raise
        except BaseException:
            self._stop()
            yield from self._saved(wait_for_all=True)
            raise
        finally:
            self._stop()

    def _outcomes(self) -> Iterator[tuple[Any, Outcome]]:
        self._load_ahead()
        while self.ahead:
            item, step = self._next_loaded()
            yield from self._saved()
            step = step.then("work", self.work, item)
            self._save_behind(item, step)
            del step  # it holds a volume
            yield from self._saved()
        yield from self._saved(wait_for_all=True)

    def _next_loaded(self) -> tuple[Any, _Step]:
        item, future = self.ahead.popleft()
        self._load_ahead()
        return item, future.result()

    def _load_ahead(self) -> None:
        for item in islice(self.items, self.depth - len(self.ahead)):
            self.ahead.append((item, self.loader.submit(_Step().then, "load", self.load, item)))

    def _save_behind(self, item: Any, step: _Step) -> None:
        saving = [future for _, future in self.behind if not future.done()]
        if len(saving) >= self.depth:
            wait(saving[:1])
        self.behind.append((item, self.saver.submit(self._save_popped, item, [step])))

    def _save_popped(self, item: Any, one_step: list[_Step]) -> _Step:
        """Popped, and bound to no name: an error keeps the frames of the executor, and those their arguments."""
        return one_step.pop().then("save", self.save, item)

    def _saved(self, *, wait_for_all: bool = False) -> Iterator[tuple[Any, Outcome]]:
        """Outcomes from the first item on, up to one that is not ready; cancelled ones are left out."""
        while self.behind and (wait_for_all or self.behind[0][1].done()):
            if not self.behind[0][1].done():
                wait([self.behind[0][1]])  # before it is taken out: an interrupt comes here
            item, future = self.behind.popleft()
            if not future.cancelled():
                yield item, future.result().outcome()

    def _stop(self) -> None:
        self.loader.shutdown(wait=False, cancel_futures=True)
        self.saver.shutdown(wait=True, cancel_futures=True)
        self.loader.shutdown(wait=True)


def _forget_variables(error: BaseException) -> None:
    """Drop the variables of the frames in a traceback: they hold whole volumes."""
    todo: list[BaseException | None] = [error]
    seen: set[int] = set()
    while todo:
        link = todo.pop()
        if link is not None and id(link) not in seen:
            seen.add(id(link))
            traceback.clear_frames(link.__traceback__)
            todo += [link.__cause__, link.__context__]
