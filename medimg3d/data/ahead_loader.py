"""A MONAI DataLoader that loads in threads ahead of the network, and hands on what goes wrong there.

MONAI's ``ThreadDataLoader`` swallows an error of the dataset: the remaining images are silently left out.
"""

from __future__ import annotations

from contextlib import closing
from typing import Any

from monai.data import DataLoader, Dataset

from medimg3d.data.load_ahead import load_ahead


class AheadLoader(DataLoader):
    """Batches in the order of the sampler; the images of a batch are loaded in several threads at once.

    The transforms must be safe in several threads, which MONAI's deterministic ones are.

    Args:
        dataset: Dataset with indices.
        num_threads: Threads that load; half of the cores, at most 8, if None.
        num_ahead: Batches ahead of the one in use.
        **kwargs: As for MONAI's ``DataLoader`` (``batch_size``, ``shuffle``, …), but for its workers.

    Raises:
        ValueError: ``num_workers`` is asked for: processes and threads do not go together.
    """

    def __init__(
        self, dataset: Dataset, num_threads: int | None = None, num_ahead: int = 2, **kwargs: Any
    ) -> None:
        if kwargs.get("num_workers"):
            raise ValueError(
                f"num_workers must be 0, got {kwargs['num_workers']}: AheadLoader loads in threads. Set num_threads."
            )
        super().__init__(dataset, num_workers=0, **{k: v for k, v in kwargs.items() if k != "num_workers"})
        self._num_threads = num_threads
        self._num_ahead = num_ahead

    def __iter__(self) -> Any:
        """Collated batches; raises the first error of a batch."""
        sampler: Any = self.batch_sampler
        batches = load_ahead(
            sampler, self.dataset.__getitem__, num_threads=self._num_threads, num_ahead=self._num_ahead
        )
        with closing(batches):
            for batch in batches:
                yield self.collate_fn([future.result() for _, future in batch])
