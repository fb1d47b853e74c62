import numpy as np
import pytest
import torch
from monai.data import DataLoader, MetaTensor, get_track_meta
from monai.transforms import Compose, Lambdad, OneOf, RandFlipd, RandGaussianNoised, RandScaleIntensityd

from medimg3d.data.seeding import EpochSampler, SeededDataset, SeededViews

CASES = [{"image": torch.full((1, 4, 4, 4), float(n))} for n in range(6)]


def seeded(seed=0):
    random = Compose([RandGaussianNoised("image", prob=1.0, std=1.0), RandFlipd("image", prob=0.5)])
    return SeededDataset(CASES, random, seed=seed)


def draw(dataset, epoch, num_workers):
    sampler = EpochSampler(dataset, seed=0)
    sampler.set_epoch(epoch)
    return [b["image"] for b in DataLoader(dataset, sampler=sampler, batch_size=2, num_workers=num_workers)]


def test_a_sample_depends_on_seed_epoch_and_index_alone():
    one, other = seeded(), seeded()
    for drawn_before in range(3):
        other[(9, drawn_before)]
    assert torch.equal(one[(2, 3)]["image"], other[(2, 3)]["image"])


@pytest.mark.parametrize("key", [(2, 4), (3, 3)])
def test_another_index_or_epoch_gives_other_noise(key):
    dataset = seeded()
    reference = dataset[(2, 3)]["image"] - 3
    assert not torch.equal(dataset[key]["image"] - key[1], reference)


def test_another_seed_gives_other_noise():
    assert not torch.equal(seeded(0)[(1, 1)]["image"], seeded(1)[(1, 1)]["image"])


def test_two_workers_and_none_give_the_same_batches():
    for mine, theirs in zip(draw(seeded(), 5, 0), draw(seeded(), 5, 2), strict=True):
        assert torch.equal(mine, theirs)


def test_each_pass_draws_every_case_once_even_across_epoch_borders():
    sampler = EpochSampler(CASES, seed=3, num_samples_per_epoch=4)  # 6 cases: three epochs are two passes
    drawn = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        drawn += [index for _, index in sampler]
    assert sorted(drawn[:6]) == list(range(6))
    assert sorted(drawn[6:]) == list(range(6))


def test_two_ranks_share_an_epoch_without_overlap():
    parts = []
    for rank in range(2):
        sampler = EpochSampler(CASES, num_replicas=2, rank=rank, seed=1)
        sampler.set_epoch(4)
        parts.append([index for _, index in sampler])
    assert len(parts[0]) == len(parts[1]) == 3
    assert sorted(parts[0] + parts[1]) == list(range(6))


def test_order_changes_between_passes():
    sampler = EpochSampler(list(range(50)), seed=0)
    orders = []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        orders.append([index for _, index in sampler])
    assert not np.array_equal(orders[0], orders[1])


def test_fewer_samples_than_ranks_are_refused():
    with pytest.raises(ValueError, match=r"at least the number of ranks \(2\), got 1"):
        EpochSampler(CASES, num_replicas=2, num_samples_per_epoch=1)


def test_two_views_of_an_image_differ_and_come_again_for_the_same_key():
    data = [{"image": torch.zeros(1, 4, 4)}]
    views = SeededViews(data, Compose([RandGaussianNoised("image", prob=1.0)]), seed=3)
    first = views[(2, 0)]["image"]
    assert first.shape == (2, 1, 4, 4)
    assert not torch.equal(first[0], first[1])
    assert torch.equal(first, views[(2, 0)]["image"])
    assert not torch.equal(first, views[(3, 0)]["image"])


@pytest.mark.parametrize("nested", [OneOf, Compose])
def test_transforms_inside_others_are_seeded_too(nested):
    inner = [
        RandGaussianNoised("image", prob=1.0, std=1.0),
        RandScaleIntensityd("image", factors=0.9, prob=1.0),
    ]
    one, other = (SeededDataset(CASES, whole) for whole in (nested(inner), Compose([nested(inner)])))
    for dataset in (one, other):
        first = [dataset[(1, index)]["image"].clone() for index in range(6)]
        again = [dataset[(1, index)]["image"] for index in reversed(range(6))]
        assert all(torch.equal(a, b) for a, b in zip(first, reversed(again), strict=True))


def test_images_without_metadata_are_given_none_and_others_keep_theirs():
    kinds = []
    transform = Compose(
        [RandFlipd("image", prob=1.0), Lambdad("image", lambda x: kinds.append(type(x)) or x)]
    )
    plain = {"image": torch.ones(1, 2, 2), "indices": MetaTensor(torch.arange(3))}
    SeededDataset([plain, {"image": MetaTensor(torch.ones(1, 2, 2))}], transform)[0]
    SeededDataset([plain, {"image": MetaTensor(torch.ones(1, 2, 2))}], transform)[1]
    assert kinds == [torch.Tensor, MetaTensor]
    assert get_track_meta()


@pytest.mark.parametrize("lazy", [{"lazy": True}, {"lazy": None}, {}])
def test_lazy_transforms_of_plain_images_are_done(lazy):
    flip = RandFlipd("image", prob=1.0, spatial_axis=0, **({} if lazy else {"lazy": True}))
    image = torch.arange(4.0).reshape(1, 2, 2)
    done = SeededDataset([{"image": image}], Compose([flip], **lazy))[0]["image"]
    assert torch.equal(torch.as_tensor(done), image.flip(1))


def test_the_setting_of_metadata_comes_back_after_an_error():
    def fail(_):
        raise KeyError("x")

    with pytest.raises(RuntimeError):
        SeededDataset(CASES, Compose([Lambdad("image", fail)]))[0]
    assert get_track_meta()
