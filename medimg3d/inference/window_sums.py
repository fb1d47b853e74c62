"""Weighted sums of window predictions over the planes that windows still reach: a ring along one axis."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from medimg3d.inference.sliding_window import ring_shape


class WindowSums:
    """Sums of ``output * weight`` and of ``weight``, both float32, in memory for a window's planes only.

    Plane ``p`` of the region lies in the ring at ``p`` modulo its length: windows may be added as long as they
    lie less than that beyond the last plane taken.

    Args:
        classes: Channels of the predictions.
        extent: Voxels of the region along every axis.
        window: Voxels of a window along every axis.
        axis: Axis along which planes are taken.
        device: Where the sums lie.
    """

    def __init__(
        self,
        classes: int,
        extent: Sequence[int],
        window: Sequence[int],
        *,
        axis: int,
        device: torch.device | str,
    ) -> None:
        shape = ring_shape(extent, window, axis)
        self.classes = classes
        self.extent = tuple(extent)
        self.axis = axis
        self.planes = shape[axis]
        self.sums = torch.zeros((classes, *shape), dtype=torch.float32, device=device)
        self.weights = torch.zeros((1, *shape), dtype=torch.float32, device=device)

    @torch.no_grad()
    def add(self, output: torch.Tensor, importance: torch.Tensor, start: Sequence[int]) -> None:
        """Add one window; what lies outside the region is left out.

        Args:
            output: Prediction, shape (classes, *window), any floating type and device.
            importance: Weights, shape (*window), float32, on the sums' device.
            start: First voxel of the window in voxels of the region; may be negative.
        """
        values = output.to(self.sums.device).float()
        low = [max(at, 0) for at in start]
        high = [
            min(at + size, stop) for at, size, stop in zip(start, values.shape[1:], self.extent, strict=True)
        ]
        for planes, first, count in self._parts(low[self.axis], high[self.axis]):
            begin = [first if along == self.axis else at for along, at in enumerate(low)]
            end = [first + count if along == self.axis else at for along, at in enumerate(high)]
            source = [slice(b - s, e - s) for b, e, s in zip(begin, end, start, strict=True)]
            target = [slice(b, e) for b, e in zip(begin, end, strict=True)]
            target[self.axis] = planes
            part, place = (slice(None), *source), (slice(None), *target)
            weight = importance[tuple(source)][None]
            self.sums[place].addcmul_(values[part], weight)
            self.weights[place].add_(weight)

    @torch.no_grad()
    def take(self, start: int, stop: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Weighted means of planes ``start`` to ``stop - 1``, which the ring then forgets.

        Returns:
            Means, shape (classes, ...), NaN where no window was added; weights, shape (1, ...).
        """
        shape = list(self.sums.shape[1:])
        shape[self.axis] = stop - start
        means = self.sums.new_empty((self.classes, *shape))
        weights = self.weights.new_empty((1, *shape))
        for planes, first, count in self._parts(start, stop):
            weight = self.weights.narrow(self.axis + 1, planes.start, count)
            values = self.sums.narrow(self.axis + 1, planes.start, count)
            torch.div(values, weight, out=means.narrow(self.axis + 1, first - start, count))
            weights.narrow(self.axis + 1, first - start, count).copy_(weight)
            values.zero_()
            weight.zero_()
        return means, weights

    def _parts(self, start: int, stop: int) -> Iterator[tuple[slice, int, int]]:
        """Places in the ring of planes of the region: (places, first plane, number of planes)."""
        while start < stop:
            place = start % self.planes
            count = min(stop - start, self.planes - place)
            yield slice(place, place + count), start, count
            start += count
