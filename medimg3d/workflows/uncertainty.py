"""How unsure a bundle is of a case: a voxel-wise map, and a warning where that is unusual."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medimg3d.atomic import atomic_file, write_text
from medimg3d.bundle.folder import BundleFolder, read_json
from medimg3d.bundle.inference import Inference
from medimg3d.bundle.probabilities import labels_after, member_probabilities
from medimg3d.data.json_file import write_json
from medimg3d.data.nifti_header import geometry_header, geometry_of
from medimg3d.metrics.confidence import (
    pairwise_disagreement,
    soft_dice_doubt,
    voxel_disagreement,
    voxel_entropy,
)
from medimg3d.workflows.ensemble_export import MEMBERS

FOLDER = "uncertainty"
TABLE = "uncertainty.csv"


@dataclass(frozen=True)
class Threshold:
    """From where on a case counts as unusual.

    Attributes:
        doubt: Doubt that ``level`` of the cross-validated cases stay at or below.
        level: That share.
        num_cases: Number of those cases.
    """

    doubt: float
    level: float
    num_cases: int


@dataclass(frozen=True)
class CaseDoubt:
    """How unsure a bundle is of one case.

    Attributes:
        case: Name of the case.
        doubt: 1 minus the soft Dice confidence, mean over the members; 0 to 1.
        disagreement: 1 minus the Dice between two members' foregrounds, mean over pairs; None for one network.
        threshold: Doubt from which on a case is unusual; None if the bundle has none.
        unusual: Whether the doubt is above it.
    """

    case: str
    doubt: float
    disagreement: float | None
    threshold: float | None
    unusual: bool

    def note(self, threshold: Threshold | None) -> str:
        """The warning, or nothing."""
        if not self.unusual or threshold is None:
            return ""
        return (
            f"the networks are less sure of it (doubt {self.doubt:.3f}) than of {threshold.level:.0%} of the "
            f"{threshold.num_cases} cross-validated cases: look at it with care"
        )


@dataclass(frozen=True, eq=False)
class UncertainInference(Inference):
    """A bundle whose plain configuration is run member by member.

    Attributes:
        last: The last case's mean probabilities, the members' mean entropy, their doubts and label maps.
    """

    last: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, model: Inference) -> UncertainInference:
        """The same bundle; its plain configuration, not the fast one."""
        return cls(**{one.name: getattr(model, one.name) for one in fields(Inference)})

    def labels_of(self, item: dict[str, Any]) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        """The label map of the mean probabilities, as :meth:`Inference.labels_of`."""
        total: Any = None
        entropy: Any = 0.0
        doubts, maps = [], []
        for probabilities in member_probabilities(self, item):
            total = probabilities if total is None else total + probabilities
            entropy = entropy + voxel_entropy(probabilities)
            doubts.append(soft_dice_doubt(probabilities))
            maps.append(probabilities.argmax(axis=0).astype(np.uint8))
        mean = np.asarray(total / len(doubts), dtype=np.float32)
        self.last.update(mean=mean, own_entropy=entropy / len(doubts), doubts=doubts, maps=maps)
        labels = labels_after(self, mean, item)
        affine = item["image"].meta.get("original_affine", item["image"].affine)
        return labels, np.asarray(affine, dtype=np.float64)


class UncertaintyMaps:
    """Writes the map and the figures of each case into ``uncertainty/`` of a folder of predictions.

    Args:
        model: Runs the cases.
        bundle: Its folder, for the threshold in ``models/ensemble.json``.
        out: Folder of the predictions.
    """

    def __init__(self, model: UncertainInference, bundle: BundleFolder, out: Path) -> None:
        self.model = model
        self.out = out
        self.threshold = read_threshold(bundle)

    def write(self, case: str, header: Any) -> CaseDoubt:
        """Write what the model found of the case that it predicted last.

        Args:
            case: Name of the case.
            header: Header of its image, or its affine.
        """
        last = self.model.last
        doubt = float(np.mean(last["doubts"]))
        limit = None if self.threshold is None else self.threshold.doubt
        found = CaseDoubt(
            case=case,
            doubt=round(doubt, 6),
            disagreement=round(pairwise_disagreement(last["maps"]), 6) if len(last["maps"]) > 1 else None,
            threshold=limit,
            unusual=limit is not None and doubt > limit,
        )
        entropy = voxel_entropy(last["mean"])
        _write_map(entropy, header, self.out / FOLDER / f"{case}_uncertainty.nii.gz")
        if len(last["maps"]) > 1:
            apart = voxel_disagreement(entropy, last["own_entropy"])
            _write_map(apart, header, self.out / FOLDER / f"{case}_disagreement.nii.gz")
        write_json(asdict(found), self.out / FOLDER / f"{case}.json")
        return found

    def note(self, case: str) -> str:
        """The warning of a case, or nothing."""
        found = read_doubt(self.out, case)
        return "" if found is None else found.note(self.threshold)

    def write_table(self, cases: Sequence[str]) -> Path:
        """``uncertainty.csv``: a row a case, the least sure one first."""
        return write_doubts(self.out, cases)


def read_threshold(bundle: BundleFolder) -> Threshold | None:
    """The threshold that ``medimg3d ensemble`` stored; None if there is none."""
    path = bundle.root / MEMBERS
    stored = read_json(path).get("uncertainty") if path.is_file() else None
    if not stored:
        return None
    return Threshold(float(stored["threshold"]), float(stored["level"]), len(stored["held_out"]))


def read_doubt(out: Path, case: str) -> CaseDoubt | None:
    """What was written of a case; None if nothing was."""
    path = out / FOLDER / f"{case}.json"
    return CaseDoubt(**read_json(path)) if path.is_file() else None


def write_doubts(out: Path, cases: Sequence[str]) -> Path:
    """``uncertainty.csv`` of what was written of the cases: a row each, the least sure one first."""
    found = [doubt for case in cases if (doubt := read_doubt(out, case)) is not None]
    text = io.StringIO(newline="")
    columns = [one.name for one in fields(CaseDoubt)]
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for doubt in sorted(found, key=lambda one: (-one.doubt, one.case)):
        writer.writerow(asdict(doubt) | {"unusual": "yes" if doubt.unusual else "no"})
    write_text(out / TABLE, text.getvalue())
    return out / TABLE


def _write_map(entropy: NDArray[np.float32], header: Any, path: Path) -> None:
    import nibabel as nib

    shape = entropy.shape if isinstance(header, np.ndarray) else header.get_data_shape()
    own = geometry_header(shape, header) if isinstance(header, np.ndarray) else geometry_of(header, shape)
    own.set_data_dtype(np.float32)
    own.set_slope_inter(1, 0)
    with atomic_file(path) as temporary:
        nib.save(nib.Nifti1Image(entropy.reshape(shape).round(3), None, own), temporary)
