"""nnU-Net's own trainer with a length of one's own; nnU-Net finds it through ``nnUNet_extTrainer`` (from 2.8 on).

Runs in nnU-Net's environment. Environment variables:

- ``MEDIMG3D_STEPS``: training steps, or
- ``MEDIMG3D_UNTIL``: time (seconds since 1970) at which the training is to end. A few steps are timed first, and then
  forgotten: weights, optimizer and seeds begin anew.
- ``MEDIMG3D_SEED``: seed of weights, samples and augmentation; with one loading process (``nnUNet_n_proc_DA=1``) and
  a number of steps, a run can be repeated.

Network, loss, optimizer, augmentation, learning rate (0.01, polynomial over the epochs) and the share of the running
validation are nnU-Net's.
"""

from __future__ import annotations

import json
import os
import random
import time
from copy import deepcopy
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as trainer_module  # noqa: N813 - their name
from training_length import TrainingLength, length_of_steps, length_of_time

LENGTH = "medimg3d_length.json"
WARM_UP, TIMED = 6, 10
"""Steps; the first ones find batches that were loaded beforehand."""

MOST_OF_TIME = 0.02
"""Share of the time that is left which warming up and timing each may take; beyond it they end after a step."""


class BudgetTrainer(trainer_module.nnUNetTrainer):
    """nnU-Net's trainer for a number of steps or until a time."""

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cpu"),
    ) -> None:
        self.seed = int(os.environ.get("MEDIMG3D_SEED", "0"))
        self.seed_all(0)
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.save_every = 10
        if device.type == "cpu" and hasattr(os, "sched_getaffinity"):
            torch.set_num_threads(len(os.sched_getaffinity(0)))  # nnUNetv2_train takes all of the machine's
        file = Path(self.output_folder) / LENGTH
        if file.is_file():  # a run that is gone on with
            kept = json.loads(file.read_text())
            self.set_length(TrainingLength(kept["epochs"], kept["iterations"], kept["validation_iterations"]))
        elif "MEDIMG3D_STEPS" in os.environ:
            self.keep_length(length_of_steps(int(os.environ["MEDIMG3D_STEPS"])), {})

    def seed_all(self, part: int) -> None:
        """Seed every generator."""
        seed = int(np.random.SeedSequence([self.seed, part]).generate_state(1)[0])
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)

    def set_length(self, length: TrainingLength) -> None:
        """Take a length over."""
        self.num_epochs = length.epochs
        self.num_iterations_per_epoch = length.iterations
        self.num_val_iterations_per_epoch = length.validation_iterations

    def keep_length(self, length: TrainingLength, measured: dict[str, float]) -> None:
        """Take a length over and write it down."""
        self.set_length(length)
        file = Path(self.output_folder) / LENGTH
        file.write_text(json.dumps({**asdict(length), "steps": length.steps, **measured}))

    def get_dataloaders(self) -> Any:
        """The trainer's own loaders, their processes seeded."""
        original = trainer_module.NonDetMultiThreadedAugmenter
        trainer_module.NonDetMultiThreadedAugmenter = partial(
            _seeded, original, self.seed, self.current_epoch
        )
        try:
            return super().get_dataloaders()
        finally:
            trainer_module.NonDetMultiThreadedAugmenter = original

    def on_train_start(self) -> None:
        """As ever; then the length is fitted to the time, if it is not known yet."""
        super().on_train_start()
        if not (Path(self.output_folder) / LENGTH).is_file():
            step_s, validation_step_s = self.time_steps()
            left = float(os.environ["MEDIMG3D_UNTIL"]) - time.time()
            length = length_of_time(left, step_s=step_s, validation_step_s=validation_step_s)
            self.keep_length(length, {"step_s": step_s, "validation_step_s": validation_step_s})
            self.optimizer, self.lr_scheduler = self.configure_optimizers()  # over the new number of epochs
        self.seed_all(1 + self.current_epoch)

    def time_steps(self) -> tuple[float, float]:
        """Seconds of a training and of a validation step; the weights are as before."""
        weights = deepcopy(self.network.state_dict())
        most_s = MOST_OF_TIME * (float(os.environ["MEDIMG3D_UNTIL"]) - time.time())
        self.network.train()
        for number in (WARM_UP, TIMED):
            done, begin = 0, time.perf_counter()
            while done < number and (done == 0 or time.perf_counter() - begin < most_s):
                self.train_step(
                    next(self.dataloader_train)
                )  # ends with the loss on the CPU: nothing is pending
                done += 1
            step_s = (time.perf_counter() - begin) / done
        self.network.eval()
        with torch.no_grad():
            self.validation_step(next(self.dataloader_val))
            begin = time.perf_counter()
            self.validation_step(next(self.dataloader_val))
        validation_step_s = time.perf_counter() - begin
        self.network.load_state_dict(weights)
        return step_s, validation_step_s

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """Nothing: the held-out cases are predicted by nnU-Net's predictor, in a process of its own that is timed."""


def _seeded(original: Any, seed: int, epoch: int, **options: Any) -> Any:
    number = options["num_processes"]
    seeds = np.random.SeedSequence([seed, epoch, number]).generate_state(number)
    return original(**{**options, "seeds": [int(one) for one in seeds]})
