import sys

import numpy as np
import pytest
import torch
from tiny_networks import needs_installed, tiny_unet

from medimg3d.errors import MissingExtraError
from medimg3d.inference.backends.choice import Choice, read_choice, write_choice
from medimg3d.inference.backends.kinds import BackendError
from medimg3d.inference.backends.make import make_backend
from medimg3d.inference.backends.quantize import judge, quantize_if_good

SHA256 = "c" * 64
SHAPE = (16, 16, 16)


def calibration(count=3, seed=0):
    return list(torch.randn((count, 1, *SHAPE), generator=torch.Generator().manual_seed(seed)))


class Scores:
    """Dice by backend, and which were asked for."""

    def __init__(self, before, after):
        self.dice = {"openvino-f32": before, "openvino-int8": after}
        self.asked = []

    def __call__(self, backend):
        self.asked.append(backend.name)
        output = backend(torch.zeros(1, 1, *SHAPE))
        assert output.shape == (1, 3, *SHAPE)
        return self.dice[backend.name]


def quantized(score, cache, windows=None, scored_on="three phantoms", batch=1):
    return quantize_if_good(
        tiny_unet(),
        calibration() if windows is None else windows,
        score,
        scored_on=scored_on,
        window_shape=SHAPE,
        batch=batch,
        weights_sha256=SHA256,
        cache_dir=cache,
    )


def int8(cache):
    return make_backend(
        "openvino-int8", tiny_unet(), window_shape=SHAPE, weights_sha256=SHA256, cache_dir=cache
    )


def test_a_fall_of_0_0019_is_accepted_and_of_0_0021_is_not():
    means_before, means_after, fall, refused = judge([0.9, 0.8], [0.8981, 0.7981])
    assert means_before.tolist() == pytest.approx([0.85])
    assert means_after.tolist() == pytest.approx([0.8481])
    assert fall == pytest.approx(0.0019)
    assert refused == ""
    assert judge([0.9, 0.8], [0.8979, 0.7979])[3] == "the mean Dice falls by 0.0021; expected less than 0.002"


def test_every_class_counts_by_itself():
    before, after = [[0.9, 0.7], [0.9, 0.7]], [[0.95, 0.69], [0.95, 0.69]]
    _, _, fall, refused = judge(before, after)
    assert fall == pytest.approx(0.01)
    assert refused


def test_a_rise_is_accepted_with_a_fall_below_zero():
    _, _, fall, refused = judge([0.8], [0.9])
    assert fall == pytest.approx(-0.1)
    assert refused == ""


def test_undefined_dice_are_left_out_of_the_mean():
    means, _, fall, refused = judge([0.9, np.nan], [0.9, np.nan])
    assert means.tolist() == pytest.approx([0.9])
    assert fall == 0
    assert refused == ""


def test_a_dice_defined_with_one_precision_only_is_refused():
    assert "defined with one precision and not with the other" in judge([0.9, np.nan], [0.9, 0.0])[3]


def test_no_defined_dice_is_refused():
    assert judge([np.nan], [np.nan])[3] == "the Dice of no case is defined"


@pytest.mark.parametrize(("before", "after"), [([0.9], [0.9, 0.8]), ([], [])])
def test_other_cases_and_none_are_an_error(before, after):
    with pytest.raises(ValueError, match="expected the same cases twice, at least one"):
        judge(before, after)


def test_an_accepted_model_runs_is_kept_and_is_not_scored_again(tmp_path):
    needs_installed("openvino", "nncf")
    score = Scores([[0.9, 0.8]] * 3, [[0.899, 0.8]] * 3)
    found = quantized(score, tmp_path)
    assert score.asked == ["openvino-f32", "openvino-int8"]
    assert found.reason == ""
    assert found.verdict.fall == pytest.approx(0.001)
    assert found.verdict.cases == 3
    assert found.backend.precision == "int8"
    windows = torch.randn((2, 1, *SHAPE), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected = tiny_unet()(windows)
    apart = float((found.backend(windows) - expected).abs().max() / expected.abs().max())
    assert 1e-5 < apart < 0.2  # 8 bits, and the right network
    assert torch.equal(int8(tmp_path)(windows), found.backend(windows))
    assert quantized(score, tmp_path).backend is not None
    assert len(score.asked) == 2


def test_a_refused_model_gives_the_reason_and_is_never_run(tmp_path):
    needs_installed("openvino", "nncf")
    score = Scores([0.9, 0.8], [0.89, 0.8])
    found = quantized(score, tmp_path)
    assert found.backend is None
    assert found.reason == "the mean Dice falls by 0.0050; expected less than 0.002"
    assert quantized(score, tmp_path).reason == found.reason
    assert len(score.asked) == 2
    with pytest.raises(
        BackendError, match="openvino-int8 was refused for these weights: the mean Dice falls"
    ):
        int8(tmp_path)


def test_other_cases_or_other_windows_make_a_new_verdict(tmp_path):
    needs_installed("openvino", "nncf")
    score = Scores([0.9], [0.9])
    quantized(score, tmp_path)
    quantized(score, tmp_path, scored_on="other phantoms")
    assert len(score.asked) == 4
    quantized(score, tmp_path, scored_on="other phantoms", windows=calibration(seed=1))
    assert len(score.asked) == 6


def test_windows_are_quantized_one_by_one_and_run_side_by_side(tmp_path):
    needs_installed("openvino", "nncf")
    found = quantized(Scores([0.9], [0.9]), tmp_path, batch=2)
    assert found.backend.windows.batch == 1
    assert found.backend.streams == min(2, torch.get_num_threads())
    assert found.backend(torch.zeros(3, 1, *SHAPE)).shape == (3, 3, *SHAPE)


def test_acceptance_makes_the_next_trial_a_new_one(tmp_path):
    needs_installed("openvino", "nncf")
    facts, others = {"weights_sha256": SHA256}, {"weights_sha256": "d" * 64}
    for one in (facts, others):
        write_choice(Choice("torch", {"torch": 1.0}, {}, "here"), one, tmp_path)
    quantized(Scores([0.9], [0.9]), tmp_path)
    assert read_choice(facts, tmp_path) is None
    assert read_choice(others, tmp_path) is not None


def test_without_a_model_int8_says_what_to_do(tmp_path):
    needs_installed("openvino")
    with pytest.raises(BackendError, match="quantize the bundle first, or choose openvino-f32"):
        int8(tmp_path)


def test_without_nncf_the_extra_is_named(tmp_path, monkeypatch):
    needs_installed("openvino")
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(MissingExtraError, match=r"nncf is not installed; .*medimg3d\[int8\]"):
        quantized(Scores([0.9], [0.9]), tmp_path)


@pytest.mark.parametrize(
    ("windows", "reason"), [([], "got none"), ([torch.zeros(1, 8, 8, 8)], r"got \(1, 8, 8, 8\)")]
)
def test_calibration_windows_that_do_not_fit_are_refused(tmp_path, windows, reason):
    with pytest.raises(ValueError, match=reason):
        quantized(Scores([0.9], [0.9]), tmp_path, windows=windows)
