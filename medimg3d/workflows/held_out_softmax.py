"""Class probabilities of cases on their own grid, kept as float16: what configurations are combined by."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medimg3d.atomic import atomic_file, remove_partial_files
from medimg3d.bundle.folder import BundleFolder
from medimg3d.bundle.inference import load_inference, read_facts
from medimg3d.bundle.load_case import load_case
from medimg3d.bundle.probabilities import member_probabilities
from medimg3d.data.inputs import InputFile
from medimg3d.errors import DataError


def write_softmax(
    bundle: Path, images: Sequence[InputFile], out: Path, *, say: Callable[[str], None] = lambda _: None
) -> list[Path]:
    """Predict images with a bundle's plain configuration and keep the probabilities; finished cases are kept.

    Args:
        bundle: Folder of the bundle.
        images: Images, one file or one a channel.
        out: Gets ``<case>.npz`` with ``softmax``, shape (classes, I, J, K), or (classes, I, J) of a 2D image, float16.
        say: Called with a line where there is something to do.

    Returns:
        The files, in the order of the images.

    Raises:
        BundleError: The bundle's postprocessing has no argmax whose input these could be.
    """
    files = [out / f"{image.case}.npz" for image in images]
    remove_partial_files(out)
    todo = [(image, file) for image, file in zip(images, files, strict=True) if not file.is_file()]
    if todo:
        say(f"Keeping the class probabilities of {len(todo)} cases")
        folder = BundleFolder(bundle)
        model = load_inference(folder, read_facts(folder))
        for image, file in todo:
            _, item = load_case(model, image.path, image.further)
            with atomic_file(file) as temporary:
                np.savez_compressed(
                    temporary, softmax=_mean(member_probabilities(model, item)).astype(np.float16)
                )
    return files


def _mean(each: Iterator[NDArray[np.float32]]) -> NDArray[np.float32]:
    """The mean, one array and the next in memory: of a large CT with many classes each has gigabytes."""
    total = next(each)
    count = 1
    for one in each:
        total += one
        count += 1
    total /= count
    return total


def read_softmax(path: Path) -> NDArray[np.float32]:
    """Probabilities of a case, shape (classes, I, J, K).

    Raises:
        DataError: The file cannot be read.
    """
    try:
        with np.load(path) as content:
            return np.asarray(content["softmax"], dtype=np.float32)
    except (OSError, ValueError, KeyError, EOFError) as err:
        raise DataError(
            f"{path.name} is no file of class probabilities ({type(err).__name__}); delete it and run "
            "medimg3d cross-validate --softmax again."
        ) from err
