"""Which precision trains fastest on this machine: a short measured trial instead of a guess.

bfloat16 is several times faster than float32 on CPUs with matrix units (AMX) and slower on some without.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from medimg3d.inference.autocast import PRECISIONS, AutocastInferer

# In the order of preference where nothing is gained: plain float32 first.
CANDIDATES = (("float32", False), ("float32", True), ("bfloat16", True))
_GAIN = 1.05
_ROUNDS = 4


@dataclass(frozen=True)
class PrecisionChoice:
    """How the network is run in training.

    Args:
        precision: ``"float32"`` or ``"bfloat16"``.
        channels_last: Memory layout of images and weights.
        seconds_per_iteration: Forward and backward of one batch in the trial; None if it was not measured.
        trial: Seconds of every candidate that was tried, by name.
    """

    precision: str
    channels_last: bool
    seconds_per_iteration: float | None = None
    trial: dict[str, float] | None = None

    def as_dict(self) -> dict[str, Any]:
        """The fields as plain values."""
        return asdict(self)


def try_precisions(
    network: nn.Module,
    batch_shape: tuple[int, ...],
    device: torch.device,
    *,
    precisions: Sequence[str] = PRECISIONS,
) -> PrecisionChoice:
    """Time forward and backward of one batch with each candidate, in turn, and choose the fastest.

    Args:
        network: The network; it is copied, not changed.
        batch_shape: Shape of a training batch, (B, C, I, J[, K]).
        device: Where it will train.
        precisions: Which precisions may be chosen.

    Returns:
        The fastest; another than plain float32 only if it is at least 5 % faster.
    """
    random_state = torch.get_rng_state()
    images = torch.randn(batch_shape, device=device)
    runs = {c: _Run(deepcopy(network).to(device).train(), *c) for c in CANDIDATES if c[0] in precisions}
    seconds = dict.fromkeys(runs, float("inf"))
    for turn in range(_ROUNDS):  # in turn: other work on the machine then slows all of them alike
        for candidate, run in runs.items():
            spent = run.time(images)
            if turn > 0:  # the first warms up
                seconds[candidate] = min(seconds[candidate], spent)
    torch.set_rng_state(random_state)
    fastest = min(seconds, key=lambda candidate: seconds[candidate])
    chosen = fastest if seconds[CANDIDATES[0]] > _GAIN * seconds[fastest] else CANDIDATES[0]
    trial = {f"{p}{' channels-last' if c else ''}": round(s, 4) for (p, c), s in seconds.items()}
    return PrecisionChoice(*chosen, seconds_per_iteration=seconds[chosen], trial=trial)


class _Run:
    """A copy of the network, run in one way."""

    def __init__(self, network: nn.Module, precision: str, channels_last: bool) -> None:
        self.network = network
        self.inferer = AutocastInferer(precision=precision, channels_last=channels_last)

    def time(self, images: torch.Tensor) -> float:
        """Seconds of one forward and backward."""
        begin = time.perf_counter()
        self.inferer(images, self.network).square().mean().backward()
        if images.device.type == "cuda":
            torch.cuda.synchronize(images.device)
        return time.perf_counter() - begin
