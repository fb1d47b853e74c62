import json

import phantoms
from cross_validations import train_nothing, write_recipe
from typer.testing import CliRunner

from medimg3d.cli.main import app
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
