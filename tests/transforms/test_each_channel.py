import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, RandAdjustContrast, RandScaleIntensity

from medimg3d.transforms.each_channel import RandEachChanneld


def contrast(prob=1.0):
    return RandAdjustContrast(prob=prob, gamma=(0.5, 2.0), retain_stats=True)


def test_a_channel_keeps_its_own_mean_and_deviation():
    image = torch.stack([torch.rand(6, 6, 6), 1000 + 500 * torch.rand(6, 6, 6) ** 4])
    done = RandEachChanneld("image", contrast())({"image": image})["image"]
    assert not torch.allclose(done, image)
    for before, after in zip(image, done, strict=True):
        assert after.mean() == pytest.approx(before.mean().item(), rel=1e-3)
        assert after.std() == pytest.approx(before.std().item(), rel=1e-2)


def test_each_channel_draws_for_itself():
    image = torch.ones(64, 2, 2)
    transform = RandEachChanneld("image", RandScaleIntensity(prob=0.5, factors=0.5))
    factors = transform.set_random_state(seed=0)({"image": image})["image"][:, 0, 0]
    changed = factors[factors != 1]
    assert 16 < len(changed) < 48
    assert len(set(changed.tolist())) == len(changed)


@pytest.mark.parametrize("given", ["seed", "state"])
def test_the_same_seed_gives_the_same(given):
    image = torch.rand(3, 4, 4)
    transform = Compose([RandEachChanneld("image", contrast())])
    results = []
    for _ in range(2):
        if given == "seed":
            transform.set_random_state(seed=5)
        else:
            transform.transforms[0].set_random_state(state=np.random.RandomState(5))
        results.append(transform({"image": image})["image"])
    assert torch.equal(*results)


def test_geometry_stays():
    image = MetaTensor(torch.rand(2, 3, 3, 3), affine=torch.diag(torch.tensor([2.0, 3, 4, 1])))
    done = RandEachChanneld("image", contrast())({"image": image})["image"]
    assert torch.equal(done.affine, image.affine)
