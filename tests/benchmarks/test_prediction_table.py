"""The table of the prediction benchmarks."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def run_all(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    sys.modules.pop("run_all", None)
    import run_all

    return run_all


def folder_line(ratio: float, number: int) -> dict:
    return {
        "benchmark": "prediction_folder", "cases": 50, "images": "hippocampus", "round": number,
        "backend": "torch", "ran": "torch", "against": "stock", "ratio": ratio, "cases_per_s": [1.0, ratio],
        "equal_voxels": 1.0, "peak_memory_gb": [0.7, 0.6],
    }  # fmt: skip


def test_rounds_become_one_row_with_the_middle_ratio_and_the_range(run_all):
    lines = [folder_line(ratio, number) for number, ratio in enumerate((1.4, 0.7, 1.1))]
    (line,) = run_all.one_a_comparison(lines)
    ((what, stock, ours, ratio, *_),) = run_all.rows_of(line)
    assert (what, stock, ours) == ("folder of 50 (hippocampus), torch", "1.00 cases/s", "1.10 cases/s")
    assert ratio == "1.1 × (0.7 to 1.4 in 3 rounds)"


def test_one_round_stays_as_it_is(run_all):
    line = folder_line(1.25, 0)
    assert list(run_all.one_a_comparison([line])) == [line]


def test_lines_of_one_side_are_not_taken_together(run_all):
    lines = [{"benchmark": "prediction_folder", "side": side, "seconds": 1.0} for side in ("stock", "torch")]
    assert list(run_all.one_a_comparison(lines)) == lines
