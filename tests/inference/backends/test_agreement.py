import pytest
import torch
from tiny_networks import Scaled

from medimg3d.inference.backends.agreement import Reference, agreement, check
from medimg3d.inference.backends.backend import Backend, WindowBatch
from medimg3d.inference.backends.kinds import BackendError

WINDOWS = WindowBatch((4, 4))


def test_differences_are_shares_of_the_largest_output_and_of_probability():
    expected = torch.tensor([[[[0.0]], [[-4.0]]]])
    output = torch.tensor([[[[0.0]], [[-3.0]]]])
    found = agreement(output, expected)
    assert found.relative == 0.25
    # softmax of (0, -3) and (0, -4): 1 / (1 + exp(-3)) = 0.95257, 1 / (1 + exp(-4)) = 0.98201
    assert found.probability == pytest.approx(0.98201 - 0.95257, abs=1e-5)


def test_one_class_is_compared_by_its_sigmoid():
    found = agreement(torch.zeros(1, 1, 1, 1), torch.full((1, 1, 1, 1), 100.0))
    assert found.probability == pytest.approx(0.5)


def test_zeros_agree_with_zeros_and_with_nothing_else():
    zeros = torch.zeros(1, 2, 1, 1)
    assert agreement(zeros, zeros).relative == 0
    assert agreement(zeros + 1e-9, zeros).relative == float("inf")


def test_another_number_of_classes_is_an_error():
    with pytest.raises(BackendError, match=r"shape \(1, 2, 4, 4\), expected torch's \(1, 3, 4, 4\)"):
        agreement(torch.zeros(1, 2, 4, 4), torch.zeros(1, 3, 4, 4))


def off_by(factor, name="openvino-f32"):
    return Backend(name, lambda windows: Scaled()(windows) * factor, windows=WINDOWS)


def test_float32_may_be_a_thousandth_off_and_not_more():
    reference = Reference(Scaled(), WINDOWS)
    assert check(off_by(1.0009), reference).relative == pytest.approx(9e-4, rel=0.01)
    with pytest.raises(
        BackendError, match=r"openvino-f32 differs from torch by 0\.0011 of the largest output"
    ):
        check(off_by(1.0011), reference)


def test_bfloat16_may_be_further_off():
    assert check(off_by(1.05, "openvino-bf16"), Reference(Scaled(), WINDOWS)).relative > 0.04
    with pytest.raises(BackendError, match="openvino-bf16 differs"):
        check(off_by(1.2, "openvino-bf16"), Reference(Scaled(), WINDOWS))


@pytest.mark.parametrize("name", ["openvino-f32", "openvino-bf16", "openvino-int8"])
def test_not_a_number_is_refused_in_every_precision(name):
    with pytest.raises(BackendError, match="differs from torch by nan"):
        check(off_by(float("nan"), name), Reference(Scaled(), WINDOWS))


def test_the_reference_is_worked_out_in_evaluation_mode():
    network = torch.nn.Sequential(Scaled(), torch.nn.Dropout(0.9)).train()
    reference = Reference(network, WINDOWS)
    assert torch.equal(reference.output, Scaled()(WINDOWS.example()))
    assert not network.training
