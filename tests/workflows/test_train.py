"""Training through the overlay: the recipe's result, resumed to the bit, on two ranks."""

import json
import os
import subprocess
import sys
import textwrap

import phantoms
import pytest
import torch
from stock_monai import monai_bundle, run

from medimg3d.errors import BundleError, UsageError

RECIPE = {
    "iterations_per_epoch": 2,
    "batch_size": 2,
    "val_interval": 1,
    "num_workers": 2,
    "patch_size": [16, 24, 16],
}

# Trains a copy; the first argument is a JSON of what train() takes, the second says where to die.
SCRIPT = """
import json, os, signal, sys
from pathlib import Path
import torch
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from medimg3d.workflows.train import train

arguments, die_in = json.loads(sys.argv[1]), sys.argv[2]

def die():
    os.kill(os.getpid(), signal.SIGKILL)

trainers = []

def second_epoch(engine):
    if isinstance(engine, SupervisedTrainer):
        trainers[:] = [engine]
        # in the second iteration, when the first has changed the weights
        return engine.state.epoch == 2 and engine.state.iteration % engine.state.epoch_length == 0
    return trainers[0].state.epoch == 2

def killing(method, name):
    def wrapped(self, engine, batch):
        if second_epoch(engine) and die_in == name:
            die()
        return method(self, engine, batch)
    return wrapped

for engine, name in ((SupervisedTrainer, "training"), (SupervisedEvaluator, "validation")):
    engine._iteration = killing(engine._iteration, name)

save = torch.save
def save_half(thing, path, *rest, **more):
    save(thing, path, *rest, **more)
    if die_in == "checkpoint" and isinstance(thing, dict) and thing.get("epoch") == 2:
        with open(path, "rb+") as handle:
            handle.truncate(os.path.getsize(path) // 2)
        die()
torch.save = save_half
for key in ("bundle", "out", "dataset_dir"):
    arguments[key] = Path(arguments[key])
train(**arguments)
"""


def test_a_run_shorter_than_its_interval_is_watched_once_at_its_end(bundle_root, tmp_path):
    from medimg3d.workflows.train import train

    study = phantoms.write_decathlon(tmp_path / "study", num_cases=5)
    recipe = {name: value for name, value in RECIPE.items() if name != "val_interval"} | {"num_workers": 0}
    result = train(
        bundle_root,
        out=tmp_path / "out",
        dataset_dir=study,
        epochs=2,
        overrides=recipe,
        progress=False,
        check=None,
    )
    assert ["val_mean_dice" in row for row in result.history] == [False, True]
    assert json.loads((result.bundle / "configs" / "train.json").read_text())["val_interval"] == 2


def train_in_process(die_in="", **arguments) -> int:
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-c",
        textwrap.dedent(SCRIPT),
        json.dumps(arguments, default=str),
        die_in,
    ]
    done = subprocess.run(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode in (0, -9), done.stderr[-3000:]
    return done.returncode


@pytest.fixture(scope="module")
def decathlon(tmp_path_factory):
    return phantoms.write_decathlon(tmp_path_factory.mktemp("phantoms"), num_cases=5)


@pytest.fixture(scope="module")
def arguments(bundle_root, decathlon):
    return {
        "bundle": bundle_root,
        "dataset_dir": decathlon,
        "epochs": 3,
        "precision": "float32",
        "overrides": RECIPE,
        "progress": False,
    }


@pytest.fixture(scope="module")
def uninterrupted(arguments, tmp_path_factory):
    out = tmp_path_factory.mktemp("uninterrupted") / "run"
    assert train_in_process(out=out, **arguments) == 0
    return out


def assert_same(one, other, where="checkpoint"):
    assert type(one) is type(other), where
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_same(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), where
        for n, (left, right) in enumerate(zip(one, other, strict=True)):
            assert_same(left, right, f"{where}[{n}]")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, float):
        assert one == other or (one != one and other != other), where
    else:
        assert one == other, where


@pytest.mark.slow
@pytest.mark.parametrize("die_in", ["training", "validation", "checkpoint"])
def test_a_killed_run_resumes_to_the_same_bits(die_in, arguments, uninterrupted, tmp_path):
    out = tmp_path / "run"
    assert train_in_process(die_in, out=out, **arguments) == -9
    state = torch.load(out / "training" / "checkpoint.pt", weights_only=True)
    assert state["epoch"] == 1  # the second epoch was not whole
    assert train_in_process(out=out, resume=True, **arguments) == 0
    for name in ("training/checkpoint.pt", "models/model.pt"):
        expected = torch.load(uninterrupted / name, weights_only=True)
        assert_same(torch.load(out / name, weights_only=True), expected, name)
    history = "training/history.csv"
    assert (out / history).read_bytes() == (uninterrupted / history).read_bytes()


