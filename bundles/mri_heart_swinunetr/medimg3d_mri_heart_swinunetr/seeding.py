# Copied from medimg3d/data/seeding.py; do not edit here.
# Source sha256: e099b372541c8a46896c646218998114376fab49681caffa2e83c8e81cfaf633
"""Random numbers that depend on (seed, epoch, index) alone.

MONAI's random transforms carry a generator whose state depends on everything drawn before, on the worker
that drew it and on whether a run was resumed. Here each sample reseeds its transforms, so that a run that was
killed and resumed, or one with another number of workers, sees the same samples bit for bit.

Bundles carry a copy of this file: it imports nothing of medimg3d.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor, get_track_meta, set_track_meta
from monai.transforms import Compose, Randomizable
from torch.utils.data import Dataset, DistributedSampler


class EpochSampler(DistributedSampler):
    """Shuffles by (seed, epoch) and yields ``(epoch, index)`` pairs for :class:`SeededDataset`.

    Being a ``DistributedSampler``, it is told the epoch by MONAI's trainer, and with more than one replica
    each rank draws its own part.

    Args:
        dataset: The data set to draw from.
        num_replicas: Number of processes; 1 when not distributed.
        rank: This process, 0 to ``num_replicas - 1``.
        shuffle: Shuffle anew in each epoch.
        seed: Seed of the order.
        num_samples_per_epoch: Samples of an epoch over all ranks; the length of the data set if None. The
            order goes on where it ended: each full pass draws every case once.
    """

    def __init__(
        self,
        dataset: Dataset,
        num_replicas: int = 1,
        rank: int = 0,
        shuffle: bool = True,
        seed: int = 0,
        num_samples_per_epoch: int | None = None,
    ) -> None:
        super().__init__(dataset, num_replicas=num_replicas, rank=rank, shuffle=shuffle, seed=seed)
        if num_samples_per_epoch is not None:
            if num_samples_per_epoch < num_replicas:
                raise ValueError(
                    f"num_samples_per_epoch must be at least the number of ranks ({num_replicas}), "
                    f"got {num_samples_per_epoch}."
                )
            self.total_size = num_samples_per_epoch // num_replicas * num_replicas
            self.num_samples = self.total_size // num_replicas

    def __iter__(self) -> Iterator[tuple[int, int]]:
        first = self.epoch * self.total_size
        wanted = range(first + self.rank, first + self.total_size, self.num_replicas)
        length = len(self.dataset)  # type: ignore[arg-type]
        orders: dict[int, np.ndarray] = {}
        for position in wanted:
            one_pass, place = divmod(position, length)
            if one_pass not in orders:
                orders[one_pass] = self._order(one_pass, length)
            yield self.epoch, int(orders[one_pass][place])

    def _order(self, one_pass: int, length: int) -> np.ndarray:
        if not self.shuffle:
            return np.arange(length)
        return np.random.default_rng([self.seed, one_pass]).permutation(length)


class SeededDataset(Dataset):
    """Applies random transforms that were reseeded by (seed, epoch, index).

    Images that come without metadata are given none in between, which costs more than to augment them; lazy
    transforms need it, for they write down in it what is to be done.

    Not for several threads at once: generators and MONAI's setting of metadata are shared within a process.

    Args:
        dataset: Gives the deterministic part of each sample (a ``CacheDataset``, say).
        transform: Random transforms; a ``Compose`` is made of a sequence.
        seed: Seed of the run.
    """

    def __init__(self, dataset: Dataset, transform: Compose | Sequence[Any], seed: int = 0) -> None:
        self.dataset = dataset
        self.transform = transform if isinstance(transform, Compose) else Compose(transform)
        self.seed = int(seed)
        self._is_lazy = self.transform.lazy is not False or any(
            getattr(one, "lazy", False) for one in self.transform.flatten().transforms
        )
        self._random = [one for one in self.transform.transforms if isinstance(one, Randomizable)]
        self._generators = [np.random.RandomState(0) for _ in self._random]
        self._own = np.random.RandomState(0)  # of a Compose that draws itself, as OneOf does

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, key: tuple[int, int] | int) -> Any:
        return self.drawn(key, views=1)[0]

    def drawn(self, key: tuple[int, int] | int, views: int) -> list[Any]:
        """The sample of ``(epoch, index)``, transformed anew for each view."""
        epoch, index = key if isinstance(key, tuple) else (0, key)
        states = np.random.SeedSequence([self.seed, epoch, index]).generate_state(views)
        return [self._transformed(np.random.SeedSequence(int(state)), index) for state in states]

    def _transformed(self, sequence: np.random.SeedSequence, index: int) -> Any:
        """Each transform with its own generator. Those are kept: to make one takes as long as to seed a hundred."""
        own, *seeds = sequence.generate_state(1 + len(self._random))
        self._own.seed(int(own))
        self.transform.R = self._own
        for one, generator, seed in zip(self._random, self._generators, seeds, strict=True):
            generator.seed(int(seed))
            one.set_random_state(state=generator)
        item = dict(self.dataset[index])
        if self._is_lazy or has_metadata(item):
            return self.transform(item)
        with without_metadata():
            return self.transform(item)


class SeededViews(SeededDataset):
    """Two random views of each image, for contrastive pretraining; the label is left aside.

    Each item is ``image``, shape (2, C, *spatial), and ``label``, 0.
    """

    def __getitem__(self, key: tuple[int, int] | int) -> Any:
        views = [torch.as_tensor(view["image"]) for view in self.drawn(key, views=2)]
        return {"image": torch.stack(views), "label": 0}


def has_metadata(item: dict[str, Any]) -> bool:
    """Whether one of the images has; a list of voxels, of one axis, is none."""
    return any(isinstance(value, MetaTensor) and value.ndim > 1 for value in item.values())


@contextmanager
def without_metadata() -> Iterator[None]:
    """MONAI's transforms make plain tensors, not ``MetaTensor``."""
    before = get_track_meta()
    set_track_meta(False)
    try:
        yield
    finally:
        set_track_meta(before)
