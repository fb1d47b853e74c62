"""What the values of label maps mean to a network: classes, overlapping regions, voxels to ignore."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from medimg3d.data.datalist import Datalist
from medimg3d.errors import DataError

_SIDES = ("left", "right")


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
        words = [w for name in self.labels.values() for w in name.lower().replace("_", " ").split()]
        return any(side in words for side in _SIDES)


def ignored_value(datalist: Datalist) -> int | None:
    """The value of unlabelled voxels: ``"ignore_label": 255`` of the datalist, or a label named ``ignore``.

    Raises:
        DataError: It is no whole number from 1.
    """
    value = datalist.extra.get("ignore_label")
    if value is None:
        return next((v for v, name in datalist.labels.items() if name.lower() == "ignore"), None)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise DataError(f'"ignore_label" is {value!r}; expected a whole number from 1.')
    return value


def read_label_scheme(datalist: Datalist, labels: Mapping[int, str]) -> LabelScheme:
    """The scheme of a datalist.

    Args:
        datalist: Its ``regions`` (``{"whole": [1, 2], "core": [2]}``) and ``ignore_label`` count.
        labels: Value to name, as found in the label maps and named by the datalist.

    Raises:
        DataError: Values with gaps, no structure, or regions of unknown values.
    """
    ignore = ignored_value(datalist)
    kept = {value: name for value, name in sorted(labels.items()) if value != ignore}
    kept.setdefault(0, "background")
    kept = dict(sorted(kept.items()))
    if len(kept) < 2:
        raise DataError("The label maps name no structure; expected a value above 0 besides the background.")
    if list(kept) != list(range(len(kept))):
        raise DataError(
            f"The label maps hold the values {list(kept)}; expected 0, 1, 2, … without gaps. Renumber them, for "
            'example with monai.transforms.MapLabelValued, or name unlabelled voxels by "ignore_label".'
        )
    return LabelScheme(kept, _regions(datalist.extra.get("regions"), kept), ignore)


def _regions(found: object, labels: Mapping[int, str]) -> dict[str, tuple[int, ...]]:
    if not found:
        return {}
    if not isinstance(found, Mapping) or not all(isinstance(values, Sequence) for values in found.values()):
        raise DataError('"regions" is no object of lists; expected {"whole": [1, 2], "core": [2]}.')
    regions = {str(name): tuple(int(value) for value in values) for name, values in found.items()}
    unknown = sorted({value for values in regions.values() for value in values} - (set(labels) - {0}))
    if unknown or not all(regions.values()):
        raise DataError(
            f'"regions" name the values {unknown}; expected values of {sorted(set(labels) - {0})}.'
        )
    return dict(sorted(regions.items(), key=lambda item: -len(item[1])))
