"""Experiments from a file to the comparison: thresholds stand in for networks, whose "training" moves one of them."""

from __future__ import annotations

import csv
import json
import sys
from importlib.util import find_spec

import phantoms
import pytest
import torch
import yaml
from cross_validations import train_nothing, write_recipe
from typer.testing import CliRunner

from medimg3d.cli.main import app
from medimg3d.errors import DataError, UsageError
from medimg3d.workflows import cross_validate as module
from medimg3d.workflows.experiments import run_experiments

runner = CliRunner()
FILES = ("experiments.json", "experiments.md", "experiments.csv", "experiments.html")


@pytest.fixture
def trained(monkeypatch):
    """Trainings that were run; one with ``shift`` "broken" fails."""
    seen = []

    def training(bundle, *, out, fold, seed, overrides, datalist, **options):
        shift = overrides.get("shift", 0)
        seen.append((out.parent.name, fold, seed))
        if shift == "broken":
            raise DataError("this recipe cannot be trained")
        done = train_nothing(bundle, out=out, fold=fold, datalist=datalist)
        recipe = out / "configs" / "train.json"
        recipe.write_text(json.dumps(json.loads(recipe.read_text()) | {"shift": shift}))
        state = torch.load(out / "models" / "model.pt", weights_only=True)
        state["bias"] = state["bias"] - torch.tensor([0.0, -float(fold), float(shift) + (seed or 0)])
        torch.save(state, out / "models" / "model.pt")
        return done

    monkeypatch.setattr(module, "train", training)
    return seen


def write(folder, experiments, *, num_cases=4, **more):
    """A file of experiments with its data and its recipe."""
    if not (folder / "study").is_dir():
        phantoms.write_specked_study(folder / "study", num_cases=num_cases)
        recipe = write_recipe(folder / "recipe")
        content = json.loads((recipe / "configs" / "train.json").read_text())
        (recipe / "configs" / "train.json").write_text(json.dumps(content | {"shift": 0}))
    content = {"datalist": "study/datalist.json", "bundle": "recipe", **more, "experiments": experiments}
    file = folder / "mine.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    return file


PLAIN, MOVED, BROKEN = (
    {"name": "plain"},
    {"name": "moved", "set": {"shift": 60}},
    {"name": "broken", "set": {"shift": "broken"}},
)


