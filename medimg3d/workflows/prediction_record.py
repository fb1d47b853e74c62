"""What a prediction leaves behind for machines: ``measurements.csv`` and ``run.json``."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medimg3d import __version__
from medimg3d.atomic import write_text
from medimg3d.bundle.inference import BundleFacts
from medimg3d.data.label_counts import count_labels
from medimg3d.data.label_regions import LabelRegions


@dataclass(frozen=True)
class CaseVolumes:
    """How big the structures of a case are.

    Attributes:
        case: Name of the case.
        voxels: Structure → number of voxels.
        ml: Structure → volume in mL; None where the voxel size is not known.
        spacing_mm: Voxel size along I, J, K, in mm, or None.
    """

    case: str
    voxels: dict[str, int]
    ml: dict[str, float | None]
    spacing_mm: tuple[float, float, float] | None

    @classmethod
    def of(
        cls,
        case: str,
        labels: NDArray[np.uint8],
        class_names: Mapping[int, str],
        *,
        voxel_ml: float | None,
        spacing_mm: tuple[float, float, float] | None,
        regions: LabelRegions | None = None,
    ) -> CaseVolumes:
        """Count the voxels of a label map.

        Args:
            case: Name of the case.
            labels: Label map, shape (I, J, K).
            class_names: Label → name.
            voxel_ml: Volume of one voxel in mL, or None.
            spacing_mm: Voxel size along I, J, K, in mm, or None.
            regions: What the labels number, if they number overlapping regions: nested ones count with the larger.
        """
        counts = count_labels(labels)
        values = {label: (label,) if regions is None else regions.within(label) for label in class_names}
        voxels = {name: sum(int(counts[v]) for v in values[label]) for label, name in class_names.items()}
        ml = {name: None if voxel_ml is None else count * voxel_ml for name, count in voxels.items()}
        return cls(case, voxels, ml, spacing_mm)


def write_measurements(rows: Sequence[CaseVolumes], structures: Sequence[str], path: Path) -> Path:
    """Write one row a case: volume of each structure in mL, its voxels, and the voxel size in mm.

    Volumes and voxel size are blank where the image does not state its voxel size.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    columns = [_column(name) for name in structures]
    writer.writerow(
        ["case", *(f"{name}_ml" for name in columns), *(f"{name}_voxels" for name in columns)]
        + [f"spacing_{axis}_mm" for axis in "ijk"]
    )
    for row in rows:
        volumes = [row.ml[name] for name in structures]
        writer.writerow(
            [row.case, *("" if ml is None else f"{ml:.6g}" for ml in volumes)]
            + [row.voxels[name] for name in structures]
            + (["", "", ""] if row.spacing_mm is None else [f"{size:.6g}" for size in row.spacing_mm])
        )
    write_text(path, text.getvalue())
    return path


def write_run_record(
    cases: Sequence[Mapping[str, Any]],
    bundle: BundleFacts,
    seconds: float,
    path: Path,
    *,
    settings: Mapping[str, Any] | None = None,
    peak_memory_gb: float | None = None,
) -> Path:
    """Write what was run on what: bundle, weights, settings, each file with its hash and fate, versions, time.

    The peak memory is that of the process so far, in GB (10⁹ bytes), if none is given; it is left away where the
    system does not tell.
    """
    peak = _peak_memory_gb() if peak_memory_gb is None else peak_memory_gb
    record: dict[str, Any] = {
        "bundle": {
            "name": bundle.name,
            "version": bundle.version,
            "weights_sha256": bundle.weights_sha256,
            **({"regions": dict(bundle.regions)} if bundle.regions else {}),
        },
        **({"training_cases": bundle.training_cases} if bundle.training_cases else {}),
        **({"settings": dict(settings)} if settings else {}),
        "cases": list(cases),
        "versions": {"medimg3d": __version__, "monai": version("monai"), "torch": version("torch")},
        "seconds": round(seconds, 2),
        **({"peak_memory_gb": peak} if peak is not None else {}),
    }
    write_text(path, json.dumps(record, indent=2) + "\n")
    return path


def _column(name: str) -> str:
    return name.strip().replace(" ", "_")


def _peak_memory_gb() -> float | None:
    from medimg3d.inference.process_memory import peak_bytes

    if (held := peak_bytes()) is not None:
        return round(held / 1e9, 3)
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9, 3)
