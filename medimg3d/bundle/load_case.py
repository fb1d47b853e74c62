"""Loads one case for a bundle: read once where its reader allows it, checked, and no voxel held longer than needed.

The original image is the largest thing that a prediction holds. It is gone as soon as the preprocessing has made the
model's image of it, and only its grid is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from medimg3d.bundle.inference import Inference
from medimg3d.data.flat_image import flat_image
from medimg3d.data.image_facts import NIFTI_ENDINGS
from medimg3d.data.input_checks import check_shape, check_values, check_volume
from medimg3d.data.volume_file import Volume, read_volume, read_volume_grid, write_volume
from medimg3d.errors import DataError, GeometryError, Medimg3dError

LARGE = 2**26
"""Bytes of an original image after whose steps freed memory is handed back: below, it would only cost time."""

CHANNELS_APART_MM = 1e-3
"""By how much entries of the affines of two channels may differ."""

if TYPE_CHECKING:
    from medimg3d.data.fast_nifti_reader import FastNiftiReader


def load_case(model: Inference, path: Path, further: Sequence[Path] = ()) -> tuple[Volume, dict[str, Any]]:
    """Read, check and preprocess one image; safe in another thread than the prediction.

    Args:
        model: The bundle.
        path: NIfTI, NRRD or MetaImage file.
        further: Files of its further channels, in order, on the same grid.

    Returns:
        The original image without its voxels (:meth:`medimg3d.data.volume_file.Volume.without_voxels`), and what
        :meth:`medimg3d.bundle.inference.Inference.labels_of` takes.

    Raises:
        DataError: The file cannot be read, or its image is none that the model can be asked about.
        GeometryError: Its grid is none in space, or the channels lie on different ones.
    """
    if further:
        return _load_channels(model, (path, *further))
    reader = fast_reader(model.preprocessing)
    if reader is not None and _is_for(model, path):
        return _read_once(model, path, reader)
    volume = read_volume(path)
    check_volume(volume, num_channels=model.facts.num_channels, axes=model.image_axes)
    if _is_for(model, path):
        volume = volume.without_voxels()
        return volume, model.prepare(path)
    with TemporaryDirectory() as folder:  # a copy that MONAI can read without further packages
        nifti = write_volume(as_taken(volume, model.image_axes), Path(folder) / "image.nii")
        volume = volume.without_voxels()
        if reader is not None and _is_for(model, nifti):
            return volume, _read_once(model, nifti, reader)[1]
        return volume, model.prepare(nifti)


def _load_channels(model: Inference, files: Sequence[Path]) -> tuple[Volume, dict[str, Any]]:
    """One file a channel, each checked by itself, and all of them on the first one's grid."""
    if len(files) != model.facts.num_channels:
        raise DataError(f"has {len(files)} files; this bundle takes {model.facts.num_channels} channels")
    first: Volume | None = None
    with TemporaryDirectory() as folder:
        taken = []
        for number, file in enumerate(files):
            try:
                volume = read_volume(file)
                check_volume(volume, num_channels=1, axes=model.image_axes)
            except Medimg3dError as err:
                raise type(err)(f"its file {file.name} {err}") from err
            if first is None:
                first = volume.without_voxels()
            _check_grid(volume, first, file.name, files[0].name)
            if not _is_for(model, file):  # a copy that MONAI can read without further packages
                shown = as_taken(volume, model.image_axes)
                file = write_volume(shown, Path(folder) / f"{number}.nii")
            taken.append(file)
        assert first is not None
        return first, model.prepare(*taken)


def _check_grid(volume: Volume, first: Volume, name: str, first_name: str) -> None:
    if volume.array.shape != first.array.shape:
        raise GeometryError(
            f"its file {name} has {_times(volume)} voxels and {first_name} {_times(first)}; expected one grid. "
            "Resample one onto the other"
        )
    apart_mm = float(np.abs(volume.affine - first.affine).max())
    if apart_mm > CHANNELS_APART_MM:
        raise GeometryError(
            f"its file {name} lies on another grid than {first_name} (affines differ by {apart_mm:.3g} mm); expected "
            "one grid. Resample one onto the other"
        )


def _times(volume: Volume) -> str:
    return " × ".join(map(str, volume.array.shape))


def as_taken(volume: Volume, axes: int) -> Volume:
    """The image as a bundle of 2D or 3D images takes it."""
    return flat_image(volume) if axes == 2 else volume


def fast_reader(preprocessing: Any) -> FastNiftiReader | None:
    """The reader of a preprocessing that begins with LoadImaged by ``FastNiftiReader``; None if it does not."""
    from monai.transforms import Compose, LoadImaged

    from medimg3d.data.fast_nifti_reader import FastNiftiReader

    if not isinstance(preprocessing, Compose) or not preprocessing.transforms:
        return None
    first = preprocessing.transforms[0]
    if not isinstance(first, LoadImaged) or tuple(first.keys) != ("image",):
        return None
    readers = getattr(getattr(first, "_loader", None), "readers", None) or [None]
    return readers[-1] if isinstance(readers[-1], FastNiftiReader) else None


def _read_once(model: Inference, path: Path, reader: FastNiftiReader) -> tuple[Volume, dict[str, Any]]:
    """What the bundle's own first step loads is what is checked."""
    volume = read_volume_grid(path)
    check_shape(volume.array.shape, num_channels=model.facts.num_channels, axes=model.image_axes)
    steps: Any = model.preprocessing
    # The reader is given, else MONAI would try others on a damaged file.
    items = [steps.transforms[0]({"image": str(path)}, reader=reader)]
    check_values(items[0]["image"].numpy())
    return volume, _preprocessed(steps, items, is_large=volume.array.nbytes >= LARGE)


def _preprocessed(steps: Any, items: list[dict[str, Any]], *, is_large: bool) -> dict[str, Any]:
    """What all steps but the first make of the item, which is taken out of its list.

    Step by step: ``Compose`` holds what it was called with until its last step, and that is the original image.
    """
    from medimg3d.inference.process_memory import give_back_freed

    if steps.lazy is not False:  # steps wait for each other
        return dict(steps(items.pop(), start=1))
    for number in range(1, len(steps.transforms)):
        items.append(steps(items.pop(), start=number, end=number + 1))
        if is_large:
            give_back_freed()
    return dict(items.pop())


def _is_for(model: Inference, path: Path) -> bool:
    """Whether the bundle's own reader takes the file as it is."""
    return model.image_axes == 3 and path.name.lower().endswith(NIFTI_ENDINGS)
