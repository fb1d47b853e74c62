"""The interface: a callable that gives the network's outputs for a batch of windows, whatever works them out."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from types import TracebackType

import torch
from torch import nn

from medimg3d.inference.backends.kinds import BackendError, kind_of_backend
from medimg3d.inference.first_head import first_head

Run = Callable[[torch.Tensor], torch.Tensor]
"""Outputs (batch, classes, *window) of windows (batch, channels, *window), float32 on the backend's device."""

SEED = 20250
"""Of the window on which a backend is held against torch: random, but always the same."""


@dataclass(frozen=True)
class WindowBatch:
    """The windows that a backend is made for.

    Args:
        shape: Voxels along I, J[, K].
        channels: Channels of the image.
        batch: Windows in one call of a converted network.

    Raises:
        ValueError: The shape has not 2 or 3 axes, or a number is below 1.
    """

    shape: tuple[int, ...]
    channels: int = 1
    batch: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(int(size) for size in self.shape))
        if len(self.shape) not in (2, 3) or min(self.size) < 1:
            raise ValueError(
                f"expected windows of 2 or 3 axes and numbers of at least 1, got a window of {self.shape}, "
                f"{self.channels} channels, batches of {self.batch}"
            )

    @property
    def size(self) -> tuple[int, ...]:
        """Shape of the tensor, (batch, channels, *shape)."""
        return (self.batch, self.channels, *self.shape)

    def example(self) -> torch.Tensor:
        """The batch on which backends are held against torch: normal noise, always the same, float32."""
        return torch.randn(self.size, generator=torch.Generator().manual_seed(SEED))


class Backend:
    """Runs the windows of one network; give it to ``stream_windows`` in the network's place.

    A converted network takes batches of one size: a smaller batch (the last of a slab) is filled up with zeros
    and cut again, a larger one is run in parts. Outputs are the caller's own. As many calls at a time as it has
    streams.

    Args:
        name: Name in :data:`medimg3d.inference.backends.kinds.KINDS`.
        run: What works out a batch.
        windows: The windows that it is made for.
        device: Where it runs; windows from elsewhere are moved there.
        whole_batches: Whether ``run`` takes batches of ``windows.batch`` only.
        threads: Processor threads that it was made for; None if it follows torch's setting or runs on a GPU.
        streams: Calls that may go side by side.
        spare: Outputs that ``run`` may write into again; see :meth:`recycle`.

    Attributes:
        precision: ``"float32"``, ``"bfloat16"`` or ``"int8"``.
    """

    def __init__(
        self,
        name: str,
        run: Run,
        *,
        windows: WindowBatch,
        device: torch.device | str = "cpu",
        whole_batches: bool = False,
        threads: int | None = None,
        streams: int = 1,
        spare: list[torch.Tensor] | None = None,
    ) -> None:
        self.name = name
        self.precision = kind_of_backend(name).precision
        self.windows = windows
        self.device = torch.device(device)
        self.whole_batches = whole_batches
        self.threads = threads
        self.streams = streams
        self._spare = spare
        self._run: Run | None = run
        self._pool = ThreadPoolExecutor(streams, "windows") if streams > 1 else None

    # Not torch.inference_mode: its tensors refuse changes in place, and the outputs are the caller's own.
    @torch.no_grad()
    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        """Outputs of the network's first head.

        Args:
            windows: Shape (any batch, channels, *window), any floating type.

        Returns:
            Shape (batch, classes, *window), float32, on the backend's device.

        Raises:
            ValueError: The windows are not of the shape that the backend is made for.
            BackendError: The backend is closed.
        """
        if self._run is None:
            raise BackendError(f"{self.name} is closed; make the backend anew.")
        if windows.shape[0] < 1 or tuple(windows.shape[1:]) != self.windows.size[1:]:
            raise ValueError(
                f"Got windows of shape {tuple(windows.shape)}; {self.name} is made for "
                f"(batch, {', '.join(str(size) for size in self.windows.size[1:])})."
            )
        plain = windows.as_tensor() if hasattr(windows, "as_tensor") else windows
        windows = plain.detach().to(self.device, torch.float32)
        if not self.whole_batches:
            return self._run(windows).float()
        parts = windows.split(self.windows.batch)
        if len(parts) == 1:
            return _filled_up(self._run, parts[0], self.windows.batch)
        each = map if self._pool is None else self._pool.map
        return torch.cat(list(each(partial(_filled_up, self._run, batch=self.windows.batch), parts)))

    def recycle(self, outputs: torch.Tensor) -> None:
        """Give outputs back that nobody reads any more: a later call may write into them."""
        if (
            self._spare is not None
            and outputs.shape[0] == self.windows.batch
            and len(self._spare) <= self.streams
        ):
            self._spare.append(outputs)

    def close(self) -> None:
        """Free what it holds; a second time does nothing."""
        self._run = None
        self._spare = None
        if self._pool is not None:
            self._pool.shutdown()

    def __enter__(self) -> Backend:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class FirstHead(nn.Module):
    """A network whose output is the head that counts among several, as one plain tensor.

    Args:
        network: The network; shared, not copied.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Output (batch, classes, *window) of windows (batch, channels, *window)."""
        return first_head(self.network(windows))


def _filled_up(run: Run, windows: torch.Tensor, batch: int) -> torch.Tensor:
    count = windows.shape[0]
    if count == batch:
        return run(windows.contiguous())
    filled = windows.new_zeros((batch, *windows.shape[1:]))
    filled[:count] = windows
    return run(filled)[:count]
