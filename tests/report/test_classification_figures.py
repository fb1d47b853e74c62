import math

import numpy as np
from matplotlib import pyplot
from matplotlib.image import imread

from medimg3d.metrics.calibration import reliability_bins
from medimg3d.metrics.ranking import precision_recall_curve, roc_curve
from medimg3d.report.classification_figures import (
    classification_history_plot,
    confusion_plot,
    precision_recall_plot,
    reliability_plot,
    roc_plot,
)
from medimg3d.report.film_grid import Thumbnail, film_grid

SCORES = np.random.default_rng(0).random(40)
POSITIVE = np.random.default_rng(1).random(40) < SCORES


def test_curves_are_drawn_with_their_points_and_the_same_input_gives_the_same_bytes(tmp_path):
    curves = {"all": roc_curve(SCORES, POSITIVE), "undefined": roc_curve(SCORES, SCORES > 2)}
    first = roc_plot(curves, tmp_path / "a.png", points={"in use": (0.2, 0.8), "none": (math.nan, 1)})
    again = roc_plot(curves, tmp_path / "b.png", points={"in use": (0.2, 0.8), "none": (math.nan, 1)})
    assert first.read_bytes() == again.read_bytes()
    recalls = {"all": precision_recall_curve(SCORES, POSITIVE)}
    path = precision_recall_plot(recalls, tmp_path / "sub" / "pr.png", title="a title")
    assert imread(path).shape[:2] == (750, 780)


def test_reliability_skips_empty_bins(tmp_path):
    bins = reliability_bins([0.05, 0.95], [0, 1], num_bins=4, binning="width")
    path = reliability_plot(bins, tmp_path / "a.png", note="ECE", intervals=[(0, 0.5), None, None, (0.5, 1)])
    assert imread(path).shape[:2] == (900, 780)


def test_confusion_matrices_stand_side_by_side_and_may_lack_a_class(tmp_path):
    one = confusion_plot({"all": [[3, 1], [0, 0]]}, ["a", "b"], tmp_path / "a.png")
    two = confusion_plot({"all": np.eye(3), "sure": np.eye(3)}, ["a", "b", "c"], tmp_path / "b.png")
    assert imread(two).shape[1] > 1.9 * imread(one).shape[1]


def test_history_draws_a_panel_a_metric_that_is_there(tmp_path):
    rows = [
        {"epoch": "1", "train_loss": "0.9", "val_loss": "", "val_auc": "0.7"},
        {"epoch": "2", "train_loss": "0.5", "val_loss": "0.6", "val_auc": "nan"},
    ]
    assert imread(classification_history_plot(rows, tmp_path / "a.png")).shape[1] == 2 * 555
    assert classification_history_plot([], tmp_path / "b.png").is_file()
    assert classification_history_plot([{"train_loss": 1.0}], tmp_path / "c.png").is_file()


def test_films_of_any_size_and_spacing_are_drawn_in_rows_of_four(tmp_path):
    shapes = [(20, 30), (900, 20), (8, 8), (10, 10), (5, 7)]
    films = [Thumbnail(np.zeros(shape), "caption", (1.0, 0.5)) for shape in shapes]
    few, many = film_grid(films[:4], tmp_path / "a.png"), film_grid(films, tmp_path / "b.png")
    assert imread(many).shape[0] == 2 * imread(few).shape[0]


def test_figures_stay_out_of_pyplots_list(tmp_path):
    confusion_plot({"all": np.eye(2)}, ["a", "b"], tmp_path / "a.png")
    assert pyplot.get_fignums() == []
