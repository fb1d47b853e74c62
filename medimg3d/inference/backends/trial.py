"""``--backend auto``: a short measured trial picks the fastest backend that gives torch's answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from medimg3d.errors import Medimg3dError
from medimg3d.inference.backends.agreement import Reference, check
from medimg3d.inference.backends.backend import Backend, WindowBatch
from medimg3d.inference.backends.choice import Choice, read_choice, write_choice
from medimg3d.inference.backends.converted import default_cache_dir
from medimg3d.inference.backends.kinds import BackendError, kind_of_backend, problem
from medimg3d.inference.backends.kinds import candidates as usual_candidates
from medimg3d.inference.backends.machine import machine_name
from medimg3d.inference.backends.make import build
from medimg3d.inference.backends.model_key import versions

BUDGET_S = 60.0
ROUNDS = 3
CONTENDER = 2.0
"""Only backends whose first time is within this factor of the best one run again."""
_PACKAGES = ("openvino", "onnxruntime", "tensorrt")

Clock = Callable[[], float]


def choose_backend(
    candidates: Sequence[str] | None,
    network: nn.Module,
    *,
    window_shape: tuple[int, ...],
    in_channels: int = 1,
    batch: int = 1,
    weights_sha256: str,
    cache_dir: Path | None = None,
    device: torch.device | str = "cpu",
    allow_reduced: bool = False,
    budget_s: float = BUDGET_S,
    again: bool = False,
    on_trial: Callable[[str], None] | None = None,
    clock: Clock = time.perf_counter,
) -> Choice:
    """The fastest backend, by a trial or as remembered from one.

    Every candidate is made, held against torch in float32 (which warms it up) and timed once; those within a
    factor of two of the best are timed again in turn, three times in all. The choice is remembered for the same
    machine, threads, weights, windows, candidates and versions.

    Args:
        candidates: Backends to try; those worth it on the device if None.
        network: The network with its weights, on the device; put into its evaluation mode.
        window_shape: Voxels of a window along I, J[, K].
        in_channels: Channels of the image.
        batch: Windows in one call.
        weights_sha256: Hash of the file of the weights.
        cache_dir: Folder of converted networks and choices; the user's own cache if None.
        device: Where it is to run.
        allow_reduced: Whether bfloat16 and int8 count; results then differ a little from float32.
        budget_s: Seconds of running, conversions apart, after which nothing further is tried or timed again.
        again: Make a new trial even if a choice is remembered.
        on_trial: Called with the name of each backend before it is made.
        clock: Seconds; for tests.

    Raises:
        UsageError: There is no backend of a name.
        BackendError: None of the candidates can run.
    """
    windows = WindowBatch(tuple(window_shape), in_channels, batch)
    cache = default_cache_dir() if cache_dir is None else cache_dir
    device = torch.device(device)
    names = _names(candidates, device, allow_reduced)
    facts = _facts(names, windows, weights_sha256, device, allow_reduced)
    if not again and (known := read_choice(facts, cache)) is not None:
        return known
    reference = Reference(network, windows, device)

    def make(name: str) -> Backend:
        return build(
            name,
            network,
            windows,
            weights_sha256=weights_sha256,
            cache_dir=cache,
            device=device,
            reference=reference,
        )

    trial = _Trial(make, reference, budget_s, clock)
    for name in names:
        if kind_of_backend(name).reduced and not allow_reduced:
            trial.passed_over[name] = "its results differ from float32, which was not asked for"
            continue
        if on_trial is not None:
            on_trial(name)
        trial.enter(name)
    choice = trial.decide(facts["machine"])
    write_choice(choice, facts, cache)
    return choice


def remembered_choice(
    candidates: Sequence[str] | None = None,
    *,
    window_shape: tuple[int, ...],
    in_channels: int = 1,
    batch: int = 1,
    weights_sha256: str,
    cache_dir: Path | None = None,
    device: torch.device | str = "cpu",
    allow_reduced: bool = False,
) -> Choice | None:
    """The choice of an earlier trial with the same arguments on the same machine; None if there is none."""
    device = torch.device(device)
    names = _names(candidates, device, allow_reduced)
    windows = WindowBatch(tuple(window_shape), in_channels, batch)
    facts = _facts(names, windows, weights_sha256, device, allow_reduced)
    return read_choice(facts, default_cache_dir() if cache_dir is None else cache_dir)


@dataclass
class _Trial:
    """One trial under way."""

    make: Callable[[str], Backend]
    reference: Reference
    budget_s: float
    clock: Clock
    spent_s: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)
    passed_over: dict[str, str] = field(default_factory=dict)
    live: dict[str, Backend] = field(default_factory=dict)

    def enter(self, name: str) -> None:
        """Make, check and time one backend, or say why not."""
        if self.spent_s >= self.budget_s:
            self.passed_over[name] = f"not tried: the trial's {self.budget_s:g} s were over"
            return
        backend: Backend | None = None
        try:
            backend = self.make(name)
            self._warm_up(backend)
            self.seconds[name] = self._timed(partial(_run, backend, self.reference))
        except Exception as err:  # noqa: BLE001 - whatever one backend stumbles over, the others may do
            if backend is not None:
                backend.close()
            self.passed_over[name] = str(err) if isinstance(err, Medimg3dError) else _first_line(err)
            return
        self.live[name] = backend
        self._drop_the_slow()

    def decide(self, machine: str) -> Choice:
        """Time the contenders again, in turn; the fastest."""
        for _ in range(ROUNDS - 1):
            for name, backend in self.live.items():
                if len(self.live) > 1 and self.spent_s < self.budget_s:
                    again = self._timed(partial(_run, backend, self.reference))
                    self.seconds[name] = min(self.seconds[name], again)
        for backend in self.live.values():
            backend.close()
        if not self.live:
            reasons = "; ".join(f"{name}: {why}" for name, why in self.passed_over.items())
            raise BackendError(f"No backend can run this network here. {reasons}")
        count = self.reference.windows.batch
        return Choice(
            name=min(self.live, key=lambda name: self.seconds[name]),
            seconds={name: taken / count for name, taken in self.seconds.items()},
            passed_over=self.passed_over,
            machine=machine,
        )

    def _warm_up(self, backend: Backend) -> None:
        if backend.name == "torch":  # the reference itself
            self._timed(lambda: self.reference.output)
        else:
            self._timed(partial(check, backend, self.reference))

    def _timed(self, work: Callable[[], Any]) -> float:
        started = self.clock()
        work()
        taken = self.clock() - started
        self.spent_s += taken
        return taken

    def _drop_the_slow(self) -> None:
        best = min(self.seconds[name] for name in self.live)
        for name in [name for name in self.live if self.seconds[name] > CONTENDER * best]:
            self.live.pop(name).close()


def _run(backend: Backend, reference: Reference) -> None:
    backend(reference.example)
    if backend.device.type == "cuda":
        torch.cuda.synchronize(backend.device)


def _names(candidates: Sequence[str] | None, device: torch.device, allow_reduced: bool) -> list[str]:
    """What to try, each once."""
    if candidates is None:
        return usual_candidates(str(device), allow_reduced=allow_reduced)
    return list(dict.fromkeys(candidates))


def _facts(
    names: Sequence[str],
    windows: WindowBatch,
    weights_sha256: str,
    device: torch.device,
    allow_reduced: bool,
) -> dict[str, Any]:
    """All that a choice depends on."""
    machine = machine_name(str(device))
    if device.type == "cpu":
        machine += f", {torch.get_num_threads()} threads"
    return {
        "weights_sha256": weights_sha256,
        "windows": list(windows.size),
        "machine": machine,
        "allow_reduced": allow_reduced,
        "candidates": sorted(names),
        "can_run": sorted(name for name in names if problem(name, str(device)) is None),
        "versions": versions(_PACKAGES),
    }


def _first_line(err: Exception) -> str:
    lines = str(err).strip().splitlines()
    return f"{type(err).__name__}: {lines[0][:160]}" if lines else type(err).__name__
