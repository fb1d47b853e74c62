"""What a plan needs to know of a whole data set, from the fingerprints of its training cases."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from medimg3d.data.case_facts import named_images
from medimg3d.data.datalist import Datalist
from medimg3d.data.image_facts import image_ending
from medimg3d.errors import DataError
from medimg3d.planning.fingerprint import CasePrint, ImagePrint
from medimg3d.planning.label_scheme import ignored_value


@dataclass(frozen=True)
class ChannelFacts:
    """One channel of the images.

    Attributes:
        name: ``image``, ``ct``, ``T1``.
        modality: What the datalist calls it; empty if it says nothing.
        is_picture: Films or photographs.
        percentiles: Medians over the cases at 0.5, 5, 50, 95 and 99.5.
        zero_share: Median share of values that are exactly 0.
        inside: Statistics of the values in labelled structures, all cases alike: ``low`` (0.5th percentile),
            ``high`` (99.5th), ``mean``, ``std``; of whole images where nothing is labelled.
        inside_is_labelled: Whether ``inside`` is that of labelled structures.
    """

    name: str
    modality: str
    is_picture: bool
    percentiles: tuple[float, ...]
    zero_share: float
    inside: Mapping[str, float]
    inside_is_labelled: bool


@dataclass(frozen=True)
class DataFacts:
    """A data set, as far as a plan depends on it.

    Attributes:
        name: Name of the study.
        num_cases: Training cases.
        num_patients: Patients among them; None where not every case names one.
        folds: Folds that the cases carry already, ascending; empty if none does.
        num_axes: Axes of the images: 2 or 3.
        channels: In the order of the network's input.
        named: Whether the channels come by name (``images``) and not as one list.
        shapes: Of each training case, in RAS order.
        spacings_mm: Likewise; None where the file does not state it, or the datalist calls it unknown.
        labels: Label value to name, background included; empty without label maps.
        classes: Class names; empty without classes.
        class_counts: Training cases of each class.
        label_cases: Label value to the number of training cases that have it.
        label_voxels: Label value to the median number of voxels where it occurs.
        label_ml: Label value to the median volume in mL where it occurs and the voxel size is known; without the values
            of which no volume is known.
        num_labelled: Training cases with a label map.
        labelled_slices: Median share of slices that are labelled.
        boxes: Of each training case, first voxel and the one after the last of all that is labelled, along the axes in
            RAS order; None where nothing is. Empty where it is not known.
        orientations: Of each training case, where the axes of its file run (``RAS``); empty where that is not known.
        image_endings: Endings of the training cases' images (``.nii.gz``), each once; empty text for a folder.
        label_endings: Of their label maps.
        num_test: Test cases.
        split: The datalist's own ``split``.
    """

    name: str
    num_cases: int
    num_patients: int | None
    folds: tuple[int, ...]
    num_axes: int
    channels: tuple[ChannelFacts, ...]
    named: bool
    shapes: tuple[tuple[int, ...], ...]
    spacings_mm: tuple[tuple[float, ...] | None, ...]
    labels: Mapping[int, str] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    class_counts: Mapping[str, int] = field(default_factory=dict)
    label_cases: Mapping[int, int] = field(default_factory=dict)
    label_voxels: Mapping[int, float] = field(default_factory=dict)
    label_ml: Mapping[int, float] = field(default_factory=dict)
    num_labelled: int = 0
    labelled_slices: float = 1.0
    boxes: tuple[tuple[tuple[int, int], ...] | None, ...] = ()
    orientations: tuple[str, ...] = ()
    image_endings: tuple[str, ...] = ()
    label_endings: tuple[str, ...] = ()
    num_test: int = 0
    split: Mapping[str, Any] = field(default_factory=dict)

    @property
    def median_shape(self) -> tuple[float, ...]:
        """Median along each axis, in voxels of the files."""
        return tuple(float(size) for size in np.median(np.array(self.shapes), axis=0))

    @property
    def known_spacings(self) -> list[tuple[float, ...]]:
        """Of the cases whose files state it."""
        return [spacing for spacing in self.spacings_mm if spacing is not None]

    def shapes_at(self, spacing_mm: Sequence[float] | None) -> np.ndarray:
        """Shapes after resampling; a case of unknown voxel size keeps its own.

        Args:
            spacing_mm: Target along each axis, -1 or 0 to keep an axis; None for no resampling.

        Returns:
            Shape (cases, axes), whole numbers of at least 1.
        """
        return self._resampled(np.array(self.shapes, dtype=float), spacing_mm)

    def extents_mm(self) -> np.ndarray:
        """Length of each image along its axes in mm, shape (cases, axes); voxels of unknown size count as 1 mm."""
        return np.array(self.shapes, dtype=float) * self._spacings()

    def regions_at(self, spacing_mm: Sequence[float] | None, margin_mm: Sequence[float]) -> np.ndarray:
        """Shapes, after resampling, of what is labelled with a margin around it, within the image.

        Args:
            spacing_mm: As for :meth:`shapes_at`.
            margin_mm: Along each axis.

        Returns:
            Shape (cases, axes); a case without a labelled voxel counts as a whole.
        """
        regions = np.array(self.shapes, dtype=float)
        boxes = self.boxes or (None,) * len(regions)
        for row, box, own in zip(regions, boxes, self._spacings(), strict=True):
            if box is not None:
                margin = np.array(margin_mm) / own
                sides = np.array(box, dtype=float)
                row[:] = np.minimum(row, sides[:, 1] + margin) - np.maximum(0, sides[:, 0] - margin)
        return self._resampled(regions, spacing_mm)

    def _spacings(self) -> np.ndarray:
        return np.array([own or (1.0,) * self.num_axes for own in self.spacings_mm], dtype=float)

    def _resampled(self, shapes: np.ndarray, spacing_mm: Sequence[float] | None) -> np.ndarray:
        if spacing_mm is not None:
            for row, own in zip(shapes, self.spacings_mm, strict=True):
                if own is not None:
                    factors = [a / b if b > 0 else 1.0 for a, b in zip(own, spacing_mm, strict=True)]
                    row *= factors
        return np.maximum(1, np.rint(shapes))


def gather_facts(prints: Sequence[CasePrint], datalist: Datalist) -> DataFacts:
    """The facts of a data set.

    Args:
        prints: Fingerprints of all its cases, without those that cannot be used.
        datalist: Where they come from.

    Raises:
        DataError: No usable training case, cases that differ in channels or axes, or channels on different grids.
    """
    training = [one for one in prints if one.section == "training"]
    if not training:
        raise DataError('No training case can be used; expected some under "training" in the datalist.')
    words = _common_channels(training)
    _refuse_other_grids(training, words, datalist)
    firsts = [one.images[words[0]] for one in training]
    axes = {len(first.shape) for first in firsts}
    if len(axes) > 1 or not axes <= {2, 3}:
        raise DataError(f"The images have {sorted(axes)} axes; expected all of them to have 2, or 3.")
    cases = {name: case for name, section, case in datalist.named_cases() if section == "training"}
    patients = [cases[one.name].patient for one in training]
    counts = [one.class_name for one in training if one.class_name is not None]
    labelled = [one for one in training if one.voxels]
    values = sorted(
        {value for one in labelled for value in one.voxels} | (set(datalist.labels) if labelled else set())
    )
    return DataFacts(
        name=datalist.name,
        num_cases=len(training),
        num_patients=len(set(patients)) if all(patients) else None,
        folds=tuple(sorted({fold for one in training if (fold := cases[one.name].fold) is not None})),
        num_axes=axes.pop(),
        channels=tuple(_channel(word, n, training, datalist) for n, word in enumerate(words)),
        named=bool(next(iter(cases.values())).images),
        shapes=tuple(first.shape for first in firsts),
        spacings_mm=tuple(first.spacing_mm if datalist.has_voxel_size else None for first in firsts),
        labels={
            value: datalist.labels.get(value, _unnamed(value, ignored_value(datalist))) for value in values
        },
        classes=datalist.classes or tuple(sorted(set(counts))),
        class_counts={name: counts.count(name) for name in datalist.classes or sorted(set(counts))},
        label_cases={value: sum(value in one.voxels for one in labelled) for value in values},
        label_voxels={
            value: float(np.median([one.voxels[value] for one in labelled if value in one.voxels] or [0]))
            for value in values
        },
        label_ml=_label_volumes(labelled, words[0]) if datalist.has_voxel_size else {},
        num_labelled=len(labelled),
        labelled_slices=float(np.median([one.labelled_slices for one in labelled])) if labelled else 1.0,
        boxes=tuple(one.box or None for one in training) if labelled else (),
        orientations=tuple(first.orientation for first in firsts),
        image_endings=_endings(file for one in training for file in cases[one.name].files),
        label_endings=_endings(file for one in training if (file := cases[one.name].label) is not None),
        num_test=sum(one.section == "test" for one in prints),
        split=datalist.split,
    )


def _unnamed(value: int, ignored: int | None) -> str:
    """What a label value is called that the datalist has no name for."""
    return "background" if not value else "ignored" if value == ignored else f"label {value}"


def _endings(files: Iterable[Path]) -> tuple[str, ...]:
    return tuple(sorted({image_ending(file) for file in files}))


def _common_channels(training: Sequence[CasePrint]) -> tuple[str, ...]:
    """The channels that most cases have.

    Raises:
        DataError: A case has others.
    """
    counts = Counter(frozenset(one.images) for one in training)
    usual = max(counts, key=lambda channels: (counts[channels], len(channels)))
    words = next(tuple(one.images) for one in training if frozenset(one.images) == usual)
    odd = next((one for one in training if set(one.images) != usual), None)
    if odd is not None:
        raise DataError(
            f"Case {odd.name} has {_counted(odd.images)}; expected {_counted(words)}, as {counts[usual]} others have. "
            "Give it the same channels, or leave it out of the datalist."
        )
    return words


def _counted(words: Iterable[str]) -> str:
    listed = list(words)
    return f"{len(listed)} channel{'s' if len(listed) > 1 else ''} ({', '.join(listed)})"


def _refuse_other_grids(training: Sequence[CasePrint], words: Sequence[str], datalist: Datalist) -> None:
    """Refuse channels that cannot be stacked.

    Raises:
        DataError: Those of a case lie on different grids.
    """
    for one in training:
        first = one.images[words[0]]
        for word in words[1:]:
            difference = _grid_difference(one.images[word], first)
            if difference:
                cases = {name: case for name, _, case in datalist.named_cases()}
                file = named_images(cases[one.name], datalist)[word]
                raise DataError(
                    f"The channels of case {one.name} lie on different grids: {word} ({file}) {difference} {words[0]}; "
                    f"expected one grid. Resample {word} onto {words[0]}, for example with "
                    "monai.transforms.ResampleToMatch; where only its header is off, copy the geometry into it."
                )


def _grid_difference(own: ImagePrint, first: ImagePrint) -> str:
    """How a channel differs from the first where MONAI does not stack them; empty if it does."""
    if own.shape != first.shape:
        return f"has {_times(own.shape)} voxels, not {_times(first.shape)} as"
    if own.affine is None or first.affine is None or np.allclose(own.affine, first.affine):
        return ""  # by the same np.allclose as MONAI's LoadImaged
    apart_mm = float(np.abs(np.array(own.affine) - np.array(first.affine)).max())
    return f"has an affine that differs by up to {apart_mm:.3g} mm from that of"


def _times(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _label_volumes(labelled: Sequence[CasePrint], word: str) -> dict[int, float]:
    """Label value to its median volume, in mL, over the cases that hold it and whose voxel size is known."""
    volumes: dict[int, list[float]] = {}
    for one in labelled:
        voxel_ml = one.images[word].voxel_ml
        if voxel_ml is not None:
            for value, count in one.voxels.items():
                volumes.setdefault(value, []).append(count * voxel_ml)
    return {value: float(np.median(own)) for value, own in sorted(volumes.items())}


def _channel(word: str, number: int, training: Sequence[CasePrint], datalist: Datalist) -> ChannelFacts:
    images: list[ImagePrint] = [one.images[word] for one in training]
    is_labelled = any(image.inside for image in images)
    pooled = [image.inside if is_labelled else image.sample for image in images]
    values = np.concatenate([np.array(own, dtype=float) for own in pooled if own])
    low, high = np.percentile(values, (0.5, 99.5))
    return ChannelFacts(
        name=word,
        modality=datalist.modality.get(str(number), ""),
        is_picture=all(image.is_picture for image in images),
        percentiles=tuple(float(p) for p in np.median([image.percentiles for image in images], axis=0)),
        zero_share=float(np.median([image.zero_share for image in images])),
        inside={
            "low": float(low),
            "high": float(high),
            "mean": float(values.mean()),
            "std": float(values.std()),
        },
        inside_is_labelled=is_labelled,
    )
