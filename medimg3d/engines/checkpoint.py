"""A checkpoint from which a killed run goes on to the very end it would have reached.

MONAI's ``CheckpointSaver`` writes in place by default and saves neither the random state nor what the run
was begun with. Here one file per run is replaced atomically when an epoch, its validation included, is whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events

from medimg3d.atomic import atomic_file
from medimg3d.errors import BundleError

FORMAT = 1


class ResumableCheckpoint:
    """Saves after each epoch; with ``resume``, first restores the last whole epoch.

    Attach it after every other handler that acts on ``EPOCH_COMPLETED``. In a distributed run rank 0 writes
    and all ranks read.

    Args:
        path: The checkpoint file.
        objects: What to save, by name: anything with ``state_dict`` and ``load_state_dict``.
        settings: What the run was begun with (plain values); resuming with others is refused.
        resume: Restore from ``path`` if it exists.
        rank: Rank of this process.
    """

    def __init__(
        self,
        path: Path | str,
        objects: Mapping[str, Any],
        settings: Mapping[str, Any] | None = None,
        resume: bool = False,
        rank: int = 0,
    ) -> None:
        self.path = Path(path)
        self.objects = dict(objects)
        self.settings = dict(settings or {})
        self.resume = resume
        self.rank = rank

    def attach(self, engine: Engine) -> None:
        """Restore when the trainer starts, save when an epoch is completed."""
        engine.add_event_handler(Events.STARTED, self.restore)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.save)

    def save(self, engine: Engine) -> None:
        """Write the state after this epoch."""
        if self.rank > 0:
            return
        state = {
            "format": FORMAT,
            "settings": self.settings,
            "epoch": engine.state.epoch,
            "iteration": engine.state.iteration,
            "random_state": torch.get_rng_state(),
            "objects": {name: thing.state_dict() for name, thing in self.objects.items()},
        }
        with atomic_file(self.path) as temporary:
            torch.save(state, temporary)

    def restore(self, engine: Engine) -> None:
        """Load the last whole epoch into the objects and the trainer, if asked to and there is one.

        Raises:
            BundleError: The checkpoint was begun with other settings, or is of an unknown format.
        """
        if not (self.resume and self.path.is_file()):
            return
        state = torch.load(self.path, map_location="cpu", weights_only=True)
        if state.get("format") != FORMAT:
            raise BundleError(f"Checkpoint has format {state.get('format')}; expected {FORMAT}. Train anew.")
        self._refuse_other_settings(state["settings"])
        for name, thing in self.objects.items():
            thing.load_state_dict(state["objects"][name])
        engine.state.epoch = state["epoch"]
        engine.state.iteration = state["iteration"]
        torch.set_rng_state(state["random_state"])

    def _refuse_other_settings(self, begun: Mapping[str, Any]) -> None:
        for name in sorted(set(begun) | set(self.settings)):
            if begun.get(name) != self.settings.get(name):
                raise BundleError(
                    f"The run was begun with {name} {begun.get(name)} and is resumed with {self.settings.get(name)}; "
                    "expected the same. Resume with the first value, or train into another folder."
                )
