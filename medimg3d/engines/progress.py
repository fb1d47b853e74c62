"""A training's progress bar with the time left; plain lines where the output is no terminal."""

from __future__ import annotations

import time
from typing import Any

from ignite.engine import Engine, Events
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

_LINE_EVERY_S = 30.0


class TrainingProgress:
    """Shows iterations done, loss, last validation metric and the time left, on standard error.

    Args:
        description: Stands before the bar.
        evaluator: The validation engine whose metrics are shown, if there is one.
        enabled: False shows nothing (ranks above 0, ``--json``).
    """

    def __init__(
        self, description: str = "Training", evaluator: Engine | None = None, enabled: bool = True
    ) -> None:
        self.description = description
        self.evaluator = evaluator
        self.enabled = enabled
        self.console = Console(stderr=True)
        self._bar: Progress | None = None
        self._task: Any = None
        self._started = (0.0, 0)
        self._last_line = 0.0

    def attach(self, engine: Engine) -> None:
        """Follow the trainer; attach after the handler that restores a checkpoint."""
        if not self.enabled:
            return
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._advance)
        engine.add_event_handler(Events.COMPLETED, self._stop)
        engine.add_event_handler(Events.TERMINATE, self._stop)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._raise)

    def _start(self, engine: Engine) -> None:
        self._started = (time.monotonic(), engine.state.iteration)
        self._last_line = time.monotonic()
        if self.console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[status]}"),
                console=self.console,
            )
            self._bar.start()
            total = self._total(engine)
            self._task = self._bar.add_task(
                self.description, total=total, completed=engine.state.iteration, status=""
            )

    def _advance(self, engine: Engine) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=engine.state.iteration, status=self._status(engine))
        elif time.monotonic() - self._last_line >= _LINE_EVERY_S:
            self._last_line = time.monotonic()
            done = engine.state.iteration
            pace = (time.monotonic() - self._started[0]) / max(done - self._started[1], 1)
            left_min = pace * (self._total(engine) - done) / 60
            self.console.print(
                f"{self.description}: epoch {engine.state.epoch}/{engine.state.max_epochs}, {self._status(engine)}, "
                f"{left_min:.1f} min left",
                soft_wrap=True,
            )

    def _status(self, engine: Engine) -> str:
        output: Any = engine.state.output
        first = output[0] if isinstance(output, (list, tuple)) else output
        status = f"loss {float(first['loss']):.3f}"
        metrics = self.evaluator.state.metrics if self.evaluator is not None else {}
        return status + "".join(f", {name} {float(value):.4f}" for name, value in metrics.items())

    @staticmethod
    def _total(engine: Engine) -> int:
        return int((engine.state.max_epochs or 0) * (engine.state.epoch_length or 0))

    def _stop(self, *_: Any) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _raise(self, engine: Engine, error: BaseException) -> None:
        self._stop()
        raise error
