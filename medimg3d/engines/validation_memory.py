"""Keeps a validation in the middle of a training from adding to the most memory that the training holds.

A training keeps what its network frees (:mod:`medimg3d.engines.heap`), in pieces that fit its own layers. A validation
takes more windows at once than a batch has patches, so that its larger layers find no place among the pieces and the
process grows: that of a SwinUNETR from 2.9 to between 4.3 and 4.5 GB.
"""

from __future__ import annotations

from ignite.engine import Engine, Events

from medimg3d.engines.heap import keep_freed_memory, keep_small_blocks, keeps_freed_memory
from medimg3d.inference.process_memory import give_back_freed


class ValidationMemory:
    """Hands freed memory back to the system before and after a validation, and large blocks during it as well.

    Does nothing in a process that does not keep freed memory: under stock MONAI, and where the C library is not glibc.

    Args:
        evaluator: The validation engine.
    """

    def __init__(self, evaluator: Engine) -> None:
        self.evaluator = evaluator
        self._kept = False

    def attach(self, engine: Engine) -> None:
        """Follow the evaluator; of the trainer, nothing is needed."""
        self.evaluator.add_event_handler(Events.STARTED, self._begin)
        self.evaluator.add_event_handler(Events.COMPLETED, self._end)

    def _begin(self, engine: Engine) -> None:
        self._kept = keeps_freed_memory()
        if self._kept:
            begin_validation()

    def _end(self, engine: Engine) -> None:
        if self._kept:
            end_validation()


def begin_validation() -> None:
    """Large blocks go back to the system from now on, and what is free goes at once."""
    keep_small_blocks()
    give_back_freed()


def end_validation() -> None:
    """Hand back what the validation left, and keep freed memory again."""
    give_back_freed()
    keep_freed_memory()
