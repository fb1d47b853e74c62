"""Figures of a classifier's decisions, from its confusion matrix; vectorised over many matrices.

Undefined is NaN, never 0: the precision of a class that nobody was given, the recall of a class that no case
has, and every mean over classes that takes in one of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Counts = NDArray[Any]  # shape (..., classes, classes): row = truth, column = decision


def confusion_matrix(truth: ArrayLike, decided: ArrayLike, num_classes: int) -> NDArray[np.int64]:
    """How many cases of each class were given each class.

    Args:
        truth: Class index of each case, shape (n,).
        decided: Class index that was decided, shape (n,).
        num_classes: Number of classes.

    Returns:
        Counts, shape (classes, classes): row = truth, column = decision.

    Raises:
        ValueError: The lengths differ, or an index is not that of a class.
    """
    pairs = _pair_index(truth, decided, num_classes)
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def weighted_confusion(
    truth: ArrayLike, decided: ArrayLike, num_classes: int, weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Confusion matrices of many resamples at once.

    Args:
        truth: Class index of each case, shape (n,).
        decided: Class index that was decided, shape (n,).
        num_classes: Number of classes.
        weights: How often each case counts, shape (resamples, n).

    Returns:
        Counts, shape (resamples, classes, classes).

    Raises:
        ValueError: The lengths differ, or an index is not that of a class.
    """
    pairs = _pair_index(truth, decided, num_classes)
    one_hot = np.zeros((len(pairs), num_classes**2))
    one_hot[np.arange(len(pairs)), pairs] = 1
    counts: NDArray[np.float64] = (weights @ one_hot).reshape(-1, num_classes, num_classes)
    return counts


def accuracy(counts: Counts) -> NDArray[np.float64]:
    """Share of the cases that were decided rightly, shape (...)."""
    return _ratio(_diagonal(counts).sum(-1), counts.sum((-2, -1)))


def recall(counts: Counts) -> NDArray[np.float64]:
    """Share of each class that was found (its sensitivity), shape (..., classes); NaN without such a case."""
    return _ratio(_diagonal(counts), counts.sum(-1))


def specificity(counts: Counts) -> NDArray[np.float64]:
    """Share of the other classes' cases that were not given this one, shape (..., classes)."""
    others = counts.sum((-2, -1))[..., None] - counts.sum(-1)
    false_positives = counts.sum(-2) - _diagonal(counts)
    return _ratio(others - false_positives, others)


def precision(counts: Counts) -> NDArray[np.float64]:
    """Share of the cases given a class that have it, shape (..., classes); NaN if none was given it."""
    return _ratio(_diagonal(counts), counts.sum(-2))


def f1(counts: Counts) -> NDArray[np.float64]:
    """2 TP / (2 TP + FP + FN) of each class, shape (..., classes); NaN if no case has or was given it.

    Source: van Rijsbergen 1979; equals scikit-learn's ``f1_score`` wherever that does not warn.
    """
    return _ratio(2 * _diagonal(counts), counts.sum(-1) + counts.sum(-2))


def balanced_accuracy(counts: Counts) -> NDArray[np.float64]:
    """Mean recall of the classes, shape (...); NaN if a class has no case."""
    return macro(recall(counts))


def macro(per_class: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the classes, each alike, shape (..., classes) → (...); NaN if one is undefined."""
    mean: NDArray[np.float64] = np.asarray(per_class.mean(-1))
    return mean


def weighted(per_class: NDArray[np.float64], counts: Counts) -> NDArray[np.float64]:
    """Mean over the classes by their number of cases, shape (...); NaN if one that has cases is undefined."""
    sizes = counts.sum(-1)
    total = np.where(sizes > 0, sizes * per_class, 0.0).sum(-1)
    return _ratio(total, sizes.sum(-1))


def decision_figures(counts: Counts, positive: int | None) -> dict[str, NDArray[np.float64]]:
    """Every figure that the decisions alone give, by name.

    The recall averaged over the classes is the balanced accuracy, and weighted by their sizes it is the
    accuracy; neither is given twice.

    Args:
        counts: Confusion matrices, shape (..., classes, classes).
        positive: Index of the positive class of two; None leaves out what needs one.

    Returns:
        Name → values of shape (...): 0 to 1, NaN where undefined.
    """
    figures = {"accuracy": accuracy(counts), "balanced_accuracy": balanced_accuracy(counts)}
    if positive is not None:
        figures |= {
            "sensitivity": recall(counts)[..., positive],
            "specificity": specificity(counts)[..., positive],
            "precision": precision(counts)[..., positive],
            "f1": f1(counts)[..., positive],
        }
    return figures | {
        "precision_macro": macro(precision(counts)),
        "precision_weighted": weighted(precision(counts), counts),
        "f1_macro": macro(f1(counts)),
        "f1_weighted": weighted(f1(counts), counts),
    }


def _pair_index(truth: ArrayLike, decided: ArrayLike, num_classes: int) -> NDArray[np.intp]:
    rows, columns = np.asarray(truth, dtype=np.intp), np.asarray(decided, dtype=np.intp)
    if rows.ndim != 1 or rows.shape != columns.shape:
        raise ValueError(
            f"truth and decided have the shapes {rows.shape} and {columns.shape}; expected one number a case."
        )
    for values in (rows, columns):
        if values.size and not 0 <= values.min() <= values.max() < num_classes:
            raise ValueError(
                f"Found class {values.min()} to {values.max()}; expected 0 to {num_classes - 1}."
            )
    index: NDArray[np.intp] = rows * num_classes + columns
    return index


def _diagonal(counts: Counts) -> NDArray[Any]:
    return np.diagonal(counts, axis1=-2, axis2=-1)


def _ratio(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.float64]:
    """Part over whole; NaN where the whole is 0."""
    part, whole = np.asarray(part, dtype=np.float64), np.asarray(whole, dtype=np.float64)
    result = np.full(np.broadcast(part, whole).shape, np.nan)
    np.divide(part, whole, out=result, where=whole > 0)
    return result
