"""Files of experiments: what they become, and the one line that each mistake gives."""

import json
import re
import shutil

import phantoms
import pytest
import yaml
from cross_validations import write_recipe

from medimg3d.errors import UsageError
from medimg3d.workflows.experiment_grid import read_experiments

RECIPE = {
    "num_folds": 2,
    "fold_seed": 0,
    "learning_rate": 0.002,
    "batch_size": 2,
    "patch_size": [16, 16, 16],
    "train": {"trainer": {"max_epochs": 1}},
    "left": {"steps": 1},
    "right": {"steps": 1},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    phantoms.write_specked_study(folder / "study", num_cases=4)
    recipe = write_recipe(folder / "recipe")
    (recipe / "configs" / "train.json").write_text(json.dumps(RECIPE))
    return folder


def write(folder, text, name="mine.yaml"):
    file = folder / name
    file.write_text(text)
    return file


def grid_of(data, experiments, **more):
    content = {"datalist": "study/datalist.json", "bundle": "recipe", **more, "experiments": experiments}
    return read_experiments(write(data, yaml.safe_dump(content, sort_keys=False)))


def test_paths_are_relative_to_the_file_and_folds_are_those_of_the_recipe(data, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    grid = grid_of(data, [{"name": "a"}])
    assert grid.list_file == (data / "study" / "datalist.json").resolve()
    assert grid.experiments[0].bundle == (data / "recipe").resolve()
    assert (grid.folds, grid.seeds) == ((0, 1), ())


def test_an_experiments_own_values_go_before_the_common_ones(data):
    grid = grid_of(
        data,
        [{"name": "a"}, {"name": "b", "epochs": 3, "set": {"learning_rate": "1e-3"}}],
        epochs=7,
        folds=[1],
        seeds=[4, 2],
    )
    assert [one.epochs for one in grid.experiments] == [7, 3]
    assert grid.experiments[1].values == {"learning_rate": 0.001}  # 1e-3 is text to YAML
    assert (grid.folds, grid.seeds) == ((1,), (4, 2))


def test_a_grid_becomes_the_product_with_names_that_tell_the_values(data):
    entry = {
        "name": "g",
        "set": {"batch_size": 2},
        "grid": {"learning_rate": [0.001, "2e-4"], "patch_size": [[16, 16, 16], [32, 32, 32]]},
    }
    grid = grid_of(data, [entry])
    assert [one.name for one in grid.experiments] == [
        "g-learning_rate=0.001-patch_size=16x16x16",
        "g-learning_rate=0.001-patch_size=32x32x32",
        "g-learning_rate=0.0002-patch_size=16x16x16",
        "g-learning_rate=0.0002-patch_size=32x32x32",
    ]
    assert grid.experiments[3].values == {
        "batch_size": 2,
        "learning_rate": 0.0002,
        "patch_size": [32, 32, 32],
    }


def test_ids_that_end_alike_are_told_apart_by_the_whole_id(data):
    grid = grid_of(data, [{"name": "g", "grid": {"left#steps": [1], "right#steps": [2]}}])
    assert grid.experiments[0].name == "g-left.steps=1-right.steps=2"


def test_the_example_names_settings_that_there_are(bundle_root, tmp_path):
    configs = bundle_root.parents[1] / "configs"
    study = phantoms.write_specked_study(tmp_path / "study", num_cases=5, num_folds=5)
    shutil.copytree(study.parent, tmp_path, dirs_exist_ok=True)
    (tmp_path / "datalist.json").rename(tmp_path / "my_study.json")
    (tmp_path / "configs").mkdir()
    text = (configs / "experiments.yaml").read_text()
    text = text.replace("../bundles/mri_hippocampus_unet", str(bundle_root))
    grid = read_experiments(write(tmp_path / "configs", text))
    assert len(grid.experiments) == 7
    assert grid.experiments[3].name == "rates-learning_rate=0.001-batch_size=2"


@pytest.mark.parametrize(
    ("experiments", "more", "message"),
    [
        (
            [{"name": "a", "epoch": 3}],
            {},
            r"^Experiment 1 of mine.yaml has an unknown key epoch. Did you mean epochs",
        ),
        ([{"name": "a"}], {"seed": [1]}, r"^mine.yaml has an unknown key seed. Did you mean seeds\?"),
        ([{"name": "a"}, {"name": "A"}], {}, r"^Two experiments are called A; expected a name of its own"),
        ([{"name": "a", "bundle": "nowhere"}], {}, r"^Experiment a: Found no bundle at .*nowhere; expected"),
        ([{"name": "a"}], {"folds": [0, 2]}, r"^There is no fold 2 for experiment a; expected 0 to 1"),
        ([{"name": "a"}], {"folds": [0, 0]}, r"^folds of mine.yaml is \[0, 0\]; expected a list of whole"),
        ([{"name": "a", "set": {"rate": 1}}], {}, r"^Experiment a: train.json of recipe has no rate. "),
        ([{"name": "a", "overlay": "none_such"}], {}, r"^Experiment a: .*no configs/none_such.json"),
        ([{"name": "a", "start_from": "study"}], {}, r"^Experiment a: --start-from .*study has no weights"),
        ([{"name": "a", "epochs": 0}], {}, r"^Experiment a: epochs is 0; expected a whole number from 1"),
        ([{"name": "a/b"}], {}, r"^An experiment is called 'a/b', which becomes a folder; expected"),
        ([{"name": "jobs"}], {}, r"^An experiment is called 'jobs'"),
        ([{"bundle": "recipe"}], {}, r"^Experiment 1 of mine.yaml has no name; expected one"),
        (
            [{"name": "a", "grid": {"batch_size": 2}}],
            {},
            r"^Experiment a: grid: batch_size is int; expected a list",
        ),
        (
            [{"name": "a", "set": {"batch_size": 2}, "grid": {"batch_size": [3]}}],
            {},
            r"^Experiment a has batch_size in set and in grid",
        ),
        (
            [{"name": "a", "grid": {"batch_size": list(range(30)), "learning_rate": list(range(30))}}],
            {},
            r"makes 900 experiments; expected at most 500",
        ),
        ([], {}, r"^experiments of mine.yaml is list; expected a list with at least one"),
        (
            [{"name": "a"}],
            {"dataset_dir": "study"},
            r"^mine.yaml needs one of datalist and dataset_dir, found 2",
        ),
    ],
)
def test_a_mistake_is_one_line(data, experiments, more, message):
    with pytest.raises(UsageError, match=message) as raised:
        grid_of(data, experiments, **more)
    assert "\n" not in str(raised.value)


def test_a_classifier_is_refused(data, tmp_path):
    classifier = shutil.copytree(data / "recipe", tmp_path / "classifier")
    file = classifier / "configs" / "metadata.json"
    content = json.loads(file.read_text())
    content["network_data_format"]["outputs"]["pred"]["type"] = "probabilities"
    file.write_text(json.dumps(content))
    with pytest.raises(
        UsageError, match=r"^Experiment a: classifier is a classifier; expected a bundle of label"
    ):
        grid_of(data, [{"name": "a", "bundle": str(classifier)}])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "no valid YAML"),
        ("- a", "holds no experiments"),
        ("folds: [0]\nfolds: [1]\n", "has folds twice in the block of line 1"),
    ],
)
def test_what_is_no_file_of_experiments_is_refused(tmp_path, text, message):
    with pytest.raises(UsageError, match=message):
        read_experiments(write(tmp_path, text))
    missing = tmp_path / "missing.yaml"
    with pytest.raises(UsageError, match=re.escape(f"Found no experiments at {missing}")):
        read_experiments(missing)
