import json

import phantoms
import pytest
from cross_validations import train_nothing, write_recipe
from typer.testing import CliRunner

from medimg3d.cli.main import app
from medimg3d.errors import UsageError
from medimg3d.workflows import cross_validate as module

runner = CliRunner()


def test_fold_all_trains_predicts_and_scores_every_fold_and_goes_on_without_resume(tmp_path, monkeypatch):
    asked = []

    def training(bundle, *, fold, **options):
        asked.append((fold, options["epochs"], options["start_from"]))
        return train_nothing(bundle, fold=fold, **options)

    monkeypatch.setattr(module, "train", training)
    study = phantoms.write_specked_study(tmp_path / "study", num_cases=4)
    recipe = write_recipe(tmp_path / "recipe")
    command = ["train", str(recipe), "--datalist", str(study), "--fold", "all", "--epochs", "2", "--json"]
    command += ["--out", str(tmp_path / "cv")]
    for _ in range(2):
        done = runner.invoke(app, command)
        assert done.exit_code == 0, done.output
        assert json.loads(done.stdout)["pooled"]["num_scored"] == 4
    assert asked == [(0, 2, None), (1, 2, None)]
    assert (tmp_path / "cv" / "fold_1" / "held_out" / "summary.json").is_file()
    assert runner.invoke(app, [*command, "--softmax"]).exit_code == 0
    assert len(list((tmp_path / "cv").glob("fold_*/held_out/softmax/*.npz"))) == 4
    assert len(asked) == 2, "the probabilities alone were missing"


def test_probabilities_are_kept_of_all_folds_or_none(tmp_path):
    recipe = write_recipe(tmp_path / "recipe")
    done = runner.invoke(
        app, ["train", str(recipe), "--fold", "0", "--softmax", "--out", str(tmp_path / "run")]
    )
    assert isinstance(done.exception, UsageError)
    assert "expected --fold all" in str(done.exception)


@pytest.mark.parametrize("command", [("train", "--fold", "all"), ("cross-validate",)], ids=lambda c: c[0])
def test_all_folds_of_the_datalist_are_run_whatever_the_recipe_has(command, tmp_path, monkeypatch):
    def training(bundle, *, out, **options):
        result = train_nothing(bundle, out=out, **options)
        (out / "configs" / "train.json").write_text(json.dumps({"num_folds": 3, "fold_seed": 0}))
        return result

    monkeypatch.setattr(module, "train", training)
    study = phantoms.write_specked_study(tmp_path / "study", num_cases=3, num_folds=3)
    study.write_text(json.dumps(json.loads(study.read_text()) | {"split": {"num_folds": 3}}))
    recipe = write_recipe(tmp_path / "recipe")
    name, *options = command
    asked = [name, str(recipe), "--datalist", str(study), "--out", str(tmp_path / "cv"), *options, "--json"]
    done = runner.invoke(app, asked)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert (list(found["folds"]), found["pooled"]["num_scored"]) == (list("012"), 3)


def test_a_missing_fold_is_refused_before_any_training(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "train", train_nothing)
    study = phantoms.write_specked_study(tmp_path / "study", num_cases=4)
    recipe = write_recipe(tmp_path / "recipe")
    asked = ["cross-validate", str(recipe), "--datalist", str(study), "--out", str(tmp_path / "cv")]
    done = runner.invoke(app, [*asked, "--folds", "0,1,2"])
    assert isinstance(done.exception, UsageError)
    assert str(done.exception).startswith("datalist.json has no case in fold 2; expected folds among 0, 1. ")
    assert not (tmp_path / "cv" / "fold_0").exists()


def test_a_script_for_slurm_has_a_task_for_each_fold_with_cases(tmp_path):
    study = phantoms.write_specked_study(tmp_path / "study", num_cases=3, num_folds=3)
    study.write_text(json.dumps(json.loads(study.read_text()) | {"split": {"num_folds": 5}}))
    recipe = write_recipe(tmp_path / "recipe")
    asked = ["train", str(recipe), "--datalist", str(study), "--fold", "all", "--out", str(tmp_path / "runs")]
    done = runner.invoke(app, [*asked, "--slurm", str(tmp_path / "train.sbatch"), "--json"])
    assert done.exit_code == 0, done.output
    names = [path.rsplit("/", 1)[1] for path in json.loads(done.stdout)["folders"]]
    assert names == ["fold_0_seed_0", "fold_1_seed_0", "fold_2_seed_0"]


@pytest.mark.parametrize("more", [[], ["--slurm"]])
def test_a_fold_without_a_case_is_refused_before_anything_is_written(tmp_path, more):
    study = phantoms.write_specked_study(tmp_path / "study", num_cases=4)
    recipe = write_recipe(tmp_path / "recipe")
    asked = ["train", str(recipe), "--datalist", str(study), "--fold", "9", "--out", str(tmp_path / "run")]
    done = runner.invoke(
        app, [*asked, *(word for name in more for word in (name, str(tmp_path / "train.sbatch")))]
    )
    assert isinstance(done.exception, UsageError)
    assert str(done.exception) == "--fold is 9, and no case is in it; expected one of 0, 1, 'all' or 'none'."
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "train.sbatch").exists()


@pytest.mark.parametrize("option", ["nodes", "gpus", "cpus", "hours"])
def test_what_slurm_alone_understands_is_refused_without_it(tmp_path, option):
    recipe = write_recipe(tmp_path / "recipe")
    asked = ["train", str(recipe), "--datalist", "x.json", "--out", str(tmp_path / "run")]
    done = runner.invoke(app, [*asked, f"--{option}", "1"])
    assert str(done.exception) == f"--{option} is for --slurm; leave it away, or give --slurm FILE."


def test_a_script_for_slurm_names_the_cases_that_were_left_out(bundle_root, tmp_path):
    defects = phantoms.write_defects(tmp_path / "defects")
    asked = [
        "train",
        str(bundle_root),
        "--datalist",
        str(defects),
        "--fold",
        "0",
        "--out",
        str(tmp_path / "runs"),
    ]
    asked += ["--slurm", str(tmp_path / "train.sbatch"), "--drop-rejected", "--json"]
    done = runner.invoke(app, asked)
    assert done.exit_code == 3, done.output
    assert "unreadable" in json.loads(done.stdout)["rejected"]
    assert (tmp_path / "train.sbatch").is_file()


def test_all_folds_of_a_classifier_go_on_without_resume(bundle_root, tmp_path, monkeypatch):
    def training(bundle, *, resume, **options):
        asked.append(resume)
        raise UsageError("enough")

    asked: list[bool] = []
    monkeypatch.setattr("medimg3d.workflows.train.train", training)
    films = phantoms.write_films(tmp_path / "films", num_films=12)
    command = [
        "train",
        str(bundle_root.with_name("xray_pneumonia_densenet")),
        "--datalist",
        str(films / "dataset.json"),
        "--out",
        str(tmp_path / "cv"),
    ]
    assert str(runner.invoke(app, [*command, "--fold", "all"]).exception) == "enough"
    assert str(runner.invoke(app, [*command, "--fold", "0"]).exception) == "enough"
    assert asked == [True, False]
    done = runner.invoke(app, [*command, "--fold", "all", "--softmax"])
    assert (
        str(done.exception)
        == "--softmax is for bundles of label maps, and this one classifies; leave it away."
    )