@pytest.mark.slow
def test_the_overlay_gives_the_same_weights_as_stock_monai(arguments, uninterrupted, tmp_path):
    bundle = uninterrupted  # its train.json is the whole recipe: epochs, seed and overrides are written there
    monai_bundle(
        "run",
        cwd=tmp_path,
        config_file=bundle / "configs" / "train.json",
        bundle_root=bundle,
        dataset_dir=arguments["dataset_dir"],
        output_dir=tmp_path / "stock",
        num_workers=0,
    )
    stock = torch.load(tmp_path / "stock" / "models" / "model.pt", weights_only=True)
    assert_same(torch.load(bundle / "models" / "model.pt", weights_only=True), stock)


@pytest.mark.slow
@pytest.mark.parametrize(("accumulation_steps", "num_steps"), [(1, 4), (2, 2)])
def test_two_processes_end_with_equal_weights(bundle_root, tmp_path, accumulation_steps, num_steps):
    """Two epochs of four batches, two for each rank: a step a batch, or a step after two."""
    decathlon = phantoms.write_decathlon(tmp_path / "data", num_cases=10)  # a fold of two: one a rank
    configs = bundle_root / "configs"
    save = (
        "$torch.save(@network.module.state_dict(), os.path.join(@output_dir, 'rank_' + str(@rank) + '.pt'))"
    )
    save_optimizer = "$torch.save(@train#optimizer.state_dict(), os.path.join(@output_dir, 'optimizer.pt'))"
    values = {
        "config_file": f"['{configs / 'train.json'}','{configs / 'multi_gpu_train.json'}']",
        "bundle_root": bundle_root,
        "dataset_dir": decathlon,
        "output_dir": tmp_path,
        "iterations_per_epoch": 4,
        "batch_size": 1,
        "val_interval": 2,
        "num_workers": 0,
        "patch_size": "[16,24,16]",
        "train#trainer#max_epochs": 2,
        "train#trainer#accumulation_steps": accumulation_steps,
        "finalize": json.dumps([save, save_optimizer, "$torch.distributed.destroy_process_group()"]),
    }
    options = [str(part) for name, value in values.items() for part in (f"--{name}", value)]
    launcher = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nnodes=1",
        "--nproc_per_node=2",
    ]
    run([*launcher, "-m", "monai.bundle", "run", *options], cwd=tmp_path)
    ranks = [torch.load(tmp_path / f"rank_{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert_same(ranks[0], ranks[1])
    optimizer = torch.load(tmp_path / "optimizer.pt", weights_only=True)
    assert {float(state["step"]) for state in optimizer["state"].values()} == {num_steps}
    assert (tmp_path / "models" / "model.pt").is_file()


def test_resuming_with_another_length_is_refused(arguments, uninterrupted):
    from medimg3d.workflows.train import train

    with pytest.raises(BundleError, match="begun with epochs 3, not 4"):
        train(**(arguments | {"out": uninterrupted, "resume": True, "epochs": 4}))


def test_training_over_a_training_is_refused(arguments, uninterrupted):
    from medimg3d.workflows.train import train

    with pytest.raises(UsageError, match="holds a training already"):
        train(**(arguments | {"out": uninterrupted}))


def test_training_into_the_bundle_itself_is_refused(arguments, tmp_path):
    import shutil

    from medimg3d.workflows.train import train

    bundle = tmp_path / "bundle"
    shutil.copytree(arguments["bundle"], bundle, ignore=shutil.ignore_patterns("models", "__pycache__"))
    with pytest.raises(UsageError, match="--out is the bundle itself"):
        train(**(arguments | {"bundle": bundle, "out": bundle}))


def test_other_classes_reach_every_config_and_the_metadata(bundle_root, tmp_path):
    from medimg3d.bundle.folder import BundleFolder, copy_bundle, rename_classes

    copy = rename_classes(
        copy_bundle(BundleFolder(bundle_root), tmp_path / "copy"), {0: "background", 1: "tumour"}
    )
    assert copy.class_names == {0: "background", 1: "tumour"}
    for name in ("train", "evaluate", "inference"):
        assert json.loads(copy.config(name).read_text())["num_classes"] == 2


def test_no_datalist_is_one_clear_line(arguments, tmp_path):
    from medimg3d.workflows.train import train

    with pytest.raises(UsageError, match=r"Found no .*dataset\.json; expected a datalist"):
        train(**(arguments | {"dataset_dir": tmp_path, "out": tmp_path / "run"}))


def test_a_misspelt_setting_is_refused_with_the_right_spelling(arguments, tmp_path):
    from medimg3d.workflows.train import train

    with pytest.raises(UsageError, match=r"has no lerning_rate\. Did you mean learning_rate"):
        train(**(arguments | {"out": tmp_path / "run", "overrides": {"lerning_rate": 0.1}}))
    assert not (tmp_path / "run").exists()


def datalist_of(tmp_path, num_cases=5, **top_level):
    root = phantoms.write_decathlon(tmp_path / "data", num_cases=num_cases)
    path = root / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | top_level))
    return path


