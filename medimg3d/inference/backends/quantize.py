"""8-bit networks by post-training quantization, taken only if the Dice of validation cases hardly falls.

The layers' ranges are measured on a few windows of training images (NNCF, "MIXED": weights symmetric,
activations not), with fast bias correction.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn

from medimg3d.errors import Medimg3dError, MissingExtraError
from medimg3d.inference.backends.agreement import Reference, check
from medimg3d.inference.backends.backend import Backend, WindowBatch
from medimg3d.inference.backends.choice import forget_choices
from medimg3d.inference.backends.converted import Entry, converted, default_cache_dir, discard, stored
from medimg3d.inference.backends.kinds import BackendError
from medimg3d.inference.backends.make import make_backend
from medimg3d.inference.backends.openvino_backend import (
    MODEL,
    import_openvino,
    openvino_backend,
    openvino_model,
)
from medimg3d.inference.backends.quantized import Verdict, int8_key, read_verdict, write_verdict
from medimg3d.inference.backends.quiet import quiet
from medimg3d.inference.backends.signal_stack import kept_signal_stack
from medimg3d.inference.backends.telemetry import without_telemetry

DICE_FALL_LIMIT = 0.002
"""The mean Dice of every class must fall by less than this."""

Score = Callable[[Backend], ArrayLike]
"""Dice of every validation case with a backend: shape (cases,) or (cases, classes); NaN where undefined."""


@dataclass(frozen=True)
class Quantized:
    """The outcome of a quantization.

    Attributes:
        backend: The 8-bit backend; None if it was not accepted.
        verdict: What it did to the Dice; None if there is no 8-bit model at all.
        reason: Why it was not accepted; empty if it was.
    """

    backend: Backend | None
    verdict: Verdict | None
    reason: str = ""


def quantize_if_good(
    network: nn.Module,
    calibration: Sequence[torch.Tensor],
    score: Score,
    *,
    scored_on: str,
    window_shape: tuple[int, ...],
    in_channels: int = 1,
    batch: int = 1,
    weights_sha256: str,
    cache_dir: Path | None = None,
) -> Quantized:
    """Quantize a network and keep the result if the Dice of validation cases falls by less than 0.002.

    A verdict stands as long as weights, windows, calibration and ``scored_on`` are the same: nothing is scored
    again. Once accepted, ``make_backend("openvino-int8", ...)`` gives the backend, and a backend chosen for these
    weights before is chosen anew.

    Args:
        network: The network with its weights, on the CPU; put into its evaluation mode.
        calibration: Windows of training images as the network gets them, each (channels, *window); 10 to 50 do.
        score: Gives the Dice of every validation case with a backend; called with ``openvino-f32``, then int8.
        scored_on: What the cases are, in words or by a hash (``"validation part of fold 0, 52 cases"``).
        window_shape: Voxels of a window along I, J[, K].
        in_channels: Channels of the image.
        batch: Windows in one call.
        weights_sha256: Hash of the file of the weights.
        cache_dir: Folder of converted networks; the user's own cache if None.

    Returns:
        The backend, or the reason why there is none.

    Raises:
        ValueError: There is no calibration window, or one is of another shape.
        MissingExtraError: OpenVINO or NNCF is not installed.
    """
    windows = WindowBatch(tuple(window_shape), in_channels, batch)
    cache = default_cache_dir() if cache_dir is None else cache_dir
    singles = _single_windows(calibration, windows)
    try:
        entry = _quantized(network, singles, windows, weights_sha256, cache)
        verdict = read_verdict(entry)
        if verdict is None or verdict.scored_on != scored_on:
            before = make_backend(
                "openvino-f32",
                network,
                window_shape=windows.shape,
                in_channels=in_channels,
                batch=batch,
                weights_sha256=weights_sha256,
                cache_dir=cache,
            )
            verdict = _judged(entry, before, windows, score, scored_on)
            write_verdict(entry, verdict)
            if verdict.accepted:
                forget_choices(weights_sha256, cache)
    except MissingExtraError:
        raise
    except Medimg3dError as err:
        return Quantized(None, None, str(err))
    if not verdict.accepted:
        return Quantized(None, verdict, verdict.reason)
    return Quantized(openvino_backend("openvino-int8", entry.folder, windows), verdict)


def judge(before: ArrayLike, after: ArrayLike) -> tuple[NDArray[Any], NDArray[Any], float, str]:
    """The acceptance rule, case by case.

    Args:
        before: Dice in float32, shape (cases,) or (cases, classes); NaN where undefined.
        after: Dice in int8, same shape.

    Returns:
        Mean of every class before and after, shape (classes,), over the cases where it is defined; the largest
        fall of a mean; and why it is refused, empty if it is not.

    Raises:
        ValueError: The shapes differ, or there is no case.
    """
    one, two = (np.asarray(dice, dtype=np.float64) for dice in (before, after))
    if one.shape != two.shape or one.ndim not in (1, 2) or one.size == 0:
        raise ValueError(
            f"expected the same cases twice, at least one, got shapes {one.shape} and {two.shape}"
        )
    one, two = one.reshape(len(one), -1), two.reshape(len(two), -1)
    if not np.array_equal(np.isnan(one), np.isnan(two)):
        return (
            _means(one),
            _means(two),
            float("inf"),
            ("the Dice of a case is defined with one precision and not with the other"),
        )
    means_before, means_after = _means(one), _means(two)
    if np.isnan(means_before).all():
        return means_before, means_after, float("inf"), "the Dice of no case is defined"
    fall = float(np.nanmax(means_before - means_after))
    refused = (
        ""
        if fall < DICE_FALL_LIMIT
        else (f"the mean Dice falls by {fall:.4f}; expected less than {DICE_FALL_LIMIT:g}")
    )
    return means_before, means_after, fall, refused


def _means(dice: NDArray[Any]) -> NDArray[Any]:
    """Mean of every column over what is not NaN; NaN if nothing is left."""
    there = ~np.isnan(dice)
    counts = there.sum(axis=0)
    sums = np.where(there, dice, 0.0).sum(axis=0)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _finite(values: NDArray[Any]) -> tuple[float | None, ...]:
    """As JSON can hold them."""
    return tuple(value if np.isfinite(value) else None for value in values.tolist())


def _judged(entry: Entry, before: Backend, windows: WindowBatch, score: Score, scored_on: str) -> Verdict:
    """Score both precisions, one after the other, so that only one holds memory."""
    with before:
        dice_before = np.asarray(score(before), dtype=np.float64)
    with openvino_backend("openvino-int8", entry.folder, windows) as after:
        dice_after = np.asarray(score(after), dtype=np.float64)
    means_before, means_after, fall, refused = judge(dice_before, dice_after)
    return Verdict(
        accepted=not refused,
        reason=refused,
        before=_finite(means_before),
        after=_finite(means_after),
        fall=_finite(np.asarray([fall]))[0],
        cases=len(dice_before),
        scored_on=scored_on,
        calibration_sha256=entry.facts["calibration_sha256"],
    )


def _quantized(
    network: nn.Module,
    singles: list[NDArray[np.float32]],
    windows: WindowBatch,
    weights_sha256: str,
    cache_dir: Path,
) -> Entry:
    """The 8-bit form, made on these very windows."""
    key = int8_key(network, windows, weights_sha256=weights_sha256)
    calibration = hashlib.sha256(b"".join(window.tobytes() for window in singles)).hexdigest()
    entry = stored(key, cache_dir)
    if entry is not None and entry.facts.get("calibration_sha256") != calibration:
        discard(entry)

    def convert(folder: Path) -> Mapping[str, Any]:
        _write_quantized(openvino_model(network, windows), singles, folder)
        return {"calibration_sha256": calibration, "windows": len(singles), "nncf": version("nncf")}

    def agreement(folder: Path) -> Mapping[str, Any]:
        with openvino_backend("openvino-int8", folder, windows) as fresh:
            return check(fresh, Reference(network, windows)).as_json()

    return converted(key, cache_dir, convert=convert, check=agreement)


def _write_quantized(model: Any, singles: list[NDArray[np.float32]], folder: Path) -> None:
    nncf = _import_nncf()
    try:
        with quiet("nncf"), without_telemetry(), kept_signal_stack():
            quantized = nncf.quantize(
                model,
                nncf.Dataset(singles),
                preset=nncf.QuantizationPreset.MIXED,
                target_device=nncf.TargetDevice.CPU,
                subset_size=len(singles),
            )
    except Exception as err:
        raise BackendError(f"NNCF cannot quantize the network ({type(err).__name__}).") from err
    import_openvino().save_model(quantized, folder / MODEL, compress_to_fp16=False)


def _single_windows(calibration: Sequence[torch.Tensor], windows: WindowBatch) -> list[NDArray[np.float32]]:
    """The windows as the converted network takes them, each (1, channels, *window)."""
    wanted = windows.size[1:]
    if not calibration:
        raise ValueError("expected at least one calibration window, got none")
    for window in calibration:
        if tuple(window.shape) != wanted:
            raise ValueError(f"expected calibration windows of shape {wanted}, got {tuple(window.shape)}")
    return [np.asarray(window.detach().cpu(), dtype=np.float32)[None] for window in calibration]


def _import_nncf() -> Any:
    import_openvino()
    try:
        with quiet("nncf"), without_telemetry():
            import nncf
    except ImportError as err:
        raise MissingExtraError("nncf", "int8") from err
    return nncf
