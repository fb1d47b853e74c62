from __future__ import annotations

import csv

import torch
from ignite.engine import Engine
from monai.data import MetaTensor

from medimg3d.inference.decision import Decision
from medimg3d.inference.predictions_csv import PredictionsCsv, prediction_row

DECISION = Decision(("normal", "pneumonia"), positive="pneumonia", threshold=0.4, unsure=(0.3, 0.5))


def test_a_row_tells_probability_decision_and_doubt():
    assert prediction_row("a/film.png", "film", [0.55, 0.45], DECISION) == {
        "file": "a/film.png",
        "probability": "0.45",
        "decision": "pneumonia",
        "unsure": "yes",
        "probability_normal": "0.55",
        "probability_pneumonia": "0.45",
        "case": "film",
    }


def test_the_handler_writes_sorted_rows_relative_to_the_input_folder(tmp_path):
    def output(name, score):
        image = MetaTensor(torch.zeros(1, 2, 2), meta={"filename_or_obj": str(tmp_path / "in" / name)})
        return {"image": image, "pred": torch.tensor([0.0, score])}

    engine = Engine(lambda _, batch: batch)
    PredictionsCsv(tmp_path / "out", DECISION, input_dir=tmp_path / "in").attach(engine)
    engine.run([[output("z.png", 3.0)], [output("sub/a.png", -3.0)]])
    with open(tmp_path / "out" / "predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["file"], row["decision"]) for row in rows] == [
        ("sub/a.png", "normal"),
        ("z.png", "pneumonia"),
    ]
    assert list(rows[0])[:4] == ["file", "probability", "decision", "unsure"]


def test_ranks_above_0_write_nothing(tmp_path):
    engine = Engine(lambda _, batch: [])
    PredictionsCsv(tmp_path / "out", DECISION, rank=1).attach(engine)
    engine.run([0])
    assert not (tmp_path / "out").exists()
