"""Whether a backend gives what torch gives: both run on one window that is always the same."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property

import torch
from torch import nn

from medimg3d.inference.backends.backend import Backend, FirstHead, WindowBatch
from medimg3d.inference.backends.kinds import BackendError

FLOAT32_LIMIT = 1e-3
"""Largest difference of float32 outputs, as a share of the largest output."""
BFLOAT16_LIMIT = 0.1
"""The same in bfloat16: catches a wrong conversion, and leaves the accuracy to be judged by Dice."""
LIMITS = {"float32": FLOAT32_LIMIT, "bfloat16": BFLOAT16_LIMIT, "int8": float("inf")}
"""By precision; int8 is accepted or refused by Dice alone, noise is not what it was quantized for."""


@dataclass(frozen=True)
class Agreement:
    """How far outputs are from torch's.

    Attributes:
        relative: Largest absolute difference of the outputs, divided by torch's largest absolute output.
        probability: Largest absolute difference of the class probabilities (softmax; sigmoid of one class).
    """

    relative: float
    probability: float

    def as_json(self) -> dict[str, float]:
        """As plain values."""
        return asdict(self)


class Reference:
    """What torch gives in float32 for the windows' example, worked out when it is first asked for.

    Args:
        network: The network; put into its evaluation mode.
        windows: The windows.
        device: Where the network is.
    """

    def __init__(self, network: nn.Module, windows: WindowBatch, device: torch.device | str = "cpu") -> None:
        self.network = network
        self.windows = windows
        self.device = torch.device(device)

    @cached_property
    def example(self) -> torch.Tensor:
        """The windows that it is worked out for, on the device."""
        return self.windows.example().to(self.device)

    @cached_property
    def output(self) -> torch.Tensor:
        """Shape (batch, classes, *window), float32, in the computer's own memory."""
        self.network.eval()
        with torch.no_grad():
            return FirstHead(self.network)(self.example).float().cpu()


def agreement(output: torch.Tensor, expected: torch.Tensor) -> Agreement:
    """Compare two outputs.

    Args:
        output: A backend's, shape (batch, classes, *window).
        expected: Torch's.

    Returns:
        The differences; NaN if there is a NaN in either.

    Raises:
        BackendError: The shapes differ.
    """
    if output.shape != expected.shape:
        raise BackendError(
            f"got outputs of shape {tuple(output.shape)}, expected torch's {tuple(expected.shape)}; "
            "choose another backend"
        )
    largest = float(expected.abs().max())
    apart = float((output - expected).abs().max())
    relative = apart / largest if largest > 0 else (0.0 if apart == 0 else float("inf"))
    return Agreement(relative, float((_probabilities(output) - _probabilities(expected)).abs().max()))


def check(backend: Backend, reference: Reference) -> Agreement:
    """Run a backend on the example and hold it against torch.

    Raises:
        BackendError: It is further from torch than its precision explains.
    """
    found = agreement(backend(reference.example).cpu(), reference.output)
    limit = LIMITS[backend.precision]
    if not found.relative <= limit:  # also NaN
        raise BackendError(
            f"{backend.name} differs from torch by {found.relative:.2g} of the largest output; expected at most "
            f"{limit:g}. Choose another backend."
        )
    return found


def _probabilities(outputs: torch.Tensor) -> torch.Tensor:
    return torch.sigmoid(outputs) if outputs.shape[1] == 1 else torch.softmax(outputs, dim=1)
