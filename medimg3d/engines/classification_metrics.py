"""Loss, accuracy, F1, precision, recall and AUC of an epoch, computed with MONAI's functions.

Bundles carry a copy of this file: it imports nothing of medimg3d.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.metrics import compute_confusion_matrix_metric, compute_roc_auc, get_confusion_matrix

_MATRIX_METRICS = {"f1": "f1 score", "precision": "precision", "recall": "recall"}


class ClassificationMetrics:
    """A handler that puts ``<prefix>_loss``, ``_accuracy``, ``_f1``, ... into the engine's metrics each epoch.

    The scores are the network's plain outputs: the likeliest class decides, without temperature or threshold.
    With two classes, F1, precision and recall are those of the second; with more, means over the classes. AUC
    is each class against the rest, averaged. A metric that the epoch's cases do not define is NaN.

    Args:
        prefix: ``"train"`` or ``"val"``.

    Attributes:
        num_cases: Cases of the last epoch, over all processes.
    """

    def __init__(self, prefix: str = "val") -> None:
        self.prefix = prefix
        self.num_cases = 0
        self._logits: list[torch.Tensor] = []
        self._labels: list[int] = []

    def attach(self, engine: Engine) -> None:
        """Collect each iteration's outputs and compute when the epoch ends."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._reset)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._compute)

    def _reset(self, engine: Engine) -> None:
        self._logits, self._labels = [], []

    def _collect(self, engine: Engine) -> None:
        outputs: Any = engine.state.output
        for output in outputs if isinstance(outputs, list) else [outputs]:
            self._logits.append(torch.as_tensor(output["pred"]).detach().float().cpu().reshape(-1))
            self._labels.append(int(output["label"]))

    def _compute(self, engine: Engine) -> None:
        logits, labels = torch.stack(self._logits), torch.tensor(self._labels)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            parts: list[Any] = [None] * torch.distributed.get_world_size()  # ranks may hold unequal numbers
            torch.distributed.all_gather_object(parts, (logits.tolist(), labels.tolist()))
            logits = torch.tensor([row for part, _ in parts for row in part])
            labels = torch.tensor([label for _, part in parts for label in part])
        self.num_cases = len(labels)
        engine.state.metrics.update(
            {f"{self.prefix}_{name}": value for name, value in classification_metrics(logits, labels).items()}
        )


def classification_metrics(logits: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    """The metrics of one set of cases.

    Args:
        logits: Shape (n, classes), before the softmax.
        labels: Shape (n,), class indices.

    Returns:
        ``loss`` (mean negative log-likelihood), ``accuracy``, ``f1``, ``precision``, ``recall``, ``auc``.
    """
    num_classes = logits.shape[1]
    decided = logits.argmax(dim=1)
    truth_onehot = torch.nn.functional.one_hot(labels, num_classes)
    decided_onehot = torch.nn.functional.one_hot(decided, num_classes)
    matrix = get_confusion_matrix(decided_onehot, truth_onehot, include_background=num_classes > 2).sum(dim=0)
    metrics = {
        "loss": float(torch.nn.functional.cross_entropy(logits, labels)),
        "accuracy": float((decided == labels).float().mean()),
    }
    for name, monai_name in _MATRIX_METRICS.items():
        metrics[name] = float(torch.as_tensor(compute_confusion_matrix_metric(monai_name, matrix)).mean())
    defined = all(0 < int(count) < len(labels) for count in truth_onehot.sum(dim=0))
    metrics["auc"] = (
        float(torch.as_tensor(compute_roc_auc(logits.softmax(dim=1), truth_onehot))) if defined else math.nan
    )
    return metrics
