"""What a bundle with a region finder has besides: training config, weights, blocks in ``inference.json``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medimg3d.bundle.folder import BundleFolder, read_json
from medimg3d.data.content_hash import content_sha256
from medimg3d.errors import BundleError

FINDER_CONFIG = "train_finder"
FINDER_WEIGHTS = Path("models") / "finder.pt"
CHECKPOINT_KEY = "finder_checkpoint"


def has_finder(bundle: BundleFolder) -> bool:
    """Whether the bundle finds a region at low resolution before it predicts."""
    path = bundle.root / "configs" / "inference.json"
    return path.is_file() and CHECKPOINT_KEY in read_json(path)


def finder_sha256(bundle: BundleFolder) -> list[str]:
    """Hashes of the finder's weights; empty without a finder.

    Raises:
        BundleError: It has no weights.
    """
    if not has_finder(bundle):
        return []
    files = sorted((bundle.root / FINDER_WEIGHTS.parent).glob("finder*.pt"))
    if not (bundle.root / FINDER_WEIGHTS).is_file():
        raise BundleError(
            f"{bundle.name} has no weights of its region finder ({FINDER_WEIGHTS.as_posix()}); train it with "
            "medimg3d train --stage finder, into the same --out."
        )
    return [content_sha256(file) for file in files]


def region_step(preprocessing: Any) -> int | None:
    """Place, in a ``Compose``, of the step that crops to the found region; None without one."""
    steps = getattr(preprocessing, "transforms", ())
    return next((n for n, step in enumerate(steps) if hasattr(step, "region")), None)
