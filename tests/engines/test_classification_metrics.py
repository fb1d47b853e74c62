from __future__ import annotations

import math

import pytest
import torch
from ignite.engine import Engine, Events
from sklearn.metrics import f1_score, log_loss, precision_score, recall_score, roc_auc_score

from medimg3d.engines.classification_metrics import ClassificationMetrics, classification_metrics


@pytest.mark.parametrize(("classes", "average"), [(2, "binary"), (3, "macro")])
def test_metrics_equal_those_of_scikit_learn(classes, average):
    generator = torch.Generator().manual_seed(classes)
    logits = torch.randn(60, classes, generator=generator)
    labels = torch.arange(60) % classes
    found = classification_metrics(logits, labels)
    probabilities, decided = logits.double().softmax(1).numpy(), logits.argmax(1).numpy()
    truth = labels.numpy()
    assert found["loss"] == pytest.approx(log_loss(truth, probabilities), rel=1e-5)
    assert found["accuracy"] == pytest.approx((decided == truth).mean())
    assert found["f1"] == pytest.approx(f1_score(truth, decided, average=average))
    assert found["precision"] == pytest.approx(precision_score(truth, decided, average=average))
    assert found["recall"] == pytest.approx(recall_score(truth, decided, average=average))
    scores = probabilities[:, 1] if classes == 2 else probabilities
    assert found["auc"] == pytest.approx(roc_auc_score(truth, scores, multi_class="ovr"))


def test_auc_of_one_class_alone_is_no_number():
    found = classification_metrics(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([1, 1]))
    assert math.isnan(found["auc"])
    assert found["accuracy"] == 0.5


def test_the_handler_counts_each_epoch_anew():
    right = [{"pred": torch.tensor([2.0, 0.0]), "label": 0}, {"pred": torch.tensor([0.0, 2.0]), "label": 1}]
    wrong = [{"pred": torch.tensor([2.0, 0.0]), "label": 1}, {"pred": torch.tensor([2.0, 0.0]), "label": 0}]
    engine = Engine(lambda engine, batch: (wrong, right)[min(engine.state.epoch - 1, 1)])
    found = []
    ClassificationMetrics("val").attach(engine)
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda e: found.append(dict(e.state.metrics)))
    engine.run([0], max_epochs=2)
    assert [metrics["val_accuracy"] for metrics in found] == [0.5, 1.0]
    assert [metrics["val_recall"] for metrics in found] == [0.0, 1.0]
