"""Finds the region of interest in a coarse copy of an image and crops to it.

A large image is looked at twice: as a whole at a low resolution by a small network, the finder, which says where
the structures are, and there alone at full resolution by the network that draws them. The crop is MONAI's own, so
that ``Invertd`` brings a prediction back onto the whole image.

Bundles carry a copy of this file: it imports nothing of medimg3d.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from copy import deepcopy
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.inferers import SlidingWindowInferer
from monai.transforms import Compose, Crop, InvertibleTransform, MapTransform
from numpy.typing import NDArray
from scipy import ndimage

Box = tuple[tuple[int, int], ...]
"""First voxel and the voxel after the last one, along each axis."""

REGION = "region"
"""Entry of a cropped image's meta data: what a reader should know of its region; empty if nothing."""

NOTHING_FOUND = "nothing was found at low resolution: the whole image was predicted"
WEIGHTS_KEY = "model"

_log = logging.getLogger(__name__)


class Coarsend(MapTransform):
    """Brings images to large voxels: each is the mean of the voxels that it covers, so that none is passed over.

    The coarse voxels cover just the image; their size is the wished one but for what it takes to have a whole number
    of them. An axis whose voxels are larger than wished is divided.

    Args:
        keys: Images, shape (C, I, J, K).
        voxel_mm: Wished size of the coarse voxels along I, J, K; where the images state none, theirs count as 1 mm.
        labels: Label maps instead, shape (1, I, J, K): a coarse voxel is 1 where it covers any labelled voxel, else 0.
        ignore_label: Value of label maps for voxels that nobody labelled: a coarse voxel of such voxels keeps it.
        allow_missing_keys: As in MONAI.
    """

    def __init__(
        self,
        keys: KeysCollection,
        voxel_mm: Sequence[float],
        labels: bool = False,
        ignore_label: int | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.voxel_mm = [float(size) for size in voxel_mm]
        self.labels = labels
        self.ignore_label = ignore_label

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The same with coarse images, float32, whose affine is that of their voxels."""
        item = dict(data)
        for key in self.key_iterator(item):
            image = item[key]
            shape = coarse_shape(image.shape[1:], spacing_of(image), self.voxel_mm)
            coarse = self._labels(image, shape) if self.labels else pooled(image, shape)
            item[key] = MetaTensor(coarse, affine=_coarse_affine(image, shape))
        return item

    def _labels(self, image: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
        ignored = -1 if self.ignore_label is None else self.ignore_label
        found = pooled(image, shape, values=lambda part: (part > 0) & (part != ignored), largest=True)
        if self.ignore_label is not None:
            known = pooled(image, shape, values=lambda part: part != ignored, largest=True)
            found[(found == 0) & (known == 0)] = float(ignored)
        return found


class ReferenceRegion:
    """The region that a finder would find if it were never wrong: that of the label map, for training.

    Its margin is varied by up to ``jitter_mm`` on each side, always alike for the same label map: what is trained on
    does not end at the same distance from the structures in every case.

    Args:
        voxel_mm: As for :class:`Coarsend`: the region ends with whole coarse voxels, as a found one does.
        margin_mm: Along I, J, K, what is left around the structures.
        jitter_mm: Likewise; less than the margin.
        label_key: The label map, shape (1, I, J, K), on the grid of what is cropped.
        ignore_label: Its value for voxels that nobody labelled.

    Raises:
        ValueError: ``jitter_mm`` is larger than the margin.
    """

    def __init__(
        self,
        voxel_mm: Sequence[float],
        margin_mm: Sequence[float],
        jitter_mm: Sequence[float] = (0.0, 0.0, 0.0),
        label_key: str = "label",
        ignore_label: int | None = None,
    ) -> None:
        if any(j > m or j < 0 for j, m in zip(jitter_mm, margin_mm, strict=True)):
            raise ValueError(f"jitter_mm must be 0 to the margin {list(margin_mm)}, got {list(jitter_mm)}")
        self.voxel_mm = [float(size) for size in voxel_mm]
        self.margin_mm = [float(size) for size in margin_mm]
        self.jitter_mm = [float(size) for size in jitter_mm]
        self.label_key = label_key
        self.ignore_label = ignore_label

    def __call__(self, image: torch.Tensor, item: Mapping[Hashable, Any]) -> tuple[Box, str]:
        """The region of an image, shape (C, I, J, K), and a note; the whole image where nothing is labelled.

        Raises:
            ValueError: The label map has another shape.
        """
        label = item[self.label_key]
        if tuple(label.shape[1:]) != tuple(image.shape[1:]):
            raise ValueError(
                f"the label map has shape {tuple(label.shape[1:])} and its image {tuple(image.shape[1:])}; expected "
                "the label map to be loaded, and not yet cropped, where its image is cropped"
            )
        sides = labelled_box(label, ignore_label=self.ignore_label)
        if sides is None:
            return whole(image), ""
        spacing = spacing_of(image)
        coarse = coarse_shape(image.shape[1:], spacing, self.voxel_mm)
        cells = tuple(
            _covering(start, stop, size, count)
            for (start, stop), size, count in zip(sides, image.shape[1:], coarse, strict=True)
        )
        random = np.random.default_rng([number for side in sides for number in side])
        shifts = random.uniform(-1, 1, (len(cells), 2)) * np.array(self.jitter_mm)[:, None]
        margins = np.array(self.margin_mm)[:, None] + shifts
        return with_margin(cells, margins.tolist(), spacing, image.shape[1:]), ""


class FoundRegion:
    """The region that the finder finds.

    Args:
        network: Two outputs, background and structures.
        weights: Its state dict, alone or under ``"model"``; several are averaged.
        preprocessing: From ``{"image": ...}``, shape (C, I, J, K), to the coarse image that the network takes;
            :class:`Coarsend` is among its steps.
        inferer: The network's windows.
        margin_mm: Along I, J, K, what is left around what was found.
        device: Where the network runs.
        threshold: Probability from which a coarse voxel belongs to a structure.
        least_share: Voxels of a found piece, as a share of the largest one, from which it counts. Pieces that touch
            at a corner are one.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        weights: str | Sequence[str],
        preprocessing: Compose,
        inferer: SlidingWindowInferer,
        margin_mm: Sequence[float],
        device: torch.device | str = "cpu",
        threshold: float = 0.5,
        least_share: float = 0.1,
    ) -> None:
        self.network = network
        self.weights = [weights] if isinstance(weights, str) else list(weights)
        self.preprocessing = preprocessing
        self.inferer = inferer
        self.margin_mm = [float(size) for size in margin_mm]
        self.device = torch.device(device)
        self.threshold = threshold
        self.least_share = least_share
        self._members: list[torch.nn.Module] = []

    def __call__(self, image: torch.Tensor, item: Mapping[Hashable, Any]) -> tuple[Box, str]:
        """The region of an image, shape (C, I, J, K), and a note; the whole image where nothing is found.

        Raises:
            FileNotFoundError: There are no weights.
        """
        found = self.mask(image)
        if not found.any():
            _log.warning("%s: %s", _name(image), NOTHING_FOUND)
            return whole(image), NOTHING_FOUND
        sides = tuple(
            _covered(int(where[0]), int(where[-1]) + 1, size, count)
            for where, size, count in zip(_places(found), image.shape[1:], found.shape, strict=True)
        )
        margins = [(margin, margin) for margin in self.margin_mm]
        return with_margin(sides, margins, spacing_of(image), image.shape[1:]), ""

    def mask(self, image: torch.Tensor) -> NDArray[np.bool_]:
        """The pieces that count, on the coarse grid."""
        coarse = torch.as_tensor(self.preprocessing({"image": image})["image"])
        coarse = coarse.as_tensor() if isinstance(coarse, MetaTensor) else coarse
        probability = self.probability(coarse)
        pieces, number = ndimage.label(probability >= self.threshold, structure=np.ones((3, 3, 3)))
        if number == 0:
            return np.zeros(probability.shape, dtype=np.bool_)
        sizes = np.bincount(pieces.ravel())
        sizes[0] = 0
        return np.asarray((sizes >= max(1, self.least_share * sizes.max()))[pieces])

    def probability(self, coarse: torch.Tensor) -> NDArray[np.float32]:
        """Probability of a structure in each coarse voxel, the mean over all weights; shape (I, J, K)."""
        total: NDArray[np.float32] = np.zeros(coarse.shape[1:], dtype=np.float32)
        batch = coarse[None].to(self.device, torch.float32)
        with torch.no_grad():
            for network in self.members():
                scores: Any = self.inferer(batch, network)
                total += 1 - torch.softmax(scores.float(), dim=1)[0, 0].cpu().numpy()
        return np.asarray(total / len(self.weights), dtype=np.float32)

    def run_empty(self, channels: int) -> None:
        """Run the network on one window without content: to see what it takes."""
        size: Any = self.inferer.roi_size
        window = torch.zeros((1, channels, *size), device=self.device)
        with torch.no_grad():
            for network in self.members():
                self.inferer(window, network)

    def coarse_voxels(self, shape: Sequence[int], spacing_mm: Sequence[float]) -> int:
        """About how many coarse voxels an image has, whatever the order of its axes.

        Args:
            shape: Of the image.
            spacing_mm: Its voxel size.
        """
        wished = next(step.voxel_mm for step in self.preprocessing.transforms if isinstance(step, Coarsend))
        return ceil(float(np.prod(shape)) * float(np.prod(spacing_mm)) / float(np.prod(wished)))

    def members(self) -> list[torch.nn.Module]:
        """The networks with their weights, which are loaded at the first call.

        Raises:
            FileNotFoundError: A file of weights is missing.
        """
        if not self._members:
            members = []
            for file in self.weights:
                if not Path(file).is_file():
                    raise FileNotFoundError(
                        f"Found no weights of the region finder (models/{Path(file).name}); train it first, by "
                        "configs/train_finder.json."
                    )
                state = torch.load(file, map_location=self.device, weights_only=True)
                network = deepcopy(self.network) if len(self.weights) > 1 else self.network
                network.load_state_dict(state.get(WEIGHTS_KEY, state))
                members.append(network.to(self.device).eval())
            self._members = members
        return self._members


