"""Dice and cross-entropy, or focal loss, for label maps with overlapping regions or with voxels that nobody labelled.

Bundles carry a copy of this file: it imports nothing of medimg3d.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.losses import MaskedDiceLoss
from torch import nn


class SchemeLoss(nn.Module):
    """Batch Dice plus cross-entropy over the labelled voxels.

    Without regions the classes exclude each other (softmax, the background left out of Dice); with regions each
    output is its own yes or no (sigmoid, binary cross-entropy).

    Args:
        regions: Label values of each region; None for plain classes.
        ignore_label: Value of voxels that count in neither part; None without.
        focal: Focal loss (gamma 2) instead of the cross-entropy, as in MONAI's ``DiceFocalLoss``: each output its
            own yes or no, the background left out. Source: Lin et al. 2017, arXiv:1708.02002.
    """

    def __init__(
        self,
        regions: Sequence[Sequence[int]] | None = None,
        ignore_label: int | None = None,
        *,
        focal: bool = False,
    ) -> None:
        super().__init__()
        self.focal = focal
        self.regions = [list(values) for values in regions] if regions else None
        self.ignore_label = ignore_label
        self.dice = MaskedDiceLoss(
            include_background=self.regions is not None,
            to_onehot_y=self.regions is None,
            softmax=self.regions is None,
            sigmoid=self.regions is not None,
            batch=True,
        )

    def forward(self, outputs: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """The loss.

        Args:
            outputs: Scores before softmax or sigmoid, shape (B, C, *spatial).
            label: Label map, shape (B, 1, *spatial).

        Returns:
            A number; 0 where no voxel is labelled.
        """
        known = torch.ones_like(label, dtype=torch.bool)
        if self.ignore_label is not None:
            known = label != self.ignore_label
        label = torch.where(known, label, torch.zeros_like(label)).long()
        num_known = known.sum()
        target = label
        if self.regions is not None:
            target = self._members(label, self.regions).to(outputs.dtype)
            voxelwise = self._yes_or_no(outputs, target)
        elif self.focal:
            classes = [[value] for value in range(1, outputs.shape[1])]
            voxelwise = self._yes_or_no(outputs[:, 1:], self._members(label, classes).to(outputs.dtype))
        else:
            voxelwise = nn.functional.cross_entropy(outputs, label[:, 0], reduction="none")[:, None]
        entropy = (voxelwise * known).sum() / num_known.clamp(min=1)
        loss: torch.Tensor = self.dice(outputs, target, known.to(outputs.dtype)) + entropy
        return loss

    @staticmethod
    def _members(label: torch.Tensor, groups: Sequence[Sequence[int]]) -> torch.Tensor:
        """Which voxels hold one of the values, a channel for each group."""
        return torch.cat([torch.isin(label, torch.tensor(v, device=label.device)) for v in groups], dim=1)

    def _yes_or_no(self, outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Binary cross-entropy or focal loss of each voxel, the mean over the channels."""
        entropy = nn.functional.binary_cross_entropy_with_logits(outputs, target, reduction="none")
        if self.focal:
            entropy = (
                1 - torch.exp(-entropy)
            ) ** 2 * entropy  # exp(-entropy): what the right answer is given
        return entropy.mean(dim=1, keepdim=True)
