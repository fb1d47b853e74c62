"""Several networks as one: the mean of what they say, as MONAI's ``MeanEnsemble`` makes it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from medimg3d.inference.ensemble_inferer import with_weights
from medimg3d.inference.first_head import first_head


@dataclass(frozen=True, eq=False)
class AveragedNetworks:
    """Networks whose predictions are averaged after each is stitched.

    Attributes:
        members: Each gives (batch, classes, *window) of (batch, channels, *window).
        probabilities: Average softmax probabilities (True), or raw outputs (False).
        further_sha256: Hash of the weights of every member but the first.

    Raises:
        ValueError: There is no member.
    """

    members: tuple[Callable[..., Any], ...]
    probabilities: bool = False
    further_sha256: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.members:
            raise ValueError("members must hold at least one network, got none")

    @classmethod
    def of(cls, network: Any) -> AveragedNetworks:
        """Any network, several in a list, or a :class:`NetworkMean`, as what is averaged."""
        if isinstance(network, AveragedNetworks):
            return network
        if isinstance(network, NetworkMean):
            return cls(tuple(network.members), network.softmax, network.further_sha256)
        return cls(tuple(network) if isinstance(network, list | tuple) else (network,))


class NetworkMean(nn.Module):
    """One network with several sets of weights, such as those of a cross-validation.

    In a bundle's config it stands around the network::

        "network_mean": {
          "_target_": "medimg3d.inference.network_mean.NetworkMean",
          "network": "@network_def",
          "checkpoints": ["$os.path.join(@bundle_root, 'models', 'fold1.pt')"]
        },
        "network": "$@network_mean.to(@device)"

    The first network has the weights that it came with, or that ``CheckpointLoader`` gives it: a state dict of a
    single network is loaded into the first one. ``StreamingInferer`` and ``LabelMapInferer`` stitch every network's
    prediction of the whole volume before they average: what MONAI's ``EnsembleEvaluator`` gives with
    ``Activationsd(softmax=True)`` and ``MeanEnsembled``. Any other inferer averages window by window.

    Args:
        network: The first network.
        checkpoints: Files of the others' weights: a state dict, alone or under ``"model"``.
        softmax: Give the mean of softmax probabilities (True): leave out the softmax that follows in the
            config. Or the mean of raw outputs (False).

    Attributes:
        members: The networks.
        further_sha256: Hash of each of ``checkpoints``.

    Raises:
        ValueError: There is no checkpoint, or one does not fit the network.
        OSError: A checkpoint cannot be read.
    """

    def __init__(
        self, network: nn.Module, checkpoints: Sequence[str | Path], *, softmax: bool = True
    ) -> None:
        super().__init__()
        if isinstance(checkpoints, str | Path) or not checkpoints:
            raise ValueError(f"checkpoints must list at least one file, got {checkpoints!r}")
        paths = [Path(path) for path in checkpoints]
        self.members = nn.ModuleList([network, *(with_weights(network, path) for path in paths)])
        self.softmax = softmax
        self.further_sha256 = tuple(hashlib.sha256(path.read_bytes()).hexdigest() for path in paths)

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Mean prediction of a batch, shape (batch, classes, *window), float32."""
        outputs = (first_head(member(windows)).float() for member in self.members)
        total = sum(torch.softmax(output, dim=1) if self.softmax else output for output in outputs)
        return torch.as_tensor(total) / len(self.members)

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Load its own state dict, or that of a single network into the first one; arguments as in torch."""
        if any(name.startswith("members.") for name in state_dict):
            return super().load_state_dict(state_dict, strict=strict, assign=assign)
        return self.members[0].load_state_dict(state_dict, strict=strict, assign=assign)
