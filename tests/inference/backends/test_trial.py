import json

import pytest
import torch
from tiny_networks import Scaled

from medimg3d.errors import UsageError
from medimg3d.inference.backends import trial
from medimg3d.inference.backends.backend import Backend
from medimg3d.inference.backends.kinds import BackendError
from medimg3d.inference.backends.trial import choose_backend, remembered_choice

WANTED = {"window_shape": (4, 4), "batch": 2, "weights_sha256": "e" * 64}
REAL_PROBLEM = trial.problem


class Bench:
    """Backends that take given seconds of a clock that only they move; notes what is made, run and closed."""

    def __init__(self, monkeypatch, seconds, *, wrong=(), broken=()):
        self.seconds, self.wrong, self.broken = seconds, wrong, broken
        self.now = 0.0
        self.made, self.runs, self.closed = [], [], []
        monkeypatch.setattr(trial, "build", self.build)
        monkeypatch.setattr(trial, "problem", lambda name, device: None)

    def clock(self):
        return self.now

    def build(self, name, network, windows, **given):
        if name in self.broken:
            raise BackendError(f"{name} is broken")
        self.made.append(name)

        def run(batch):
            self.runs.append(name)
            self.now += self.seconds[name]
            return network(batch) * (1.01 if name in self.wrong else 1)

        backend = Backend(name, run, windows=windows)
        backend.close = lambda: self.closed.append(name)
        return backend

    def choose(self, candidates, cache, **given):
        return choose_backend(candidates, Scaled(), cache_dir=cache, clock=self.clock, **WANTED, **given)


def test_the_fastest_is_chosen_and_its_seconds_are_of_one_window(monkeypatch, tmp_path):
    bench = Bench(monkeypatch, {"torch": 3.0, "openvino-f32": 2.0, "onnxruntime": 2.5})
    choice = bench.choose(["torch", "openvino-f32", "onnxruntime"], tmp_path)
    assert choice.name == "openvino-f32"
    assert choice.seconds == {"torch": 1.5, "openvino-f32": 1.0, "onnxruntime": 1.25}
    assert not choice.remembered
    assert sorted(bench.closed) == ["onnxruntime", "openvino-f32", "torch"]


def test_contenders_run_in_turn_three_times_and_the_slow_are_closed_after_once(monkeypatch, tmp_path):
    bench = Bench(monkeypatch, {"torch": 30.0, "openvino-f32": 2.0, "onnxruntime": 3.0})
    bench.choose(["torch", "openvino-f32", "onnxruntime"], tmp_path, budget_s=100)
    timed = bench.runs[bench.runs.index("openvino-f32") :]
    # torch: once (its warm-up is the reference); the others: held against torch, timed, then twice in turn.
    assert bench.runs.count("torch") == 1
    assert timed == ["openvino-f32"] * 2 + ["onnxruntime"] * 2 + ["openvino-f32", "onnxruntime"] * 2
    assert bench.closed[0] == "torch"


def test_the_best_of_several_times_counts(monkeypatch, tmp_path):
    bench = Bench(monkeypatch, {"torch": 3.0, "openvino-f32": 4.0})
    slow_start = bench.build

    def faster_later(name, network, windows, **given):
        backend = slow_start(name, network, windows, **given)
        inner = backend._run

        def run(batch):
            if name == "openvino-f32" and bench.runs.count(name) == 2:
                bench.seconds[name] = 1.0
            return inner(batch)

        backend._run = run
        return backend

    monkeypatch.setattr(trial, "build", faster_later)
    choice = bench.choose(["torch", "openvino-f32"], tmp_path)
    assert choice.name == "openvino-f32"
    assert choice.seconds["openvino-f32"] == 0.5


def test_a_backend_that_contradicts_torch_is_passed_over_however_fast(monkeypatch, tmp_path):
    bench = Bench(monkeypatch, {"torch": 3.0, "openvino-f32": 0.1}, wrong=["openvino-f32"])
    choice = bench.choose(["openvino-f32", "torch"], tmp_path)
    assert choice.name == "torch"
    assert "openvino-f32 differs from torch by 0.01" in choice.passed_over["openvino-f32"]
    assert "openvino-f32" in bench.closed


def test_a_broken_backend_is_passed_over_with_its_reason(monkeypatch, tmp_path):
    bench = Bench(monkeypatch, {"torch": 3.0}, broken=["openvino-f32"])
    choice = bench.choose(["openvino-f32", "torch"], tmp_path)
    assert choice.name == "torch"
    assert choice.passed_over == {"openvino-f32": "openvino-f32 is broken"}


def test_if_none_can_run_the_reasons_are_given(monkeypatch, tmp_path):
    bench = Bench(monkeypatch, {}, broken=["openvino-f32", "torch"])
    with pytest.raises(
        BackendError, match=r"No backend can run .* openvino-f32: openvino-f32 is broken; torch:"
    ):
        bench.choose(["openvino-f32", "torch"], tmp_path)
    assert not (tmp_path / "choices").exists()


