"""The 8-bit form of a network in the cache, and the verdict on it: only an accepted one is run."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from medimg3d.inference.backends.backend import WindowBatch
from medimg3d.inference.backends.converted import Entry, stored
from medimg3d.inference.backends.kinds import BackendError
from medimg3d.inference.backends.model_key import model_key

_NOTE = "verdict"


@dataclass(frozen=True)
class Verdict:
    """What quantization did to the Dice of validation cases.

    Attributes:
        accepted: Whether the fall is below the limit.
        reason: Why not; empty if accepted.
        before: Mean Dice in float32, one a class (or one in all); None if undefined.
        after: The same in int8.
        fall: Largest fall of a class's mean Dice; below zero if all rose, None if undefined.
        cases: Number of cases.
        scored_on: What the cases are, as the caller named them.
        calibration_sha256: Hash of the windows that it was quantized on.
    """

    accepted: bool
    reason: str
    before: tuple[float | None, ...]
    after: tuple[float | None, ...]
    fall: float | None
    cases: int
    scored_on: str
    calibration_sha256: str

    def as_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def int8_key(network: nn.Module, windows: WindowBatch, *, weights_sha256: str) -> dict[str, Any]:
    """What the 8-bit form depends on, its calibration apart."""
    return model_key("openvino-int8", network, windows, weights_sha256=weights_sha256, packages=["openvino"])


def accepted_entry(
    network: nn.Module, windows: WindowBatch, *, weights_sha256: str, cache_dir: Path
) -> Entry:
    """The 8-bit form that was accepted for these weights and windows.

    Raises:
        BackendError: There is none, or it was refused.
    """
    entry = stored(int8_key(network, windows, weights_sha256=weights_sha256), cache_dir)
    verdict = None if entry is None else read_verdict(entry)
    if entry is None or verdict is None:
        raise BackendError(
            "There is no 8-bit model of these weights and windows; quantize the bundle first, or choose "
            "openvino-f32."
        )
    if not verdict.accepted:
        raise BackendError(f"openvino-int8 was refused for these weights: {verdict.reason}")
    return entry


def read_verdict(entry: Entry) -> Verdict | None:
    """The verdict on an entry; None if there is none."""
    note = entry.note(_NOTE)
    try:
        return None if note is None else Verdict(**note)
    except TypeError:
        return None


def write_verdict(entry: Entry, verdict: Verdict) -> None:
    """Keep the verdict with its entry."""
    entry.write_note(_NOTE, verdict.as_json())
