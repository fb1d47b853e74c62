"""The network through torch.compile; it compiles at the first call, and again in every process."""

from __future__ import annotations

import torch
from torch import nn

from medimg3d.inference.backends.backend import Backend, FirstHead, WindowBatch


def compiled_backend(
    network: nn.Module, windows: WindowBatch, *, device: torch.device | str = "cpu"
) -> Backend:
    """Compile the network for one batch size.

    Args:
        network: The network, on the device; put into its evaluation mode.
        windows: The windows; smaller batches are filled up, so that nothing is compiled twice.
        device: Where it runs.
    """
    network.eval()
    run = torch.compile(FirstHead(network), dynamic=False)
    return Backend("compile", run, windows=windows, device=device, whole_batches=True)
