"""Unpacks a MedMNIST file (``.npz``) into images and a datalist with the official split.

The official validation part becomes fold 0 of the datalist's training list and the official training part
fold 1, so that ``--fold 0`` holds out what MedMNIST holds out. MedMNIST publishes no patients: where several
images are of one patient (both glands of AdrenalMNIST3D), nobody can tell.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from medimg3d.data.datalist import Case, Datalist
from medimg3d.data.datalist_file import save_datalist
from medimg3d.errors import DataError, UsageError

CLASSES = {"pneumoniamnist": ("normal", "pneumonia"), "adrenalmnist3d": ("normal", "mass")}
PARTS = ("train", "val", "test")
DATALIST = "dataset.json"

Progress = Callable[[int, int], None]
"""Called with the number of images written and the number of all images."""


def unpack_medmnist(
    npz: Path, out: Path, *, classes: tuple[str, ...] | None = None, progress: Progress | None = None
) -> Path:
    """Write every image as PNG (2D) or NIfTI (3D), and ``dataset.json``.

    Args:
        npz: The file: ``train_images`` of shape (n, rows, columns[, 3]) or (n, i, j, k), uint8,
            ``train_labels`` (n, 1), and the same for ``val`` and ``test``.
        out: Folder to write to; must not hold a datalist yet.
        classes: Class names by index; known for the sets that medimg3d uses.
        progress: Called before the first image and after each.

    Returns:
        The datalist.

    Raises:
        UsageError: No such file, or ``out`` holds a datalist.
        DataError: The file lacks a part, or a label has no class name.
    """
    if not npz.is_file():
        raise UsageError(f"{npz} does not exist; expected a MedMNIST file (.npz).")
    if (out / DATALIST).exists():
        raise UsageError(f"{out} holds a datalist already; expected a new folder.")
    name = npz.stem.split("_")[0]
    with _opened(npz) as content:
        parts = {part: (content[f"{part}_images"], content[f"{part}_labels"].reshape(-1)) for part in PARTS}
    num_classes = 1 + max(int(labels.max()) for _, labels in parts.values())
    numbered = tuple(str(number) for number in range(num_classes))
    names: tuple[str, ...] = classes or CLASSES.get(name) or numbered
    if len(names) < num_classes:
        raise DataError(f"{npz.name} has {num_classes} classes; expected a name for each, got {len(names)}.")
    total = sum(len(labels) for _, labels in parts.values())
    cases: dict[str, list[Case]] = {part: [] for part in PARTS}
    done = 0
    for part, (images, labels) in parts.items():
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            if progress is not None:
                progress(done, total)
            path = _write_image(image, out / part / f"{name}_{part}_{number:05d}")
            fold = {"train": 1, "val": 0}.get(part)
            cases[part].append(Case(image=path, class_label=names[int(label)], fold=fold))
            done += 1
    if progress is not None:
        progress(total, total)
    datalist = Datalist(
        name=name,
        classes=tuple(names),
        training=tuple(cases["val"] + cases["train"]),
        test=tuple(cases["test"]),
        split={"by": "case", "num_folds": 2, "seed": 0, "note": "fold 0 is MedMNIST's validation part"},
        extra={"known_defects": ["duplicate"]},  # the benchmark's parts stay as they were published
    )
    return save_datalist(datalist, out / DATALIST)


def _opened(npz: Path) -> np.lib.npyio.NpzFile:
    try:
        content = np.load(npz)
        lacking = [
            key for part in PARTS for key in (f"{part}_images", f"{part}_labels") if key not in content
        ]
    except (OSError, ValueError, TypeError) as err:
        raise DataError(
            f"{npz.name} cannot be read ({type(err).__name__}); expected a MedMNIST file."
        ) from err
    if lacking:
        content.close()
        raise DataError(f"{npz.name} has no {lacking[0]}; expected a MedMNIST file with train, val and test.")
    return content


def _write_image(image: np.ndarray, stem: Path) -> Path:
    stem.parent.mkdir(parents=True, exist_ok=True)
    if image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3):
        from PIL import Image

        path = stem.with_name(f"{stem.name}.png")
        Image.fromarray(image).save(path)
        return path
    import nibabel

    path = stem.with_name(f"{stem.name}.nii.gz")
    nibabel.save(nibabel.Nifti1Image(image, np.eye(4)), path)  # MedMNIST states no voxel size
    return path
