# Copied from medimg3d/data/class_index.py; do not edit here.
# Source sha256: 53153fa5f0f666d00a6b419ec26ebfb52323ee1720a25e344545e367c56660d2
"""From class names in a datalist to the numbers that a network is trained on.

Pure Python: bundles carry a copy of this file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any


def with_class_index(
    cases: Sequence[Mapping[str, Any]], *, class_names: Sequence[str], class_key: str = "class_label"
) -> list[dict[str, Any]]:
    """What MONAI's classification engines read of each case: ``image`` and ``label``, the index of its class.

    Args:
        cases: Cases of a datalist. An integer class is an index already; a name counts whatever its case.
        class_names: Names in the order of the network's outputs.
        class_key: Where the class stands: ``"class_label"``, or a column of the case's ``values``.

    Returns:
        ``{"image": ..., "label": int}`` a case, in their order.

    Raises:
        ValueError: A case has no class, or one that is not among the names.
    """
    index = {name.lower(): number for number, name in enumerate(class_names)}
    labelled = []
    for case in cases:
        found = case.get(class_key, (case.get("values") or {}).get(class_key))
        label = _number(found, index) if isinstance(found, str) else found
        if not isinstance(label, int) or not 0 <= label < len(index):
            raise ValueError(
                f"Case {case.get('id') or case.get('image')}: {class_key} is {found!r}; expected one of "
                f"{', '.join(class_names)}."
            )
        labelled.append({"image": case["image"], "label": label})
    return labelled


def _number(name: str, index: Mapping[str, int]) -> int | None:
    """Index of a class.

    MONAI's ``load_decathlon_datalist`` makes a path of a name that is also a file's or folder's beside the datalist, as
    where films lie in a folder for each class.
    """
    lower = name.lower()
    return index.get(lower, index.get(lower.replace("\\", "/").rsplit("/", 1)[-1]))


def class_weights(cases: Sequence[Mapping[str, Any]], *, num_classes: int) -> list[float]:
    """Weights with which every class counts alike in the loss, however many cases it has.

    Args:
        cases: What :func:`with_class_index` gave.
        num_classes: Number of classes.

    Returns:
        ``n / (num_classes * n_c)`` for each class ``c``; its mean over the cases is 1.

    Raises:
        ValueError: A class has no case.
    """
    counts = Counter(case["label"] for case in cases)
    lacking = [label for label in range(num_classes) if not counts[label]]
    if lacking:
        raise ValueError(f"Class {lacking[0]} has no training case; expected some of each class.")
    return [len(cases) / (num_classes * counts[label]) for label in range(num_classes)]