def test_reduced_precision_is_tried_only_where_it_is_allowed(monkeypatch, tmp_path):
    bench = Bench(monkeypatch, {"torch": 3.0, "openvino-bf16": 1.0})
    names = ["openvino-bf16", "torch"]
    plain = bench.choose(names, tmp_path)
    assert plain.name == "torch"
    assert "not asked for" in plain.passed_over["openvino-bf16"]
    assert bench.choose(names, tmp_path, allow_reduced=True).name == "openvino-bf16"


def test_once_the_budget_is_spent_nothing_more_is_tried(monkeypatch, tmp_path):
    bench = Bench(monkeypatch, {"torch": 30.0, "openvino-f32": 4.0, "onnxruntime": 1.0})
    choice = bench.choose(["openvino-f32", "torch", "onnxruntime"], tmp_path, budget_s=30)
    assert choice.name == "openvino-f32"
    assert choice.passed_over == {"onnxruntime": "not tried: the trial's 30 s were over"}
    assert bench.runs == ["openvino-f32", "openvino-f32", "torch"]


def test_a_choice_is_remembered_and_no_second_trial_is_made(monkeypatch, tmp_path):
    bench = Bench(monkeypatch, {"torch": 3.0, "openvino-f32": 2.0})
    names = ["torch", "openvino-f32"]
    assert remembered_choice(names, cache_dir=tmp_path, **WANTED) is None
    first = bench.choose(names, tmp_path)
    second = bench.choose(names, tmp_path)
    assert len(bench.made) == 2
    assert second.remembered
    assert (second.name, second.seconds, second.machine) == (first.name, first.seconds, first.machine)
    assert remembered_choice(names, cache_dir=tmp_path, **WANTED) == second
    assert "threads" in second.machine
    bench.choose(names, tmp_path, again=True)
    assert len(bench.made) == 4


@pytest.mark.parametrize(
    "other",
    [
        {"weights_sha256": "f" * 64},
        {"window_shape": (4, 8)},
        {"batch": 1},
        {"in_channels": 2},
        {"allow_reduced": True},
        {"candidates": ["torch"]},
    ],
)
def test_a_choice_is_remembered_for_the_same_question_only(monkeypatch, tmp_path, other):
    bench = Bench(monkeypatch, {"torch": 3.0, "openvino-f32": 2.0})
    names = ["torch", "openvino-f32"]
    bench.choose(names, tmp_path)
    asked = {"candidates": names, **WANTED, **other}
    assert remembered_choice(cache_dir=tmp_path, **asked) is None


def test_a_choice_is_forgotten_on_another_machine_with_other_threads_and_other_packages(
    monkeypatch, tmp_path
):
    bench = Bench(monkeypatch, {"torch": 3.0, "openvino-f32": 2.0})
    names = ["torch", "openvino-f32"]
    bench.choose(names, tmp_path)
    changes = [
        ("machine_name", lambda device: "another processor, 64 cores"),
        ("versions", lambda packages: {"torch": "99.0"}),
        ("problem", lambda name, device: BackendError("gone") if name == "openvino-f32" else None),
    ]
    for name, changed in changes:
        with monkeypatch.context() as patch:
            patch.setattr(trial, name, changed)
            assert remembered_choice(names, cache_dir=tmp_path, **WANTED) is None
    with monkeypatch.context() as patch:
        patch.setattr(torch, "get_num_threads", lambda: 77)
        assert remembered_choice(names, cache_dir=tmp_path, **WANTED) is None
    assert remembered_choice(names, cache_dir=tmp_path, **WANTED).name == "openvino-f32"


def test_a_damaged_choice_is_made_anew(monkeypatch, tmp_path):
    bench = Bench(monkeypatch, {"torch": 3.0, "openvino-f32": 2.0})
    names = ["torch", "openvino-f32"]
    bench.choose(names, tmp_path)
    (path,) = (tmp_path / "choices").iterdir()
    assert json.loads(path.read_text())["name"] == "openvino-f32"
    path.write_text("{")
    assert not bench.choose(names, tmp_path).remembered
    assert remembered_choice(names, cache_dir=tmp_path, **WANTED).name == "openvino-f32"


def test_the_caller_hears_of_every_backend_that_is_tried(monkeypatch, tmp_path):
    bench = Bench(monkeypatch, {"torch": 3.0, "openvino-f32": 2.0})
    heard = []
    bench.choose(["torch", "openvino-f32", "openvino-bf16"], tmp_path, on_trial=heard.append)
    assert heard == ["torch", "openvino-f32"]


def test_an_unknown_candidate_is_a_usage_error(monkeypatch, tmp_path):
    with pytest.raises(UsageError, match="Unknown backend 'fastest'"):
        choose_backend(["fastest"], Scaled(), cache_dir=tmp_path, **WANTED)


def test_a_trial_of_real_backends_takes_one_and_remembers_it(tmp_path):
    choice = choose_backend(None, Scaled(), cache_dir=tmp_path, **WANTED)
    available = {name for name in trial.usual_candidates("cpu") if REAL_PROBLEM(name) is None}
    assert set(choice.seconds) == available
    assert choice.name in available
    assert set(choice.seconds) | set(choice.passed_over) == set(trial.usual_candidates("cpu"))
    assert remembered_choice(cache_dir=tmp_path, **WANTED).name == choice.name
