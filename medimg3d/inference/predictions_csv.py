"""The table of a classifier's predictions, one row a file, written by medimg3d and by stock MONAI alike.

Bundles carry a copy of this file: it imports nothing of medimg3d. ``decision`` is a
:class:`medimg3d.inference.decision.Decision`.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ignite.engine import Engine, Events

PREDICTIONS = "predictions.csv"


def prediction_row(file: str, case: str, probabilities: Sequence[float], decision: Any) -> dict[str, str]:
    """One row: what was decided and how sure.

    Args:
        file: The file as a person finds it.
        case: Name of the case.
        probabilities: Calibrated, shape (classes,).
        decision: How probabilities become a class.

    Returns:
        ``file``, ``probability``, ``decision``, ``unsure`` (yes or no), ``probability_<class>``, ``case``.
    """
    return {
        "file": file,
        "probability": _written(decision.leading(probabilities)),
        "decision": decision.decide(probabilities),
        "unsure": "yes" if decision.is_unsure(probabilities) else "no",
        **{
            f"probability_{name}": _written(p)
            for name, p in zip(decision.classes, probabilities, strict=True)
        },
        "case": case,
    }


def _written(probability: float) -> str:
    """Nine digits from the first that counts: probabilities near 0 and 1 must not tie."""
    return f"{probability:.9g}"


def write_predictions(rows: Sequence[Mapping[str, str]], classes: Sequence[str], path: Path) -> Path:
    """Write the table in one step; its header stands there even without a row."""
    names = [f"probability_{name}" for name in classes]
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial-{os.getpid()}-{path.name}")
    with open(partial, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(
            file, ["file", "probability", "decision", "unsure", *names, "case"], lineterminator="\n"
        )
        writer.writeheader()
        writer.writerows(rows)
    os.replace(partial, path)
    return path


class PredictionsCsv:
    """A handler of MONAI's evaluators that writes the table when the run ends.

    Args:
        output_dir: Folder of ``predictions.csv``.
        decision: How probabilities become a class.
        input_dir: Files are named relative to it.
        rank: Only rank 0 writes.
    """

    def __init__(
        self, output_dir: str | Path, decision: Any, input_dir: str | Path = "", rank: int = 0
    ) -> None:
        self.path = Path(output_dir) / PREDICTIONS
        self.decision = decision
        self.input_dir = Path(os.path.abspath(input_dir)) if input_dir else None
        self.rank = rank
        self._rows: list[dict[str, str]] = []

    def attach(self, engine: Engine) -> None:
        """Collect each iteration's outputs, write when the evaluator is done."""
        engine.add_event_handler(Events.STARTED, lambda: self._rows.clear())
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def _collect(self, engine: Engine) -> None:
        outputs: Any = engine.state.output
        for output in outputs if isinstance(outputs, list) else [outputs]:
            logits = np.asarray(output["pred"].detach().float().cpu()).reshape(1, -1)
            path = Path(os.path.abspath(str(output["image"].meta["filename_or_obj"])))
            inside = self.input_dir is not None and path.is_relative_to(self.input_dir)
            file = path.relative_to(self.input_dir).as_posix() if inside else path.name  # type: ignore[arg-type]
            probabilities = self.decision.probabilities(logits)[0]
            self._rows.append(prediction_row(file, path.name.split(".")[0], probabilities, self.decision))

    def _write(self, engine: Engine) -> None:
        if self.rank == 0:
            write_predictions(
                sorted(self._rows, key=lambda row: row["file"]), self.decision.classes, self.path
            )