def prepare(bundle_root, path, out, overrides=None, *, resume=False):
    from medimg3d.bundle.folder import BundleFolder
    from medimg3d.workflows.training_copy import prepare_copy, read_training_list

    return prepare_copy(
        BundleFolder(bundle_root), out, read_training_list(path), overrides or {}, resume=resume
    )


def test_a_setting_inside_a_shared_block_reaches_every_config(bundle_root, tmp_path):
    path = datalist_of(tmp_path)
    wanted = {"preprocessing#transforms#0#_target_": "Other", "learning_rate": 0.5}
    copy = prepare(bundle_root, path, tmp_path / "run", wanted)
    for name in ("train", "evaluate", "inference"):
        config = json.loads(copy.config(name).read_text())
        assert config["preprocessing"]["transforms"][0]["_target_"] == "Other"
        assert config.get("learning_rate") == (0.5 if name == "train" else None)
    with pytest.raises(BundleError, match=r"has no preprocessing#transforms#99#mode"):
        prepare(bundle_root, path, tmp_path / "other", {"preprocessing#transforms#99#mode": "x"})


def test_a_block_that_training_has_for_itself_stays_there(bundle_root, tmp_path):
    from medimg3d.bundle.folder import BundleFolder
    from medimg3d.workflows.training_copy import prepare_copy, read_training_list

    films = BundleFolder(bundle_root.parent / "xray_pneumonia_densenet")
    root = phantoms.write_films(tmp_path / "films", num_films=4, size=16)
    training_list = read_training_list(root / "dataset.json", of_classes=True)
    inference = json.loads(films.config("inference").read_text())["network_def"]
    copy = prepare_copy(
        films, tmp_path / "run", training_list, {"network_def": {"_target_": "Other"}}, resume=False
    )
    assert json.loads(copy.config("train").read_text())["network_def"] == {"_target_": "Other"}
    assert json.loads(copy.config("inference").read_text())["network_def"] == inference


def test_the_copy_names_the_classes_of_its_own_data(bundle_root, tmp_path):
    copy = prepare(bundle_root, datalist_of(tmp_path), tmp_path / "copy")
    assert copy.class_names == {0: "background", 1: "front", 2: "rear"}
    assert "ippocampus" not in copy.metadata["name"] + copy.metadata["label_classes"]
    assert "data_source" not in copy.metadata


def test_the_copy_takes_the_folds_of_the_datalist(bundle_root, tmp_path):
    path = datalist_of(tmp_path, split={"by": "case", "num_folds": 4, "seed": 7})
    copy = prepare(bundle_root, path, tmp_path / "copy")
    for name in ("train", "evaluate"):
        config = json.loads(copy.config(name).read_text())
        assert (config["num_folds"], config["fold_seed"]) == (4, 7)


def test_a_resumed_run_keeps_its_recipe_and_refuses_another(bundle_root, tmp_path):
    path, out = datalist_of(tmp_path), tmp_path / "copy"
    prepare(bundle_root, path, out, {"learning_rate": 0.5})
    (out / "training").mkdir()
    (out / "training" / "checkpoint.pt").touch()
    copy = prepare(bundle_root, path, out, resume=True)
    assert json.loads(copy.config("train").read_text())["learning_rate"] == 0.5
    with pytest.raises(BundleError, match=r"begun with learning_rate 0\.5 and is resumed with 0\.1"):
        prepare(bundle_root, path, out, {"learning_rate": 0.1}, resume=True)


def test_a_resumed_run_refuses_other_cases(bundle_root, tmp_path):
    from medimg3d.workflows.training_copy import read_training_list, record_cases

    path = datalist_of(tmp_path)
    copy = prepare(bundle_root, path, tmp_path / "copy")
    record_cases(copy, read_training_list(path), 0, resumed=False)
    record_cases(copy, read_training_list(path), 0, resumed=True)
    image, _ = phantoms.two_part_phantom(99)
    for name in (tmp_path / "data" / "imagesTr").iterdir():
        phantoms.write_nifti(name, image)
    with pytest.raises(BundleError, match="begun on other cases"):
        record_cases(copy, read_training_list(path), 0, resumed=True)
