"""What the values of predicted and true label maps mean: classes, regions that overlap, voxels to leave out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medimg3d.data.evaluation_pairs import References
from medimg3d.data.label_regions import LabelRegions, mask_folder
from medimg3d.data.training_record import RUN_FILE, read_json
from medimg3d.errors import DataError, UsageError
from medimg3d.planning.label_scheme import ignored_value

PredictedValues = Literal["regions", "labels"]
Unions = dict[int, tuple[Sequence[int], Sequence[int]]]


@dataclass(frozen=True)
class LabelMeaning:
    """What is scored.

    Attributes:
        names: Number of a structure → name; empty: every label found, under its number.
        regions: Regions that overlap; None where the structures are the labels themselves.
        predicted: ``"regions"``: predictions number the regions, the last one wins; ``"labels"``: they hold the
            values of the references.
        ignored: Value of references where nobody labelled; None without.
        truth_names: Label → name in the references; empty if not known.
        doubts: What the reader of the figures must know.
        has_voxel_size: Whether the headers' voxel sizes are true; nothing is scored in mm or mL where they are not.
    """

    names: Mapping[int, str]
    regions: LabelRegions | None = None
    predicted: PredictedValues = "labels"
    ignored: int | None = None
    truth_names: Mapping[int, str] | None = None
    doubts: tuple[str, ...] = ()
    has_voxel_size: bool = True

    def unions(self, found: Sequence[int]) -> Unions:
        """Structure → its values in the prediction and in the truth.

        Args:
            found: Labels of this case, for where no names are known.
        """
        if self.regions is None:
            return {n: ((n,), (n,)) for n in (self.names or sorted({*found} - {self.ignored or 0}))}
        numbered = self.predicted == "regions"
        return {
            number: (self.regions.within(number) if numbered else values, values)
            for number, values in enumerate(self.regions.values.values(), start=1)
        }

    def check(self, prediction: Sequence[int], reference: Sequence[int]) -> None:
        """Refuse values that mean nothing.

        Args:
            prediction: Values found in the prediction, without 0.
            reference: Values found in the reference, without 0.

        Raises:
            DataError: One is unknown.
        """
        truth = set(self.truth_names or ())
        if truth and self.regions is not None:
            truth |= self.regions.label_values
        said = set(self.names) if self.regions is not None and self.predicted == "regions" else truth
        for which, values, known in (("prediction", prediction, said), ("reference", reference, truth)):
            allowed = known | ({self.ignored} if which == "reference" and self.ignored else set())
            unknown = [value for value in values if known and value not in allowed]
            if unknown:
                expected = ", ".join(map(str, sorted(known)))
                raise DataError(f"{which} holds label {unknown[0]}; expected 0 and {expected}")

    def drawn(self, labels: NDArray[Any], *, of_truth: bool) -> NDArray[Any]:
        """A label map as the pictures show it: one number a structure.

        Args:
            labels: Prediction or reference.
            of_truth: Which of them.
        """
        if self.regions is not None and (of_truth or self.predicted == "labels"):
            return self.regions.as_map(labels)
        return labels if self.ignored is None or not of_truth else np.where(labels == self.ignored, 0, labels)

    def settings(self) -> dict[str, Any]:
        """What the page says of it."""
        regions = {} if self.regions is None else {"regions": str(self.regions), "predicted": self.predicted}
        size = {} if self.has_voxel_size else {"voxel_size": "unknown"}
        return regions | ({} if self.ignored is None else {"ignore_label": self.ignored}) | size


def find_meaning(
    references: References,
    predictions: Path,
    bundle: Path | None,
    *,
    class_names: Mapping[int, str] | None = None,
    regions: LabelRegions | None = None,
    predicted: PredictedValues | None = None,
    ignore_label: int | None = None,
) -> LabelMeaning:
    """Work out what is scored: from what is given, else from the bundle, else from the datalist.

    Args:
        references: The references, with their datalist.
        predictions: Folder of the predictions; its ``run.json`` may name regions.
        bundle: Bundle that made them.
        class_names: Label → name in the references.
        regions: Regions to score.
        predicted: How the predictions name regions; else by number where the bundle has regions, and else by the
            references' values.
        ignore_label: Value of unlabelled voxels.

    Raises:
        UsageError: The classes' labels or names are not fit, or the regions are not those of the bundle.
        DataError: Regions or ignored value are none.
    """
    datalist = references.datalist
    listed = LabelRegions.of(datalist.extra.get("regions")) if datalist else None
    ignored = ignore_label or (ignored_value(datalist) if datalist else None) or _ignored_by(bundle)
    own = _regions_of(predictions, bundle)
    chosen = regions or own or listed
    given = class_names or references.class_names
    if not given and bundle and own is None:
        given = _bundle_classes(bundle)
    names = {label: name for label, name in dict(given or {}).items() if label not in (0, ignored)}
    if any(label < 1 for label in names) or len(set(names.values())) != len(names):
        raise UsageError(f"Classes are {names}; expected labels from 1, each with a name of its own.")
    has_size = datalist.has_voxel_size if datalist else True
    plain = LabelMeaning(names, ignored=ignored, truth_names=names, has_voxel_size=has_size)
    if chosen is None:
        if predicted == "regions":
            raise UsageError("Predictions that number regions need them: give --regions or --bundle.")
        return plain
    how: PredictedValues = predicted or ("regions" if own is not None else "labels")
    if how == "regions" and own is not None and chosen != own:
        raise UsageError(
            f"The predictions number the bundle's regions ({own}), and {chosen} is asked for; expected the same. "
            "Leave --regions away."
        )
    doubts = _doubts(
        chosen, how, listed, surely=predicted is not None or own is not None or bundle is not None
    )
    return replace(plain, names=chosen.names, regions=chosen, predicted=how, doubts=doubts)


def mask_files(meaning: LabelMeaning, prediction: Path) -> dict[int, Path]:
    """A case's own mask of each region, beside its label map; empty where one is missing.

    Args:
        meaning: With regions.
        prediction: Its label map.
    """
    if meaning.regions is None:
        return {}
    files = {
        n: prediction.parent / mask_folder(n, name) / prediction.name for n, name in meaning.names.items()
    }
    return files if all(file.is_file() for file in files.values()) else {}


def lost_parts(regions: LabelRegions) -> str:
    """One line about regions that a label map cannot hold; empty if it holds all of them."""
    if not regions.lossy:
        return ""
    pairs = "; ".join(f"{first} where it overlaps {second}" for first, second in regions.lossy)
    return (
        f"One label map cannot hold regions that overlap without being nested: lost is {pairs}. The figures of the "
        "first of each pair are too low. medimg3d predict --region-masks keeps a mask of each region."
    )


def _doubts(
    regions: LabelRegions, predicted: str, listed: LabelRegions | None, *, surely: bool
) -> tuple[str, ...]:
    doubts = []
    if not surely:
        doubts.append(
            "Nothing says how the predictions name regions: they are taken to hold the references' label values. "
            "If a bundle of regions made them, give --bundle or --predicted regions."
        )
    if listed is not None and listed.as_json() != regions.as_json():
        doubts.append(f"Scored are the regions {regions}; the datalist has others ({listed}).")
    return tuple(doubts)


def _regions_of(predictions: Path, bundle: Path | None) -> LabelRegions | None:
    """The regions that the predictions number, by the bundle, else by ``run.json``."""
    if bundle is not None:
        return LabelRegions.of(read_json(bundle / "configs" / "metadata.json").get("regions"))
    return LabelRegions.of((read_json(predictions / RUN_FILE).get("bundle") or {}).get("regions"))


def _ignored_by(bundle: Path | None) -> int | None:
    """The value that the bundle's own ``evaluate.json`` leaves out."""
    content = read_json(bundle / "configs" / "evaluate.json") if bundle else {}
    steps = content.get("postprocessing")
    steps = steps.get("transforms") if isinstance(steps, dict) else None
    for step in steps or ():
        if isinstance(step, dict) and str(step.get("_target_", "")).endswith("MaskIgnoredd"):
            return int(step["ignore_label"])
    return None


def _bundle_classes(bundle: Path) -> dict[int, str]:
    """``channel_def`` of the output in the bundle's ``metadata.json``."""
    content: Any = read_json(bundle / "configs" / "metadata.json")
    for key in ("network_data_format", "outputs", "pred", "channel_def"):
        content = content.get(key, {}) if isinstance(content, dict) else {}
    return {int(label): str(name) for label, name in content.items() if str(label).isdigit()}
