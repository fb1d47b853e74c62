"""Facts of made-up data sets, for tests of decisions."""

from __future__ import annotations

from typing import Any

from medimg3d.planning.data_facts import ChannelFacts, DataFacts


def channel(name: str = "image", **values: Any) -> ChannelFacts:
    """A channel of positive values without a name."""
    inside = {"low": 10.0, "high": 90.0, "mean": 50.0, "std": 20.0}
    known = {
        "modality": "",
        "is_picture": False,
        "percentiles": (0.0, 5.0, 50.0, 95.0, 100.0),
        "zero_share": 0.0,
        "inside": inside,
        "inside_is_labelled": True,
    }
    return ChannelFacts(name=name, **(known | values))


def facts(**values: Any) -> DataFacts:
    """Ten labelled volumes of 40 x 40 x 40 voxels of 1 mm, each of its own patient."""
    known: dict[str, Any] = {
        "name": "made up",
        "num_cases": 10,
        "num_patients": 10,
        "folds": (),
        "num_axes": 3,
        "channels": (channel(),),
        "named": False,
        "shapes": ((40, 40, 40),) * 10,
        "spacings_mm": ((1.0, 1.0, 1.0),) * 10,
        "labels": {0: "background", 1: "liver"},
        "label_cases": {0: 10, 1: 10},
        "label_voxels": {0: 60_000.0, 1: 4_000.0},
        "num_labelled": 10,
    }
    return DataFacts(**(known | values))


def of_classes(**values: Any) -> DataFacts:
    """Twelve films of 100 x 80 pixels, eight ill and four well."""
    known: dict[str, Any] = {
        "num_cases": 12,
        "num_patients": 12,
        "num_axes": 2,
        "channels": (channel(is_picture=True, inside_is_labelled=False),),
        "shapes": ((100, 80),) * 12,
        "spacings_mm": (None,) * 12,
        "labels": {},
        "label_cases": {},
        "label_voxels": {},
        "num_labelled": 0,
        "classes": ("well", "ill"),
        "class_counts": {"well": 4, "ill": 8},
    }
    return facts(**(known | values))
