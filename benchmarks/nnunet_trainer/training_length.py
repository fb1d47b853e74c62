"""How long nnU-Net trains: the epochs and iterations of a wall time or of a number of steps. Needs no nnU-Net."""

from __future__ import annotations

from dataclasses import dataclass

MOST_ITERATIONS = 250
"""Of an epoch: nnU-Net's own number."""

LEAST_EPOCHS = 50
"""nnU-Net's learning rate falls once an epoch (1,000 by default): few long epochs would never let it become small."""

VALIDATION_SHARE = 5
"""nnU-Net's own: an iteration of its running validation for five of training."""

OVERHEAD = 1.03
"""Checkpoints and the progress picture after each epoch."""


@dataclass(frozen=True)
class TrainingLength:
    """Epochs, and the iterations of each.

    Attributes:
        epochs: Number of epochs.
        iterations: Training steps of an epoch.
        validation_iterations: Of the running validation, which chooses nothing here.
    """

    epochs: int
    iterations: int
    validation_iterations: int

    @property
    def steps(self) -> int:
        """Training steps in all."""
        return self.epochs * self.iterations


def length_of_steps(steps: int) -> TrainingLength:
    """This many steps, or up to 2 % fewer so that all epochs are of one length.

    Raises:
        ValueError: Fewer than one step.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}.")
    iterations = max(1, min(MOST_ITERATIONS, steps // LEAST_EPOCHS))
    return TrainingLength(steps // iterations, iterations, max(1, round(iterations / VALIDATION_SHARE)))


def length_of_time(seconds: float, *, step_s: float, validation_step_s: float) -> TrainingLength:
    """As many steps as the time allows; at least one.

    Args:
        seconds: Time that is left.
        step_s: Seconds of a training step, loading included.
        validation_step_s: Seconds of a step of the running validation.
    """
    whole_step_s = OVERHEAD * (step_s + validation_step_s / VALIDATION_SHARE)
    return length_of_steps(max(1, int(seconds / whole_step_s)))
