"""What happened in each epoch, as rows of a CSV file that stays whole and survives resuming."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events

from medimg3d.atomic import write_text
from medimg3d.errors import BundleError


class History:
    """Collects a row an epoch: mean training loss, learning rate, the trainer's and the validation's metrics.

    A trainer's metric named ``train_loss`` (a classifier's log-likelihood, comparable with ``val_loss``) takes
    the place of the mean loss. It holds no times, so that a resumed run's history equals an uninterrupted one's.
    Attach it after the validation handler and before the checkpoint, and save it with the checkpoint.

    Args:
        path: The CSV file, rewritten after each epoch; nothing is written on ranks above 0.
        optimizer: Its first learning rate is recorded as the epoch begins.
        evaluator: The validation engine, if there is one.
        class_names: Names of the classes in the evaluator's per-class metric details, for the columns.
        rank: Rank of this process.
    """

    def __init__(
        self,
        path: Path | str,
        optimizer: torch.optim.Optimizer,
        evaluator: Engine | None = None,
        class_names: Sequence[str] = (),
        rank: int = 0,
    ) -> None:
        self.path = Path(path)
        self.optimizer = optimizer
        self.evaluator = evaluator
        self.class_names = tuple(class_names)
        self.rank = rank
        self.rows: list[dict[str, Any]] = []
        self._losses: list[float] = []
        self._learning_rate = math.nan
        self._validation: dict[str, float] = {}

    def attach(self, engine: Engine) -> None:
        """Follow the trainer, and the evaluator if there is one."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._begin)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._iteration)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._finish)
        if self.evaluator is not None:
            self.evaluator.add_event_handler(Events.COMPLETED, self._validated)

    def state_dict(self) -> dict[str, Any]:
        """The rows so far."""
        return {"rows": [dict(row) for row in self.rows]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the rows of an earlier part of the run and rewrite the file from them."""
        self.rows = [dict(row) for row in state["rows"]]
        self._write()

    def _begin(self, engine: Engine) -> None:
        self._losses = []
        self._validation = {}
        self._learning_rate = float(self.optimizer.param_groups[0]["lr"])

    def _iteration(self, engine: Engine) -> None:
        output = engine.state.output
        first: Any = output[0] if isinstance(output, (list, tuple)) else output
        loss = float(first["loss"])
        if not math.isfinite(loss):
            raise BundleError(
                f"The training loss became {loss} in epoch {engine.state.epoch}; expected a number. Resume or train "
                "anew with --precision float32 and without --compile, or with a lower learning_rate."
            )
        self._losses.append(loss)

    def _validated(self, evaluator: Engine) -> None:
        state: Any = evaluator.state
        self._validation = {name: float(value) for name, value in state.metrics.items() if _is_number(value)}
        for name, details in state.metric_details.items():
            per_class = torch.as_tensor(details, dtype=torch.float64).nanmean(dim=0).flatten().tolist()
            if len(per_class) == len(self.class_names):
                column = name.replace("_mean_", "_")
                self._validation |= {
                    f"{column}_{c}": v for c, v in zip(self.class_names, per_class, strict=True)
                }

    def _finish(self, engine: Engine) -> None:
        row: dict[str, Any] = {
            "epoch": engine.state.epoch,
            "train_loss": sum(self._losses) / max(len(self._losses), 1),
            "learning_rate": self._learning_rate,
        }
        training = {name: float(value) for name, value in engine.state.metrics.items() if _is_number(value)}
        self.rows.append(row | training | self._validation)
        self._write()

    def _write(self) -> None:
        if self.rank > 0:
            return
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(self.path, text.getvalue())


def read_history(path: Path | str) -> list[dict[str, float]]:
    """Rows of a history file; epochs without a validation lack its columns.

    Args:
        path: A CSV file written by :class:`History`.

    Returns:
        One dictionary an epoch, values as float.
    """
    with open(path, newline="", encoding="utf-8") as handle:
        return [{k: float(v) for k, v in row.items() if v != ""} for row in csv.DictReader(handle)]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) or (isinstance(value, torch.Tensor) and value.numel() == 1)
