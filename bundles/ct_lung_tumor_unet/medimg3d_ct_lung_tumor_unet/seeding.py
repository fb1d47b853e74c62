# Copied from medimg3d/data/seeding.py; do not edit here.
# Source sha256: 14dfe586011f016b218287dafe8231e9263b99f8694d25720eff9ac7e26310a1
"""Random numbers that depend on (seed, epoch, index) alone.

MONAI's random transforms carry a generator whose state depends on everything drawn before, on the worker
that drew it and on whether a run was resumed. Here each sample reseeds its transforms, so that a run that was
killed and resumed, or one with another number of workers, sees the same samples bit for bit.

Bundles carry a copy of this file: it imports nothing of medimg3d.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from monai.transforms import Compose
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

    Args:
        dataset: Gives the deterministic part of each sample (a ``CacheDataset``, say).
        transform: Random transforms; a ``Compose`` is made of a sequence.
        seed: Seed of the run.
    """

    def __init__(self, dataset: Dataset, transform: Compose | Sequence[Any], seed: int = 0) -> None:
        self.dataset = dataset
        self.transform = transform if isinstance(transform, Compose) else Compose(transform)
        self.seed = int(seed)

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, key: tuple[int, int] | int) -> Any:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        state = np.random.SeedSequence([self.seed, epoch, index]).generate_state(1)[0]
        self.transform.set_random_state(seed=int(state))
        return self.transform(dict(self.dataset[index]))


class SeededViews(SeededDataset):
    """Two random views of each image, for contrastive pretraining; the label is left aside.

    Each item is ``image``, shape (2, C, *spatial), and ``label``, 0.
    """

    def __getitem__(self, key: tuple[int, int] | int) -> Any:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        states = np.random.SeedSequence([self.seed, epoch, index]).generate_state(2)
        views = []
        for state in states:
            self.transform.set_random_state(seed=int(state))
            views.append(torch.as_tensor(self.transform(dict(self.dataset[index]))["image"]))
        return {"image": torch.stack(views), "label": 0}
