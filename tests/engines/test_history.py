import math

import pytest
import torch
from ignite.engine import Engine, Events

from medimg3d.engines.history import History, read_history
from medimg3d.errors import BundleError


def train(history, losses, max_epochs=1):
    engine = Engine(lambda engine, loss: [{"loss": loss}])
    history.attach(engine)
    engine.run(losses, max_epochs=max_epochs)


def optimizer(rate=0.25):
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)


def test_a_row_holds_the_mean_loss_and_the_rate(tmp_path):
    train(History(tmp_path / "h.csv", optimizer()), [1.0, 2.0, 6.0])
    assert read_history(tmp_path / "h.csv") == [{"epoch": 1.0, "train_loss": 3.0, "learning_rate": 0.25}]


def test_only_validated_epochs_carry_metrics_with_one_column_a_class(tmp_path):
    evaluator = Engine(lambda engine, batch: None)

    @evaluator.on(Events.COMPLETED)
    def measure(engine):
        engine.state.metrics = {"val_mean_dice": 0.5}
        engine.state.metric_details = {"val_mean_dice": torch.tensor([[0.25, 0.75], [math.nan, 0.25]])}

    history = History(tmp_path / "h.csv", optimizer(), evaluator, class_names=["front", "rear"])
    engine = Engine(lambda engine, loss: [{"loss": loss}])
    engine.add_event_handler(Events.EPOCH_COMPLETED(every=2), lambda _: evaluator.run([0]))
    history.attach(engine)
    # the validation's handler was added before attach(): it runs before the row is written
    engine.run([1.0], max_epochs=2)
    first, second = read_history(tmp_path / "h.csv")
    assert "val_mean_dice" not in first
    assert second["val_mean_dice"] == 0.5
    assert second["val_dice_front"] == 0.25  # NaN is left out
    assert second["val_dice_rear"] == 0.5


def test_a_restored_history_goes_on_after_its_rows(tmp_path):
    first = History(tmp_path / "a.csv", optimizer())
    train(first, [1.0])
    second = History(tmp_path / "b.csv", optimizer())
    second.load_state_dict(first.state_dict())
    train(second, [2.0])
    assert [row["train_loss"] for row in read_history(tmp_path / "b.csv")] == [1.0, 2.0]


def test_a_loss_that_is_no_number_stops_the_training(tmp_path):
    with pytest.raises(BundleError, match="loss became nan in epoch 1"):
        train(History(tmp_path / "h.csv", optimizer()), [1.0, math.nan])
