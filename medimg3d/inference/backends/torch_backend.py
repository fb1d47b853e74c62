"""PyTorch as it is: float32, float32 with channels last in memory, and bfloat16 autocast."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import nn

from medimg3d.inference.backends.backend import Backend, FirstHead, WindowBatch


def torch_backend(
    name: str, network: nn.Module, windows: WindowBatch, *, device: torch.device | str = "cpu"
) -> Backend:
    """Run the network in PyTorch.

    Args:
        name: ``"torch"``, ``"torch-channels-last"`` or ``"torch-bf16"`` (autocast, channels last too). The last
            two run a copy, so that the network itself stays as it is laid out.
        network: The network, on the device; put into its evaluation mode.
        windows: The windows.
        device: Where it runs.
    """
    network.eval()
    device = torch.device(device)
    if name == "torch":
        return Backend(name, FirstHead(network), windows=windows, device=device)
    layout = torch.channels_last_3d if len(windows.shape) == 3 else torch.channels_last
    model = _laid_out(FirstHead(network), layout)
    reduced = name == "torch-bf16"

    def run(batch: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=reduced):
            return model(batch.contiguous(memory_format=layout))

    return Backend(name, run, windows=windows, device=device)


def _laid_out(network: nn.Module, layout: torch.memory_format) -> nn.Module:
    """A copy whose kernels lie channels last; a tensor of other axes than the windows' stays as it is."""
    copy = deepcopy(network)
    axes = 5 if layout == torch.channels_last_3d else 4
    for parameter in copy.parameters():
        if parameter.ndim == axes:
            parameter.data = parameter.data.contiguous(memory_format=layout)
    return copy
