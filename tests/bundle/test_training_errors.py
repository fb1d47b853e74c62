"""What a training says when something goes wrong within: one line with the cause, and no traceback."""

from __future__ import annotations

import errno

import phantoms
import pytest
import torch

from medimg3d.bundle.parser import telling_training_errors
from medimg3d.errors import BundleError, DataError
from medimg3d.workflows.train import train


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return phantoms.write_decathlon(tmp_path_factory.mktemp("study"), num_cases=6)


def train_with(bundle_root, study, out, precision="float32", **overrides):
    size = {"patch_size": [16, 24, 16], "batch_size": 2, "iterations_per_epoch": 1}
    train(
        bundle_root,
        out=out,
        dataset_dir=study,
        epochs=1,
        precision=precision,
        num_workers=0,
        overrides=size | overrides,
        progress=False,
        check=None,
    )


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            {"patch_size": [20, 22, 18]},
            r"train\.json cannot be run \(RuntimeError: .*sizes? of tensor.*--debug",
        ),
        ({"learning_rate": "abc"}, r"train\.json cannot be run \(TypeError: .*Check what --set"),
        ({"train#optimizer#foo": 3}, r"unexpected keyword argument 'foo'\)\. Check what --set"),
        ({"learning_rate": 1e30, "iterations_per_epoch": 4}, r"^The training loss became nan in epoch 1"),
    ],
)
def test_an_error_in_a_training_is_told_in_one_line(bundle_root, study, tmp_path, capfd, overrides, said):
    with pytest.raises(BundleError, match=f"(?i){said}") as caught:
        train_with(bundle_root, study, tmp_path / "run", **overrides)
    assert "\n" not in str(caught.value)
    shown = capfd.readouterr()
    assert "Traceback" not in shown.out + shown.err
    assert "terminating due to exception" not in shown.out + shown.err


def test_an_error_in_the_trial_of_precisions_is_told_alike(bundle_root, study, tmp_path):
    with pytest.raises(BundleError, match=r"train\.json cannot be run"):
        train_with(bundle_root, study, tmp_path / "run", precision="auto", batch_size=0)


def wrapped(cause):
    """As MONAI wraps what a config raises."""
    try:
        try:
            raise cause
        except Exception as err:
            raise RuntimeError("Failed to evaluate ConfigExpression") from err
    except RuntimeError as err:
        return err


@pytest.mark.parametrize(
    "cause", [DataError("mend it"), OSError(errno.ENOSPC, "No space left on device", "x")]
)
def test_what_a_person_can_act_on_stays_as_it_was_raised(cause):
    with pytest.raises(type(cause)) as caught, telling_training_errors("train"):
        raise wrapped(cause)
    assert caught.value is cause


@pytest.mark.parametrize(
    "cause",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."
        ),
    ],
)
def test_too_little_memory_is_named_with_its_cure(cause):
    needs_less = pytest.raises(BundleError, match=r"more memory than there is.*--set batch_size=N")
    with needs_less, telling_training_errors("train"):
        raise wrapped(cause)
