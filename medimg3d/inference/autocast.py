"""An inferer that runs the network in bfloat16 on the device the images are on.

MONAI's engines open a CUDA autocast region whatever the device is: ``amp: true`` on a CPU is float32.
"""

from __future__ import annotations

from typing import Any

import torch
from monai.inferers import Inferer, SimpleInferer
from torch import nn

PRECISIONS = ("float32", "bfloat16")


class AutocastInferer(Inferer):
    """Runs an inferer under autocast, with the network's memory laid out channels-last, optionally compiled.

    Compilation wraps the calls, not the network: the keys of its ``state_dict`` stay as they are. What stands in a
    network's place (:mod:`medimg3d.inference.backends`) is called as it is.

    Args:
        precision: ``"float32"`` or ``"bfloat16"``.
        channels_last: Lay out images and weights channels-last (4D or 5D tensors).
        compiled: Run the network through ``torch.compile``.
        inferer: The inferer that is run; ``SimpleInferer`` if None.

    Raises:
        ValueError: The precision is not one of the two.
    """

    def __init__(
        self,
        precision: str = "float32",
        channels_last: bool = False,
        compiled: bool = False,
        inferer: Inferer | None = None,
    ) -> None:
        super().__init__()
        if precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}.")
        self.precision = precision
        self.channels_last = channels_last
        self.compiled = compiled
        self.inferer = SimpleInferer() if inferer is None else inferer
        self._prepared: tuple[nn.Module, Any] | None = None

    def __call__(self, inputs: torch.Tensor, network: Any, *args: Any, **kwargs: Any) -> Any:
        """The network's output as float32; shapes as the inner inferer gives them."""
        images = inputs.as_tensor() if hasattr(inputs, "as_tensor") else inputs
        if not isinstance(network, nn.Module):
            return self.inferer(images, network, *args, **kwargs).float()
        run = self._prepare(network)
        if self.channels_last:
            images = images.to(memory_format=_channels_last(images.ndim))
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            output = self.inferer(images, run, *args, **kwargs)
        return output.float()

    def _prepare(self, network: nn.Module) -> Any:
        if self._prepared is None or self._prepared[0] is not network:
            if self.channels_last:
                _lay_out_channels_last(network)
            self._prepared = (network, torch.compile(network) if self.compiled else network)
        return self._prepared[1]


def _channels_last(ndim: int) -> torch.memory_format:
    return torch.channels_last_3d if ndim == 5 else torch.channels_last


def _lay_out_channels_last(network: nn.Module) -> None:
    for parameter in network.parameters():
        if parameter.ndim in (4, 5):
            parameter.data = parameter.data.contiguous(memory_format=_channels_last(parameter.ndim))
