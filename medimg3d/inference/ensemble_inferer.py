"""Several networks whose predictions are averaged: the members of a cross-validation as one bundle.

Bundles carry a copy of this file: it imports nothing of medimg3d.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from monai.inferers import Inferer
from torch import nn


class MemberNetworks(nn.Module):
    """The networks of an ensemble, each with its own weights.

    Args:
        networks: One network a configuration.
        checkpoints: Files of weights for each of ``networks``: a state dict, alone or under ``"model"``. The first
            member of the first configuration has none here: it is loaded like a single network, by
            ``CheckpointLoader``.
        sha256: Hash of each file, in the same form; not checked if None.

    Attributes:
        members: The networks.
        kinds: Number of each member's configuration.

    Raises:
        ValueError: The lists do not fit each other, a hash differs, or weights do not fit their network.
        OSError: A file cannot be read.
    """

    def __init__(
        self,
        networks: Sequence[nn.Module],
        checkpoints: Sequence[Sequence[str]],
        sha256: Sequence[Sequence[str]] | None = None,
    ) -> None:
        super().__init__()
        if not networks or len(networks) != len(checkpoints):
            raise ValueError(f"got {len(networks)} networks and {len(checkpoints)} lists of checkpoints")
        members, kinds = [networks[0]], [0]
        for kind, (network, files) in enumerate(zip(networks, checkpoints, strict=True)):
            hashes = [None] * len(files) if sha256 is None else sha256[kind]
            for file, expected in zip(files, hashes, strict=True):
                members.append(with_weights(network, Path(file), expected))
                kinds.append(kind)
        self.members = nn.ModuleList(members)
        self.kinds = tuple(kinds)

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Mean softmax of a batch of windows, shape (batch, classes, *window), float32."""
        total: Any = sum(torch.softmax(member(windows).float(), dim=1) for member in self.members)
        return torch.as_tensor(total / len(self.members))

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Load its own state dict, or that of a single network into the first one; arguments as in torch."""
        if any(name.startswith("members.") for name in state_dict):
            return super().load_state_dict(state_dict, strict=strict, assign=assign)
        return self.members[0].load_state_dict(state_dict, strict=strict, assign=assign)


class EnsembleInferer(Inferer):
    """The mean class probabilities of an ensemble's members, each run by the inferer of its configuration.

    A member's prediction is whole before it is averaged, as with MONAI's ``EnsembleEvaluator`` and
    ``MeanEnsembled``; but one is held at a time, and configurations may have windows of their own.

    Args:
        inferers: One a configuration.
        softmax: Whether each inferer gives raw outputs, which a softmax makes probabilities.

    Raises:
        ValueError: The lists differ in length.
    """

    def __init__(self, inferers: Sequence[Inferer], softmax: Sequence[bool]) -> None:
        super().__init__()
        if not inferers or len(inferers) != len(softmax):
            raise ValueError(f"got {len(inferers)} inferers and {len(softmax)} values of softmax")
        self.inferers = tuple(inferers)
        self.softmax = tuple(softmax)

    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """Mean probabilities, shape (B, classes, I, J[, K]), float32; arguments as of any inferer."""
        total: Any = None
        count = 0
        for probabilities in self.each(inputs, network, *args, **kwargs):
            total = probabilities if total is None else total + probabilities
            count += 1
        return torch.as_tensor(total / count)

    def each(
        self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Iterator[torch.Tensor]:
        """The probabilities of one member after the other; ``network`` alone if it is no ensemble."""
        members: Any = network.members if isinstance(network, MemberNetworks) else [network]
        kinds = network.kinds if isinstance(network, MemberNetworks) else (0,)
        for member, kind in zip(members, kinds, strict=True):
            output = self.inferers[kind](inputs, member, *args, **kwargs).float()
            yield torch.softmax(output, dim=1) if self.softmax[kind] else output


def with_weights(network: nn.Module, path: Path, sha256: str | None = None) -> nn.Module:
    """A copy of a network with the weights of a file, checked against a hash if one is given."""
    if sha256 is not None and (found := hashlib.sha256(path.read_bytes()).hexdigest()) != sha256:
        raise ValueError(f"{path.name} has the sha256 {found}; expected {sha256}. Restore the file.")
    other = deepcopy(network)
    state = torch.load(path, map_location="cpu", weights_only=True)
    try:
        other.load_state_dict(state.get("model", state))
    except RuntimeError as err:
        first = str(err).strip().splitlines()[0].rstrip(":")
        raise ValueError(f"{path.name} does not fit the network ({first[:160]})") from err
    return other
