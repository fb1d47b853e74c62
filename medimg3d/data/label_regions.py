"""Overlapping regions of label maps: what they unite, and how one label map stands for all of them.

A bundle of regions writes 1 where a voxel belongs to the first region, 2 for the second, and so on; where several
overlap, the last one wins. Of nested regions nothing is lost: what lies in the core lies in the whole. Of regions that
overlap otherwise the earlier one loses the part in common.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medimg3d.data.json_file import is_int
from medimg3d.errors import DataError, UsageError

_EXAMPLE = '{"whole": [1, 2], "core": [2]}'


@dataclass(frozen=True)
class LabelRegions:
    """Regions in their order: the one of most values first, as a planned bundle has them.

    Attributes:
        values: Region → the label values that it unites.
    """

    values: Mapping[str, tuple[int, ...]]

    @classmethod
    def of(cls, found: object) -> LabelRegions | None:
        """The regions of a datalist, of a bundle's metadata or of a person; None of nothing.

        Raises:
            DataError: It is no object of lists of whole numbers from 1.
        """
        if not found:
            return None
        if not isinstance(found, Mapping):
            raise DataError(f'"regions" is no object of lists; expected {_EXAMPLE}.')
        for name, values in found.items():
            is_list = isinstance(values, Sequence) and not isinstance(values, str) and len(values) > 0
            if not is_list or not all(is_int(value) and value > 0 for value in values):
                raise DataError(
                    f'"regions" has {values!r} for {name}; expected whole numbers from 1: {_EXAMPLE}.'
                )
        regions = {str(name): tuple(values) for name, values in found.items()}
        return cls(dict(sorted(regions.items(), key=lambda item: -len(item[1]))))

    @property
    def names(self) -> dict[int, str]:
        """Value in the bundle's label maps → region."""
        return dict(enumerate(self.values, start=1))

    @property
    def label_values(self) -> set[int]:
        """Every value that a region unites."""
        return {value for values in self.values.values() for value in values}

    def within(self, number: int) -> tuple[int, ...]:
        """Values of the bundle's label maps that lie in a region: its own, and those of later regions nested in it.

        Args:
            number: The region, from 1.
        """
        sets = [set(values) for values in self.values.values()]
        return tuple(n for n in range(number, len(sets) + 1) if sets[n - 1] <= sets[number - 1])

    @property
    def lossy(self) -> list[tuple[str, str]]:
        """Pairs of regions that overlap without the later being nested: the first one's part in common is lost."""
        return [
            (first, second)
            for (first, own), (second, other) in combinations(self.values.items(), 2)
            if set(own) & set(other) and not set(other) <= set(own)
        ]

    def as_map(self, labels: NDArray[Any]) -> NDArray[np.uint8]:
        """The label map that a bundle of these regions would write for original label values.

        Args:
            labels: Label map, any shape.
        """
        made = np.zeros(labels.shape, dtype=np.uint8)
        for number, values in enumerate(self.values.values(), start=1):
            made[np.isin(labels, values)] = number
        return made

    def as_json(self) -> dict[str, list[int]]:
        """Region → values."""
        return {name: list(values) for name, values in self.values.items()}

    def __str__(self) -> str:
        return ", ".join(f"{name} = {'+'.join(map(str, values))}" for name, values in self.values.items())


def read_regions(text: str) -> LabelRegions:
    """Regions from JSON, or from a JSON file that holds them, alone or under ``"regions"`` (a datalist).

    Raises:
        UsageError: It is neither.
        DataError: As :meth:`LabelRegions.of`.
    """
    try:
        content = json.loads(
            text if text.lstrip().startswith("{") else Path(text).read_text(encoding="utf-8")
        )
    except (OSError, ValueError) as err:
        raise UsageError(
            f"--regions {text} is neither JSON nor a JSON file ({type(err).__name__}); expected '{_EXAMPLE}'."
        ) from err
    found = LabelRegions.of(content.get("regions", content) if isinstance(content, dict) else content)
    if found is None:
        raise UsageError(f"--regions {text} names no region; expected '{_EXAMPLE}'.")
    return found


def mask_folder(number: int, name: str) -> str:
    """Folder, below the predictions, of a region's own masks: ``regions/2_core``."""
    return f"regions/{number}_{re.sub(r'[^0-9a-zA-Z]+', '_', name).strip('_')}"