def test_each_experiment_is_cross_validated_and_compared_with_the_first(tmp_path, trained):
    file = write(tmp_path, [PLAIN, {"name": "same"}, MOVED])
    result = run_experiments(file, tmp_path / "out")
    assert trained == [(name, fold, None) for name in ("plain", "same", "moved") for fold in (0, 1)]
    entries = result.summary["experiments"]
    pooled = json.loads((tmp_path / "out" / "plain" / "cross_validation" / "summary.json").read_text())
    assert entries["plain"]["dice"]["grey"]["mean"] == pytest.approx(
        pooled["metrics"]["dice"]["grey"]["mean"], abs=1e-5
    )
    assert entries["plain"]["difference"] is None
    assert entries["same"]["difference"]["mean"]["mean"] == 0
    gap = entries["moved"]["dice"]["mean"]["mean"] - entries["plain"]["dice"]["mean"]["mean"]
    assert entries["moved"]["dice"]["white"]["mean"] == 0  # 200 is now grey
    assert gap < -0.3
    assert entries["moved"]["difference"]["mean"]["mean"] == pytest.approx(gap)
    assert all((tmp_path / "out" / name).is_file() for name in FILES)
    with open(tmp_path / "out" / "experiments.csv", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [(row["experiment"], row["structure"]) for row in rows[:3]] == [
        ("plain", "mean"),
        ("plain", "grey"),
        ("plain", "white"),
    ]
    page = (tmp_path / "out" / "experiments.html").read_text()
    assert "The best of many experiments flatters" in page
    assert "recipe, shift = 60" in page


def test_again_it_trains_nothing_and_what_was_added_alone(tmp_path, trained):
    run_experiments(write(tmp_path, [PLAIN]), tmp_path / "out")
    table = (tmp_path / "out" / "experiments.md").read_text()
    del trained[:]
    run_experiments(tmp_path / "mine.yaml", tmp_path / "out")
    assert trained == []
    assert (tmp_path / "out" / "experiments.md").read_text() == table
    run_experiments(write(tmp_path, [PLAIN, MOVED]), tmp_path / "out")
    assert {name for name, _, _ in trained} == {"moved"}


def test_other_settings_into_the_same_folder_are_refused_before_anything_runs(tmp_path, trained):
    run_experiments(write(tmp_path, [MOVED], folds=[0]), tmp_path / "out")
    del trained[:]
    other = {"name": "moved", "set": {"shift": 40}}
    with pytest.raises(UsageError, match=r"^Experiment moved: .* was begun with another training"):
        run_experiments(write(tmp_path, [PLAIN, other], folds=[0]), tmp_path / "out")
    assert trained == []


def test_seeds_have_folders_of_their_own_and_their_spread_is_told(tmp_path, trained):
    result = run_experiments(write(tmp_path, [PLAIN, MOVED], seeds=[0, 60]), tmp_path / "out")
    assert (tmp_path / "out" / "plain" / "seed_60" / "fold_1" / "held_out" / "summary.json").is_file()
    plain = result.summary["experiments"]["plain"]
    assert plain["dice"]["mean"]["mean"] == pytest.approx(sum(plain["by_seed"].values()) / 2)
    assert plain["by_seed"]["0"] != plain["by_seed"]["60"]
    assert "Seeds: lowest to highest" in (tmp_path / "out" / "experiments.html").read_text()


def test_a_failed_experiment_is_named_and_the_others_go_on(tmp_path, trained):
    file = write(tmp_path, [PLAIN, BROKEN, MOVED], folds=[0, 1])
    done = runner.invoke(app, ["experiments", str(file), "--out", str(tmp_path / "out"), "--json"])
    assert done.exit_code == 3, done.output
    found = json.loads(done.stdout)
    reason = "this recipe cannot be trained"
    assert found["failed"] == {"broken/fold_0": reason, "broken/fold_1": reason}
    assert found["experiments"]["broken"]["dice"] is None
    assert found["experiments"]["moved"]["dice"] is not None
    assert "Not finished: broken." in (tmp_path / "out" / "experiments.html").read_text()


def test_nothing_done_is_failed(tmp_path, trained):
    file = write(tmp_path, [BROKEN], folds=[0])
    done = runner.invoke(app, ["experiments", str(file), "--out", str(tmp_path / "out")])
    assert done.exit_code == 1, done.output
    assert "broken/fold_0: this recipe cannot be trained" in done.stderr


def test_a_mistake_in_the_file_is_bad_usage(tmp_path, capsys):
    from medimg3d.cli.main import run

    file = write(tmp_path, [PLAIN, {"name": "plain"}])
    with pytest.raises(SystemExit) as ended:
        run(["experiments", str(file), "--out", str(tmp_path / "out")])
    assert ended.value.code == 2
    assert "Two experiments are called plain" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


def test_with_a_cluster_and_nothing_left_to_do_only_the_report_is_written_anew(
    tmp_path, trained, monkeypatch
):
    from medimg3d.workflows import experiments as own

    file = write(tmp_path, [PLAIN, MOVED])
    before = run_experiments(file, tmp_path / "out")
    monkeypatch.setattr(own, "ray_jobs", pytest.fail)
    after = run_experiments(file, tmp_path / "out", cluster=object())
    assert after.summary == before.summary


@pytest.mark.slow
@pytest.mark.skipif(find_spec("ray") is None, reason='Ray is not installed: pip install "medimg3d[ray]"')
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # Ray's sockets and processes
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_folds_of_all_experiments_are_jobs_of_one_queue(bundle_root, tmp_path):
    phantoms.write_decathlon(tmp_path / "study", num_cases=10)
    small = {"iterations_per_epoch": 1, "batch_size": 1, "patch_size": [16, 24, 16]}
    experiments = [
        {"name": "good", "set": small},
        {"name": "bad", "set": small | {"patch_size": "wide"}},
    ]
    content = {
        "dataset_dir": "study",
        "bundle": str(bundle_root),
        "epochs": 1,
        "folds": [0],
        "experiments": experiments,
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content))
    out = tmp_path / "out"
    options = ["--ray", "local", "--job-cpus", "1", "--job-gpus", "0", "--workers", "0", "--json"]
    done = runner.invoke(app, ["experiments", str(tmp_path / "mine.yaml"), "--out", str(out), *options])
    assert done.exit_code == 3, done.output
    found = json.loads(done.stdout)
    assert list(found["failed"]) == ["bad/fold_0"]
    assert found["experiments"]["good"]["num_cases"] == 2
    assert found["experiments"]["good"]["training_s"] > 0
    assert (out / "jobs" / "good_fold_0.log").is_file()
    assert (out / "good" / "fold_0" / "held_out" / "summary.json").is_file()
