import math

import numpy as np
from matplotlib import pyplot
from matplotlib.image import imread

from medimg3d.report.figures import box_plot, history_plot


def test_box_plot_leaves_out_infinite_values_and_draws_an_empty_class(tmp_path):
    values = {"front": [0.8, 0.9, math.inf], "rear": [math.nan], "none": []}
    path = box_plot(values, tmp_path / "sub" / "box.png", axis_label="Dice")
    assert imread(path).shape[0] == 600


def test_the_same_values_give_the_same_bytes(tmp_path):
    values = {"front": np.random.default_rng(0).random(20).tolist()}
    first = box_plot(values, tmp_path / "a.png", axis_label="Dice").read_bytes()
    assert box_plot(values, tmp_path / "b.png", axis_label="Dice").read_bytes() == first


def test_figures_stay_out_of_pyplots_list(tmp_path):
    box_plot({"front": [1.0, 2.0]}, tmp_path / "a.png", axis_label="Dice")
    assert pyplot.get_fignums() == []


def test_history_takes_text_from_csv_blank_cells_and_missing_columns(tmp_path):
    rows = [
        {
            "epoch": "1",
            "train_loss": "0.9",
            "learning_rate": "0.01",
            "val_mean_dice": "",
            "val_dice_front": "",
        },
        {
            "epoch": "2",
            "train_loss": "0.5",
            "learning_rate": "",
            "val_mean_dice": "0.7",
            "val_dice_front": "0.6",
        },
    ]
    assert imread(history_plot(rows, tmp_path / "a.png")).shape[:2] == (570, 1500)
    assert history_plot([{"epoch": "1", "train_loss": "0.9"}], tmp_path / "b.png").is_file()
    assert history_plot([], tmp_path / "c.png").is_file()
