"""Which of a network's outputs counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


def first_head(output: Any) -> torch.Tensor:
    """The first of several outputs, of a dictionary that of the least key, as in MONAI's sliding window."""
    if isinstance(output, Mapping):
        output = output[min(output)]
    elif isinstance(output, list | tuple):
        output = output[0]
    return output.as_tensor() if hasattr(output, "as_tensor") else output
