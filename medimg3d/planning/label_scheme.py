"""What the values of label maps mean to a network: classes, overlapping regions, voxels to ignore."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from medimg3d.data.datalist import Datalist
from medimg3d.data.label_regions import LabelRegions
from medimg3d.errors import DataError

MOST_LABEL = 255
"""Label maps are read with 8 bits."""

_SIDES = {"left", "right", "l", "r", "lh", "rh", "lt", "rt"}
"""Words that name a side, as they occur in the labels of public sets."""


@dataclass(frozen=True)
class LabelScheme:
    """Label maps as a network learns them.

    Attributes:
        labels: Value to name, 0 the background; without the ignored value.
        regions: Region name to the label values it unites, the larger first; empty without regions. Where a voxel
            belongs to several regions, the label map that comes out of a prediction names the last one.
        ignore_label: Value of voxels that nobody labelled; they count in no loss and no score. None without.
    """

    labels: Mapping[int, str]
    regions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    ignore_label: int | None = None

    @property
    def output_names(self) -> list[str]:
        """Names of the network's output channels."""
        return list(self.regions) if self.regions else [self.labels[value] for value in sorted(self.labels)]

    @property
    def map_names(self) -> dict[int, str]:
        """Value to name in predicted label maps."""
        if self.regions:
            return {0: "background", **dict(enumerate(self.regions, start=1))}
        return dict(self.labels)

    @property
    def names_a_side(self) -> bool:
        """Whether a structure is left or right of its like: such images must not be mirrored."""
        return names_a_side([*self.labels.values(), *self.regions])


def names_a_side(names: Iterable[str]) -> bool:
    """Whether one of the names has a word for a side: ``left kidney``, ``kidney (left)``, ``LeftLung``, ``lung_L``."""
    words = (word for name in names for word in re.findall(r"(?:[A-Z]?[a-z]+|[A-Z]+(?![a-z]))\d*", name))
    return any(word.lower() in _SIDES for word in words)  # L1 is a vertebra


def ignored_value(datalist: Datalist) -> int | None:
    """The value of unlabelled voxels: ``"ignore_label": 255`` of the datalist, or a label named ``ignore``.

    Raises:
        DataError: It is no whole number from 1 to 255.
    """
    value, where = datalist.extra.get("ignore_label"), '"ignore_label"'
    if value is None:
        value = next((v for v, name in datalist.labels.items() if name.lower() == "ignore"), None)
        where = 'The label named "ignore"'
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MOST_LABEL:
        raise DataError(
            f"{where} is {value!r}; expected a whole number from 1 to {MOST_LABEL}, since label maps are trained on "
            "with 8 bits. Give the voxels that nobody labelled such a value, in every label map and in the datalist."
        )
    return value


class LabelGapError(DataError):
    """Label values with a gap: a network's outputs are numbered without.

    Args:
        values: All of them, ascending, without the ignored one.
        cases: Value to the names of the cases that hold it; None where that is not known.

    Attributes:
        values: As given.
        free: The first value that is missing.
        stray: The values after it.
    """

    def __init__(self, values: Sequence[int], cases: Mapping[int, Sequence[str]] | None = None) -> None:
        self.values = list(values)
        self.free = next(number for number, value in enumerate([*self.values, -1]) if number != value)
        self.stray = [value for value in self.values if value > self.free]
        places = [] if cases is None else [_place(value, cases.get(value, ())) for value in self.stray[:3]]
        where = f" After the gap: {'; '.join(places)}." if places else ""
        super().__init__(
            f"The label maps hold the values {self.values}; expected 0, 1, 2, … without gaps.{where} A slip of the "
            'drawing: correct those label maps or leave the cases out, and take the value out of "labels". A structure '
            f'of its own: renumber from {self.free} on, in every label map and in "labels" (a name alone does not '
            "help), for example with monai.transforms.MapLabelValued. Voxels that nobody labelled: write "
            f'"ignore_label": {self.stray[0]}.'
        )


def _place(value: int, names: Sequence[str]) -> str:
    if not names:
        return f'{value} is named in "labels" and in no training case'
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{value} is in {len(names)} case{'s' if len(names) > 1 else ''} ({', '.join(names[:3])}{more})"


def read_label_scheme(datalist: Datalist, labels: Mapping[int, str]) -> LabelScheme:
    """The scheme of a datalist.

    Args:
        datalist: Its ``regions`` (``{"whole": [1, 2], "core": [2]}``) and ``ignore_label`` count.
        labels: Value to name, as found in the label maps and named by the datalist.

    Raises:
        LabelGapError: Values with gaps.
        DataError: No structure, more of them than 8 bits can number, or regions of unknown values.
    """
    ignore = ignored_value(datalist)
    kept = {value: name for value, name in sorted(labels.items()) if value != ignore}
    kept.setdefault(0, "background")
    kept = dict(sorted(kept.items()))
    if len(kept) < 2:
        raise DataError("The label maps name no structure; expected a value above 0 besides the background.")
    if list(kept) != list(range(len(kept))):
        raise LabelGapError(list(kept))
    if max(kept) > MOST_LABEL:
        raise DataError(
            f"The label maps hold {len(kept)} values; expected at most {MOST_LABEL + 1}, the background among them, "
            "since label maps are trained on and written with 8 bits. Unite structures, or train on a part of them."
        )
    return LabelScheme(kept, _regions(datalist.extra.get("regions"), kept), ignore)


def _regions(found: object, labels: Mapping[int, str]) -> dict[str, tuple[int, ...]]:
    regions = LabelRegions.of(found)
    if regions is None:
        return {}
    unknown = sorted(regions.label_values - (set(labels) - {0}))
    if unknown:
        raise DataError(
            f'"regions" name the values {unknown}; expected values of {sorted(set(labels) - {0})}.'
        )
    return dict(regions.values)
