"""Everything that a converted network depends on, so that it is never used for another one."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from torch import nn

from medimg3d.inference.backends.backend import WindowBatch
from medimg3d.inference.backends.machine import machine_name

FORMAT = 1


def model_key(
    form: str,
    network: nn.Module,
    windows: WindowBatch,
    *,
    weights_sha256: str,
    packages: Sequence[str] = (),
    device: str = "cpu",
) -> dict[str, Any]:
    """What a converted network depends on.

    Args:
        form: What it is converted to, ``"openvino"``.
        network: The network.
        windows: The windows it is converted for.
        weights_sha256: Hash of the file of its weights.
        packages: Packages that convert it and run it; their versions count, and torch's and MONAI's.
        device: Where it is to run.

    Returns:
        Plain values, for JSON.
    """
    return {
        "format": FORMAT,
        "form": form,
        "weights_sha256": weights_sha256,
        "network_sha256": network_sha256(network),
        "windows": list(windows.size),
        "versions": versions(packages),
        "machine": machine_name(device),
    }


def key_digest(key: Mapping[str, Any]) -> str:
    """Hash of plain values, 32 hexadecimal digits."""
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Versions of torch, MONAI and the packages that are installed."""
    return {name: found for name in ("torch", "monai", *packages) if (found := _version(name))}


def network_sha256(network: nn.Module) -> str:
    """Hash of a network but for its numbers: its modules' classes and settings, the code, the numbers' shapes.

    Settings are those that ``repr`` shows and the attributes that are plain values.
    """
    lines = [f"{name} {tuple(value.shape)} {value.dtype}" for name, value in network.state_dict().items()]
    for name, module in network.named_modules():
        lines.append(f"{name} {_class_name(type(module))} {module.extra_repr()} {_plain_attributes(module)}")
    lines += sorted({_source_sha256(type(module)) for module in network.modules()})
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _class_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _plain_attributes(module: nn.Module) -> list[tuple[str, Any]]:
    settings = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    settings.pop("training", None)
    return sorted((name, value) for name, value in settings.items() if _is_plain(value))


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_plain(inner) for inner in value)
    return value is None or isinstance(value, bool | int | float | str)


def _source_sha256(kind: type) -> str:
    """Hash of the code of a class; torch's own is told by its version."""
    if kind.__module__.split(".")[0] == "torch":
        return ""
    try:
        source = inspect.getsource(kind)
    except (OSError, TypeError):
        source = ""
    return hashlib.sha256(source.encode()).hexdigest()
