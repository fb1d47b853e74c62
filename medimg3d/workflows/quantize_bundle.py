"""From a bundle and labelled cases to its 8-bit form, kept if the Dice of cases it has not seen hardly falls.

The layers' ranges are measured on windows of cases that the weights were trained on; the Dice is that of the
other labelled cases, from file to label map, before and after.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medimg3d.bundle.inference import Inference
from medimg3d.data.content_hash import content_sha256
from medimg3d.data.datalist import Case
from medimg3d.data.datalist_file import load_datalist
from medimg3d.data.volume_file import read_volume
from medimg3d.errors import DataError, Medimg3dError, UsageError
from medimg3d.metrics.masks import class_masks
from medimg3d.metrics.overlap import dice

if TYPE_CHECKING:
    import torch

    from medimg3d.inference.backends.quantized import Verdict

INT8 = "openvino-int8"
NUM_CASES = 12
"""Training cases whose windows are used."""
WINDOWS_PER_CASE = 3


def quantize_bundle(model: Inference, datalist: Path, *, cache_dir: Path | None = None) -> Verdict:
    """Quantize a bundle's network and keep it if the mean Dice of every class falls by less than 0.002.

    A verdict stands in the cache as long as weights, windows and cases are the same: nothing is predicted again.

    Args:
        model: A bundle with ``inference_fast.json``, its network in torch on the processor.
        datalist: Labelled cases: of the training list, those that the weights were trained on (by their hashes)
            give windows, and the others are scored, like the validation list. Test cases take no part.
        cache_dir: Folder of converted networks; the user's own cache if None.

    Returns:
        The verdict; it may be a refusal.

    Raises:
        UsageError: The bundle has no ``inference_fast.json``, several networks or overlapping regions, its cases
            have several files each, or there is no case to take windows from or to score.
        DataError: A case cannot be predicted or scored.
        MissingExtraError: OpenVINO or NNCF is not installed.
        BackendError: 8 bits cannot run here, or the network cannot be quantized.
    """
    from medimg3d.inference.backends.kinds import BackendError, problem
    from medimg3d.inference.backends.quantize import quantize_if_good
    from medimg3d.inference.label_map_inferer import LabelMapInferer
    from medimg3d.inference.network_mean import AveragedNetworks

    if not isinstance(model.inferer, LabelMapInferer):
        raise UsageError(
            f"{model.facts.name} has no configs/inference_fast.json (or it was turned off); 8 bits need one."
        )
    if AveragedNetworks.of(model.network).further_sha256:
        raise UsageError(f"{model.facts.name} averages several networks; 8 bits are for a single one.")
    if model.facts.regions:
        raise UsageError(
            f"{model.facts.name} has overlapping regions; 8 bits are for classes that exclude each other."
        )
    if (found := problem(INT8, str(model.device))) is not None:
        raise found
    cases = LabelledCases.of(datalist, model.facts.training_cases)
    if any(len(case.files) > 1 for case in (*cases.trained, *cases.unseen)):
        raise UsageError(f"{datalist} has cases of several files; 8 bits are for images of one file each.")
    windows = training_windows(model, cases.trained)
    made = quantize_if_good(
        model.network,
        windows,
        lambda backend: scores(replace(model, network=backend), cases.unseen),
        scored_on=cases.scored_on(),
        window_shape=tuple(windows[0].shape[1:]),
        in_channels=windows[0].shape[0],
        batch=model.inferer.stream.window.sw_batch_size,
        weights_sha256=model.facts.weights_sha256,
        cache_dir=cache_dir,
    )
    if made.backend is not None:
        made.backend.close()
    if made.verdict is None:
        raise BackendError(made.reason)
    return made.verdict


@dataclass(frozen=True)
class LabelledCases:
    """Cases that some weights have seen, and cases that they have not.

    Attributes:
        trained: For windows.
        unseen: To be scored.
    """

    trained: tuple[Case, ...]
    unseen: tuple[Case, ...]

    @classmethod
    def of(cls, datalist: Path, training_cases: Sequence[Mapping[str, Any]]) -> LabelledCases:
        """The labelled cases of a datalist, told apart by the weights' own record.

        Args:
            datalist: The datalist.
            training_cases: The record (``image_sha256``). Empty: the training list counts as seen.

        Raises:
            UsageError: One of both is empty.
            DataError: The datalist cannot be read, or an image of it.
        """
        content = load_datalist(datalist)
        record = {case["image_sha256"] for case in training_cases}
        labelled = [case for case in content.training if _is_labelled(case)]
        trained: list[Case] = []
        unseen = [case for case in content.validation if _is_labelled(case)]
        for case in labelled:
            (trained if not record or _sha256(case.image) in record else unseen).append(case)
        if not trained or not unseen:
            lacking = "was trained on" if not trained else "has not seen"
            raise UsageError(
                f"{Path(datalist).name} has no labelled case that the bundle {lacking}; expected both kinds: the "
                "datalist of its training, with the fold that it held out."
            )
        return cls(tuple(trained), tuple(unseen))

    def scored_on(self) -> str:
        """The scored cases in words and by the hash of their files."""
        files = sorted(_sha256(case.image) + _sha256(case.label) for case in self.unseen)
        return f"{len(self.unseen)} cases, sha256 {hashlib.sha256(''.join(files).encode()).hexdigest()[:16]}"


def training_windows(model: Inference, cases: Sequence[Case]) -> list[torch.Tensor]:
    """Windows of some cases as the network gets them, drawn evenly and always the same, each (channels, *window)."""
    every = max(1, len(cases) // NUM_CASES)
    found: list[torch.Tensor] = []
    for number, case in enumerate(cases[::every][:NUM_CASES]):
        sample = WindowSample(WINDOWS_PER_CASE, seed=number, num_outputs=max(model.facts.class_names) + 1)
        try:
            replace(model, network=sample).label_map(Path(str(case.image)))
        except Exception as err:
            raise _unusable(case, err) from err
        found += sample.windows
    return found


class WindowSample:
    """Stands in the network's place and keeps some of the windows, each as likely as any other.

    Args:
        count: Windows to keep.
        seed: Of the choice.
        num_outputs: Channels of the answer, which is zero.
    """

    def __init__(self, count: int, *, seed: int, num_outputs: int) -> None:
        self.count = count
        self.num_outputs = num_outputs
        self.windows: list[torch.Tensor] = []
        self._seen = 0
        self._random = np.random.default_rng(seed)

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        """Zeros, (batch, num_outputs, *window), of windows (batch, channels, *window)."""
        for window in windows:
            place = self._seen if self._seen < self.count else int(self._random.integers(self._seen + 1))
            self._seen += 1
            if place < self.count:  # reservoir sampling
                self.windows[place : place + 1] = [window.detach().clone().cpu()]
        return windows.new_zeros((windows.shape[0], self.num_outputs, *windows.shape[2:]))


def scores(model: Inference, cases: Sequence[Case]) -> NDArray[np.float64]:
    """Dice of every case and class, shape (cases, classes); NaN where neither map has the class.

    Raises:
        DataError: A case cannot be predicted, or its label map lies on another grid.
    """
    return np.asarray([_case_scores(model, case) for case in cases])


def _case_scores(model: Inference, case: Case) -> list[float]:
    try:
        labels, _ = model.label_map(Path(str(case.image)))
        truth = np.rint(read_volume(Path(str(case.label))).array).astype(np.int64).reshape(labels.shape)
    except Exception as err:
        raise _unusable(case, err) from err
    pairs = class_masks(labels, truth, list(model.facts.class_names))
    return [dice(found, expected) for _, found, expected in pairs]


def _unusable(case: Case, error: Exception) -> DataError:
    why = str(error) if isinstance(error, Medimg3dError) else type(error).__name__
    return DataError(f"{case.name} cannot be used to quantize: {why}. Mend it, or leave it out of the list")


def _is_labelled(case: Case) -> bool:
    return isinstance(case.image, Path) and case.label is not None


def _sha256(file: Any) -> str:
    try:
        return content_sha256(file)
    except OSError as err:
        raise DataError(
            f"{Path(file).name} of the datalist cannot be read ({type(err).__name__}); mend the datalist."
        ) from err
