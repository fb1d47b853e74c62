# Copied from medimg3d/engines/weight_averaging.py; do not edit here.
# Source sha256: b038705a2810805518ec0f709dc689d652a6e8476eac1b66309e7a1eb865aa1e
"""Exponential moving average of a network's weights, as a handler of the trainer.

Bundles carry a copy of this file: it imports nothing of medimg3d.
"""

from __future__ import annotations

from copy import deepcopy

import torch
from ignite.engine import Engine, Events
from torch import nn


class AveragedWeights:
    """Keeps ``model``, a copy of the network whose weights follow the trained ones slowly.

    After iteration ``n`` the average moves by ``max(momentum, 9 / (n + 9))`` of the way, so that a short run
    is not held back by its random first weights. The rate depends on the iteration alone: nothing besides
    the weights has to be saved to resume.

    Args:
        network: The trained network (or its DistributedDataParallel wrapper).
        momentum: Share of the new weights in each later iteration, in (0, 1].

    Raises:
        ValueError: The momentum lies outside (0, 1].
    """

    def __init__(self, network: nn.Module, momentum: float = 0.005) -> None:
        if not 0 < momentum <= 1:
            raise ValueError(f"momentum must be in (0, 1], got {momentum}.")
        self.momentum = momentum
        self.network = network.module if isinstance(network, nn.parallel.DistributedDataParallel) else network
        self.model = deepcopy(self.network).eval().requires_grad_(False)

    def attach(self, engine: Engine) -> None:
        """Update the average after each iteration of the trainer."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    @torch.no_grad()
    def __call__(self, engine: Engine) -> None:
        """Move the average towards the weights of this iteration; buffers are copied."""
        rate = max(self.momentum, 9 / (engine.state.iteration + 9))
        averages, currents = list(self.model.parameters()), list(self.network.parameters())
        torch._foreach_lerp_(averages, [current.detach() for current in currents], rate)
        for average, current in zip(self.model.buffers(), self.network.buffers(), strict=True):
            average.copy_(current)
