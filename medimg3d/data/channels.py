"""Named images of a case as the channels of one image.

Pure Python: bundles carry a copy of this file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def with_channel_list(
    cases: Sequence[Mapping[str, Any]], *, names: Sequence[str], base_dir: str
) -> list[dict[str, Any]]:
    """Cases whose ``images`` (name to path) became ``image``, a list of paths in the order of the names.

    MONAI completes the paths in ``image``, not those in ``images``.

    Args:
        cases: Cases of a datalist; one that has ``image`` is left as it is.
        names: Names of the channels, in the order of the network's input.
        base_dir: Folder that relative paths count from.

    Returns:
        Copies of the cases, in their order.

    Raises:
        ValueError: A case lacks one of the images.
    """
    listed = []
    for case in cases:
        images = case.get("images") or {}
        lacking = [name for name in names if name not in images]
        if "image" in case:
            listed.append(dict(case))
        elif lacking:
            raise ValueError(f"Case {case.get('id')} has no image {lacking[0]}; expected {', '.join(names)}.")
        else:
            paths = [os.path.normpath(os.path.join(base_dir, images[name])) for name in names]
            rest = {key: value for key, value in case.items() if key != "images"}
            listed.append({**rest, "image": paths})
    return listed


def folder_and_file(meta: Mapping[str, Any] | None, saver: Any) -> dict[str, Any]:
    """Name of what is written for an image: its folder and file, since each case may call its first channel ``ct``.

    Args:
        meta: The image's metadata.
        saver: MONAI's ``SaveImage``; not looked at.

    Returns:
        What MONAI's ``output_name_formatter`` gives: ``STS_001_ct.nii.gz`` for ``cases/STS_001/ct.nii.gz``.
    """
    path = Path(str((meta or {}).get("filename_or_obj", "image")))
    folder = path.parent.name
    return {"subject": f"{folder}_{path.name}" if folder else path.name, "idx": None}
