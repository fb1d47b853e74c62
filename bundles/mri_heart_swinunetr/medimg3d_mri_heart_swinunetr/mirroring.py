# Copied from medimg3d/inference/mirroring.py; do not edit here.
# Source sha256: 154dbb203a76ae6d1aff0aa052be2b4973b4dabe36acc3ec67378b938f192f84
"""Test-time mirroring: the mean prediction over flips of the image.

Bundles carry a copy of this file: it imports nothing of medimg3d.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import torch
from monai.inferers import Inferer


class MirroringInferer(Inferer):
    """Runs another inferer on every combination of flips and averages the class probabilities.

    Args:
        inferer: Runs one orientation, for example a ``SlidingWindowInferer``.
        axes: Spatial axes to flip, 0 for the first; the network runs ``2 ** len(axes)`` times.
        softmax: Average softmax probabilities (True) or the raw outputs (False).
    """

    def __init__(self, inferer: Inferer, axes: Sequence[int] = (0,), softmax: bool = True) -> None:
        super().__init__()
        self.inferer = inferer
        self.axes = tuple(axes)
        self.softmax = softmax

    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """The averaged prediction.

        Args:
            inputs: Images, shape (B, C, I, J[, K]).
            network: Gives (B, classes, I, J[, K]).
            *args: Passed on to the inner inferer.
            **kwargs: Passed on to the inner inferer.

        Returns:
            Class probabilities (``softmax=True``) or mean outputs, shape (B, classes, I, J[, K]), float32.
        """
        flips = [
            dims for n in range(len(self.axes) + 1) for dims in combinations([a + 2 for a in self.axes], n)
        ]
        total: Any = None
        for dims in flips:
            output = self.inferer(torch.flip(inputs, dims) if dims else inputs, network, *args, **kwargs)
            output = output.float()
            output = torch.softmax(output, dim=1) if self.softmax else output
            output = torch.flip(output, dims) if dims else output
            total = output if total is None else total + output
        return total / len(flips)
