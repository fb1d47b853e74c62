import torch
from monai.inferers import SimpleInferer

from medimg3d.inference.mirroring import MirroringInferer


def first_half_is_brighter(image):
    """Adds 1 to the first half along the first axis, wherever that lies: not symmetric on purpose."""
    output = image.clone()
    output[:, :, : image.shape[2] // 2] += 1
    return output


def test_two_flips_give_the_mean_of_both_orientations():
    inferer = MirroringInferer(SimpleInferer(), axes=(0,), softmax=False)
    assert torch.equal(
        inferer(torch.zeros(1, 1, 4, 2, 2), first_half_is_brighter), torch.full((1, 1, 4, 2, 2), 0.5)
    )


def test_three_axes_run_the_network_eight_times():
    calls = []
    MirroringInferer(SimpleInferer(), axes=(0, 1, 2))(
        torch.zeros(1, 2, 2, 2, 2), lambda x: calls.append(1) or x
    )
    assert len(calls) == 8


def test_probabilities_sum_to_one():
    probabilities = MirroringInferer(SimpleInferer())(torch.randn(1, 3, 4, 4, 4), lambda x: x)
    assert torch.allclose(probabilities.sum(1), torch.ones(1, 4, 4, 4))
