"""Training that begins with the weights of another bundle."""

import json

import phantoms
import pytest
import torch

from medimg3d.bundle.code_path import bundle_code
from medimg3d.bundle.folder import BundleFolder, copy_bundle, rename_classes
from medimg3d.bundle.parser import parse_config
from medimg3d.bundle.start_weights import StartReport, begin_with, find_start_weights, refuse_other_start
from medimg3d.errors import BundleError, UsageError
from medimg3d.workflows.train import train

RECIPE = {
    "iterations_per_epoch": 1,
    "batch_size": 1,
    "val_interval": 1,
    "num_workers": 0,
    "patch_size": [16, 24, 16],
    "learning_rate": 0.0,
}


@pytest.fixture
def copy(bundle_root, tmp_path):
    return copy_bundle(BundleFolder(bundle_root), tmp_path / "copy")


def built(copy):
    with bundle_code(copy.root):
        return parse_config(copy, ["train"]).get_parsed_content("network").cpu().state_dict()


def test_every_weight_of_the_same_network_is_loaded(copy, bundle_root):
    start = find_start_weights(bundle_root)
    report = begin_with(copy, start)
    assert (report.share, report.left, report.unused) == (1.0, {}, [])
    expected = torch.load(start.file, weights_only=True)
    expected = expected.get("model", expected)
    for name, value in built(copy).items():
        torch.testing.assert_close(value, expected[name].to(value.dtype))
    assert len(start.cases) > 0


def test_other_classes_leave_the_heads_at_random_and_say_so(copy, bundle_root):
    copy = rename_classes(copy, {0: "background", 1: "whole"})
    report = begin_with(copy, find_start_weights(bundle_root))
    assert 0.9 < report.share < 1
    assert all("has shape (3" in why for why in report.left.values())
    assert report.left.keys() >= {"output_block.conv.conv.weight", "output_block.conv.conv.bias"}
    assert report.lines()[0].endswith("% of the network begins with the given weights.")
    assert built(copy)["output_block.conv.conv.bias"].shape == (2,)


def test_weights_of_another_architecture_are_refused(copy, tmp_path):
    torch.save({"layer.weight": torch.zeros(3)}, tmp_path / "other.pt")
    with pytest.raises(BundleError, match=r"other\.pt fits 0% of the network"):
        begin_with(copy, find_start_weights(tmp_path / "other.pt"))


def test_a_resumed_run_keeps_what_it_began_with(copy, bundle_root, tmp_path):
    start = find_start_weights(bundle_root)
    with pytest.raises(BundleError, match="was begun from random weights"):
        refuse_other_start(copy, start)
    begin_with(copy, start)
    refuse_other_start(copy, start)
    refuse_other_start(copy, None)
    torch.save({"layer.weight": torch.zeros(3)}, tmp_path / "other.pt")
    with pytest.raises(BundleError, match=r"not from other\.pt"):
        refuse_other_start(copy, find_start_weights(tmp_path / "other.pt"))


def test_no_weights_are_refused(tmp_path):
    with pytest.raises(UsageError, match="has no weights"):
        find_start_weights(tmp_path)


@pytest.mark.slow
def test_a_training_of_no_step_ends_with_the_weights_it_began_with(bundle_root, tmp_path):
    data = phantoms.write_decathlon(tmp_path / "data", num_cases=5)
    result = train(
        bundle_root,
        out=tmp_path / "run",
        dataset_dir=data,
        epochs=1,
        precision="float32",
        overrides=RECIPE,
        start_from=bundle_root,
        progress=False,
    )
    assert result.training_cases == 4
    trained = torch.load(tmp_path / "run" / "models" / "model.pt", weights_only=True)
    trained = trained.get("model", trained)
    differing = [
        name  # the classes are called otherwise, but are as many
        for name, value in built(BundleFolder(tmp_path / "run")).items()
        if not torch.equal(value, trained[name])
    ]
    assert differing == []
    assert result.start[0] == "100.0% of the network begins with the given weights."
    cases = json.loads((tmp_path / "run" / "models" / "training_cases.json").read_text())["cases"]
    assert {case.get("from") for case in cases} == {None, "mri_hippocampus_unet"}


def test_a_share_is_not_rounded_up_to_all():
    assert StartReport(0.99996, {"head.bias": "not given"}, []).lines()[0].startswith("99.9% ")
    assert StartReport(1.0, {}, []).lines()[0].startswith("100.0% ")
