"""How well crude numbers that see no anatomy tell two groups of images apart: shortcuts to cheat by."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medimg3d.data.fingerprint import ImageFingerprint
from medimg3d.metrics.ranking import auc as area_under_roc

MIN_GROUP = 10
"""Fewer images in a group say nothing."""

FEATURES: Mapping[str, Callable[[ImageFingerprint], float]] = {
    "mean brightness": lambda image: image.mean,
    "contrast (5th to 95th percentile)": lambda image: image.percentiles[3] - image.percentiles[1],
    "dark border share": lambda image: image.border_share,
    "width / height": lambda image: image.shape[0] / image.shape[1],
    "number of pixels": lambda image: float(math.prod(image.shape)),
    "file size": lambda image: float(image.num_bytes),
    "pixel spacing": lambda image: math.nan if image.spacing_mm is None else image.spacing_mm[0],
    "slices": lambda image: float(image.shape[2]) if len(image.shape) > 2 else math.nan,
}


@dataclass(frozen=True)
class Separation:
    """How well one feature tells group ``first`` from group ``second``.

    Attributes:
        feature: Key of :data:`FEATURES`, or ``"all of these together"``.
        first: One group; the feature is higher in it where ``auc`` is above 0.5.
        second: The other group.
        auc: Area under the ROC curve: the chance that a random image of ``first`` has the higher value.
        low: Lower end of its 95 % interval.
        high: Upper end.
        n_first: Images in the first group.
        n_second: Images in the second.
    """

    feature: str
    first: str
    second: str
    auc: float
    low: float
    high: float
    n_first: int
    n_second: int

    @property
    def strength(self) -> float:
        """The AUC read in the better direction: 0.5 says nothing, 1 gives it away."""
        return max(self.auc, 1 - self.auc)

    def as_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def separations(
    first: Sequence[ImageFingerprint], second: Sequence[ImageFingerprint], *, names: tuple[str, str]
) -> list[Separation]:
    """The AUC of every feature between two groups, the strongest first.

    A feature that is the same everywhere, or not known of some image, is left out.

    Args:
        first: Images of one group.
        second: Images of the other.
        names: What the groups are called.

    Returns:
        One entry a feature; none for a group of fewer than :data:`MIN_GROUP`.
    """
    if min(len(first), len(second)) < MIN_GROUP:
        return []
    found = [
        _separation(name, values[: len(first)], values[len(first) :], names)
        for name, values in feature_values([*first, *second]).items()
    ]
    return sorted(found, key=lambda one: -one.strength)


def feature_values(images: Sequence[ImageFingerprint]) -> dict[str, NDArray[np.float64]]:
    """The features of images that are known of all and not the same for all: name to one value an image."""
    table = {name: np.array([value(image) for image in images]) for name, value in FEATURES.items()}
    return {
        name: values for name, values in table.items() if np.isfinite(values).all() and np.ptp(values) > 0
    }


def joint_separation(
    first: Sequence[ImageFingerprint],
    second: Sequence[ImageFingerprint],
    *,
    names: tuple[str, str],
    groups: Sequence[str],
    seed: int = 0,
) -> Separation | None:
    """What a small model reaches that sees the features together and never the image.

    Random forest of 100 trees, scored on held-out fifths; cases of one group (patient) share a fifth.

    Args:
        first: Images of one class.
        second: Images of the other.
        names: What the classes are called.
        groups: Patient (or case) of each image of ``first``, then of ``second``.
        seed: Seed of the forest and the fifths.

    Returns:
        The separation; None for fewer than :data:`MIN_GROUP` images or five patients in a class, or where no
        feature varies.
    """
    patients = (set(groups[: len(first)]), set(groups[len(first) :]))
    features = feature_values([*first, *second])
    if min(len(first), len(second)) < MIN_GROUP or min(map(len, patients)) < 5 or not features:
        return None
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict

    truth = np.repeat([1, 0], [len(first), len(second)])
    forest = RandomForestClassifier(100, min_samples_leaf=5, class_weight="balanced", random_state=seed)
    fifths = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
    table = np.column_stack(list(features.values()))
    scores = cross_val_predict(forest, table, truth, groups=list(groups), cv=fifths, method="predict_proba")[
        :, 1
    ]
    return _separation("all of these together", scores[truth == 1], scores[truth == 0], names)


def auc_error(auc: float, n_first: int, n_second: int) -> float:
    """Standard error of an AUC from the number of images alone.

    Source: Hanley and McNeil 1982, doi:10.1148/radiology.143.1.7063747.
    """
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = auc * (1 - auc) + (n_first - 1) * (q1 - auc**2) + (n_second - 1) * (q2 - auc**2)
    return math.sqrt(max(variance, 0.0) / (n_first * n_second))


def _separation(
    feature: str, first: NDArray[np.float64], second: NDArray[np.float64], names: tuple[str, str]
) -> Separation:
    auc = area_under_roc(np.concatenate([first, second]), np.repeat([1, 0], [len(first), len(second)]))
    half = 1.96 * auc_error(auc, len(first), len(second))
    return Separation(
        feature,
        names[0],
        names[1],
        auc,
        max(0.0, auc - half),
        min(1.0, auc + half),
        len(first),
        len(second),
    )