class CropToRegiond(MapTransform, InvertibleTransform):
    """Crops to a region; ``Invertd`` puts zeros where nothing was kept.

    The cropped image is a copy, so that the memory of the whole one can be freed. Its meta data have an entry
    ``region``: a note, empty but where nothing was found.

    Args:
        keys: What is cropped, shape (C, I, J, K).
        region: Called with one of them and the whole item: its region, and a note.
        allow_missing_keys: As in MONAI.
    """

    def __init__(
        self,
        keys: KeysCollection,
        region: Callable[[torch.Tensor, Mapping[Hashable, Any]], tuple[Box, str]],
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.region = region
        self.cropper = Crop()

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The item, cropped."""
        item = dict(data)
        for key in self.key_iterator(item):
            box, note = self.region(item[key], data)
            cropped = self.cropper(item[key], tuple(slice(start, stop) for start, stop in box))
            if cropped.shape != item[key].shape:
                cropped = cropped.clone(memory_format=torch.contiguous_format)
            if isinstance(cropped, MetaTensor):
                cropped.meta[REGION] = note
            item[key] = cropped
        return item

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The item on the whole grid again."""
        item = dict(data)
        for key in self.key_iterator(item):
            item[key] = self.cropper.inverse(item[key])
        return item


def share_inside(label: Any, box: Box, *, ignore_label: int | None = None) -> float:
    """Share of the labelled voxels that lie in a region: what a finder keeps.

    Args:
        label: Label map, shape (1, I, J, K).
        box: The region.
        ignore_label: Value of voxels that nobody labelled.

    Returns:
        0 to 1; NaN where nothing is labelled.
    """
    values = np.asarray(label)[0]
    labelled = (values > 0) & (values != (-1 if ignore_label is None else ignore_label))
    total = int(labelled.sum())
    inside = int(labelled[tuple(slice(start, stop) for start, stop in box)].sum())
    return inside / total if total else float("nan")


def labelled_box(label: Any, *, ignore_label: int | None = None) -> Box | None:
    """The smallest region with all labelled voxels of a label map, shape (1, I, J, K); None where there is none."""
    values = np.asarray(label)[0]
    labelled = (values > 0) & (values != (-1 if ignore_label is None else ignore_label))
    places = list(_places(labelled))
    if not len(places[0]):
        return None
    return tuple((int(where[0]), int(where[-1]) + 1) for where in places)


def with_margin(
    box: Box, margins_mm: Iterable[Sequence[float]], spacing_mm: Sequence[float], shape: Sequence[int]
) -> Box:
    """A region widened at both ends of each axis, within the image.

    Args:
        box: The region.
        margins_mm: Pair along each axis.
        spacing_mm: Voxel size along each axis.
        shape: Of the image.
    """
    widened = []
    for (start, stop), (before, after), spacing, size in zip(box, margins_mm, spacing_mm, shape, strict=True):
        low = start - ceil(before / spacing - 1e-6)
        high = stop + ceil(after / spacing - 1e-6)
        widened.append((max(0, low), min(int(size), high)))
    return tuple(widened)


def whole(image: torch.Tensor) -> Box:
    """All of an image, shape (C, I, J, K)."""
    return tuple((0, int(size)) for size in image.shape[1:])


def spacing_of(image: Any) -> tuple[float, ...]:
    """Voxel size along I, J, K in mm; 1 where there is none."""
    axes = image.ndim - 1
    if not isinstance(image, MetaTensor):
        return (1.0,) * axes
    return tuple(float(size) or 1.0 for size in np.asarray(image.pixdim, dtype=np.float64)[:axes])


def coarse_shape(
    shape: Sequence[int], spacing_mm: Sequence[float], voxel_mm: Sequence[float]
) -> tuple[int, ...]:
    """Number of coarse voxels along each axis, at least 1: those nearest to the wished size."""
    return tuple(
        max(1, int(size * spacing / wished + 0.5))
        for size, spacing, wished in zip(shape, spacing_mm, voxel_mm, strict=True)
    )


def pooled(
    image: torch.Tensor,
    shape: Sequence[int],
    *,
    values: Callable[[torch.Tensor], torch.Tensor] | None = None,
    largest: bool = False,
) -> torch.Tensor:
    """An image in as many voxels as asked for: the mean, or the largest, of the voxels that each covers.

    Coarse voxel i of n covers the voxels from floor(i size / n) to ceil((i + 1) size / n) along an axis. The image
    is gone through in slabs: no copy of the whole is made.

    Args:
        image: Shape (C, I, J, K).
        shape: Along I, J, K.
        values: Applied to each slab first.
        largest: The largest value instead of the mean.

    Returns:
        Shape (C, *shape), float32.
    """
    plain = image.as_tensor() if isinstance(image, MetaTensor) else image
    pool = torch.nn.functional.adaptive_max_pool2d if largest else torch.nn.functional.adaptive_avg_pool2d
    planes = []
    for number in range(shape[0]):
        start, stop = _covered(number, number + 1, plain.shape[1], shape[0])
        slab = plain[:, start:stop]
        slab = (slab if values is None else values(slab)).float()
        plane = slab.amax(dim=1) if largest else slab.mean(dim=1)
        planes.append(pool(plane, (shape[1], shape[2])))
    return torch.stack(planes, dim=1)


def _covered(start: int, stop: int, size: int, count: int) -> tuple[int, int]:
    """The voxels, of ``size``, that a range of coarse voxels, of ``count``, covers."""
    return start * size // count, -(-stop * size // count)


def _covering(start: int, stop: int, size: int, count: int) -> tuple[int, int]:
    """The voxels of all coarse voxels that cover any of a range."""
    cells = [
        number
        for number in range(count)
        if _covered(number, number + 1, size, count)[0] < stop
        and _covered(number, number + 1, size, count)[1] > start
    ]
    return _covered(cells[0], cells[-1] + 1, size, count)


def _places(mask: NDArray[np.bool_]) -> Iterable[NDArray[np.intp]]:
    """Along each axis, where anything is."""
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        yield np.flatnonzero(mask.any(axis=others))


def _coarse_affine(image: Any, shape: Sequence[int]) -> torch.Tensor:
    affine = np.asarray(image.affine if isinstance(image, MetaTensor) else np.eye(4), dtype=np.float64)
    larger = np.array(image.shape[1:], dtype=np.float64) / np.array(shape)
    coarse = affine.copy()
    coarse[:3, :3] = affine[:3, :3] * larger
    coarse[:3, 3] = affine[:3, :3] @ ((larger - 1) / 2) + affine[:3, 3]
    return torch.from_numpy(coarse)


def _name(image: Any) -> str:
    file = image.meta.get("filename_or_obj", "") if isinstance(image, MetaTensor) else ""
    return Path(str(file)).name or "image"
