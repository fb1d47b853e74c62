import pytest
import torch
from monai.data import MetaTensor
from tiny_networks import Scaled, tiny_unet
from torch import nn

from medimg3d.inference.backends.backend import Backend, WindowBatch
from medimg3d.inference.backends.kinds import BackendError
from medimg3d.inference.first_head import first_head
from medimg3d.inference.sliding_window import SlidingWindow
from medimg3d.inference.streaming import stream_windows

WINDOWS = WindowBatch((4, 4), channels=1, batch=3)


def doubling(batches):
    """A backend that doubles, and notes the size of every batch it runs."""

    def run(windows):
        batches.append(windows.shape[0])
        return windows * 2

    return Backend("openvino-f32", run, windows=WINDOWS, whole_batches=True)


def test_batches_of_another_size_are_filled_up_or_parted_and_nothing_else_changes():
    batches = []
    windows = torch.randn(7, 1, 4, 4)
    assert torch.equal(doubling(batches)(windows), windows * 2)
    assert batches == [3, 3, 3]


def test_a_batch_of_the_size_is_run_as_it_is():
    batches = []
    windows = torch.randn(3, 1, 4, 4)
    assert torch.equal(doubling(batches)(windows), windows * 2)
    assert batches == [3]


def test_half_precision_meta_tensors_with_gradient_become_plain_float32():
    seen = []

    def run(windows):
        seen.append((type(windows), windows.dtype, windows.requires_grad))
        return windows.half()

    windows = MetaTensor(torch.randn(1, 1, 4, 4).half()).requires_grad_()
    output = Backend("torch", run, windows=WINDOWS)(windows)
    assert seen == [(torch.Tensor, torch.float32, False)]
    assert output.dtype == torch.float32


def test_the_output_can_be_changed_in_place_outside():
    output = Backend("torch", Scaled(), windows=WINDOWS)(torch.ones(1, 1, 4, 4))
    output.mul_(3)
    assert output[0, :, 0, 0].tolist() == [3.0, 6.0, -3.0]


def test_windows_of_another_shape_are_refused():
    with pytest.raises(
        ValueError, match=r"shape \(1, 1, 4, 5\); openvino-f32 is made for \(batch, 1, 4, 4\)"
    ):
        doubling([])(torch.zeros(1, 1, 4, 5))


def test_a_closed_backend_says_so():
    with Backend("torch", Scaled(), windows=WINDOWS) as backend:
        pass
    backend.close()
    with pytest.raises(BackendError, match="torch is closed; make the backend anew"):
        backend(torch.zeros(1, 1, 4, 4))


@pytest.mark.parametrize("given", [{"shape": (4,)}, {"shape": (4, 0)}, {"shape": (4, 4), "batch": 0}])
def test_windows_without_sense_are_refused(given):
    with pytest.raises(ValueError, match="expected windows of 2 or 3 axes"):
        WindowBatch(**given)


def test_the_example_is_always_the_same():
    assert torch.equal(WINDOWS.example(), WINDOWS.example())
    assert WINDOWS.example().shape == (3, 1, 4, 4)


@pytest.mark.parametrize(
    "output",
    [
        torch.ones(1),
        [torch.ones(1), torch.zeros(1)],
        (torch.ones(1), torch.zeros(1)),
        {"b": torch.zeros(1), "a": torch.ones(1)},
        MetaTensor(torch.ones(1)),
    ],
)
def test_of_several_outputs_the_first_counts_as_a_plain_tensor(output):
    assert type(first_head(output)) is torch.Tensor


def test_a_backend_takes_the_networks_place_in_a_streamed_prediction():
    network = tiny_unet(2)
    window = SlidingWindow((16, 16), overlap=0.5, sw_batch_size=2)
    image = torch.randn(1, 40, 23, generator=torch.Generator().manual_seed(1))
    backend = Backend(
        "openvino-f32",
        nn.Sequential(network),
        windows=WindowBatch((16, 16), batch=2),
        whole_batches=True,
    )
    expected = list(stream_windows(image, network, window, softmax=True))
    got = list(stream_windows(image, backend, window, softmax=True))
    assert len(expected) == len(got)
    for one, other in zip(expected, got, strict=True):
        assert one.slices == other.slices
        assert torch.allclose(one.values, other.values, atol=1e-6)
