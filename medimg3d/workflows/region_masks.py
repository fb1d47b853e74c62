"""A mask of each region beside the label map, which cannot hold regions that overlap without being nested."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medimg3d.bundle.inference import Inference
from medimg3d.data.fast_nifti_writer import write_label_nifti
from medimg3d.data.label_regions import LabelRegions, mask_folder
from medimg3d.errors import BundleError, UsageError
from medimg3d.workflows.predicted_case import label_map_path

_TO_LABELS = "RegionsToLabelsd"


@dataclass(frozen=True, eq=False)
class RegionInference(Inference):
    """A bundle whose plain configuration keeps the masks that its label maps are made of.

    Attributes:
        last: The last case's masks, shape (regions, I, J, K), uint8.
    """

    last: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, model: Inference) -> RegionInference:
        """The same bundle; its plain configuration, not the fast one.

        Raises:
            BundleError: Its postprocessing makes no label map of regions.
        """
        steps = getattr(model.postprocessing, "transforms", ())
        if not any(type(step).__name__ == _TO_LABELS for step in steps):
            raise BundleError(
                f"{model.facts.name}: the postprocessing of configs/inference.json has no {_TO_LABELS}; expected one, "
                "before which the regions stand."
            )
        made = cls(**{one.name: getattr(model, one.name) for one in fields(Inference)})
        object.__setattr__(made, "postprocessing", made._keeping_masks(model.postprocessing))
        return made

    def _keeping_masks(self, postprocessing: Any) -> Any:
        from monai.transforms import Compose

        def keep(step: Any) -> Any:
            def kept(data: dict[str, Any]) -> dict[str, Any]:
                self.last["masks"] = (data["pred"] >= step.threshold).cpu().numpy().astype(np.uint8)
                return dict(step(data))

            return kept

        steps = [keep(one) if type(one).__name__ == _TO_LABELS else one for one in postprocessing.transforms]
        return Compose(steps)


class RegionMasks:
    """Writes the masks of each case into ``regions/`` of a folder of predictions.

    Args:
        model: A bundle of regions, in torch, its plain configuration.
        out: Folder of the predictions.

    Raises:
        UsageError: The bundle has no regions.
        BundleError: As :meth:`RegionInference.of`.
    """

    def __init__(self, model: Inference, out: Path) -> None:
        regions = LabelRegions.of(dict(model.facts.regions))
        if regions is None:
            raise UsageError(f"{model.facts.name} has no overlapping regions; leave --region-masks away.")
        self.model = RegionInference.of(model)
        self.names = regions.names
        self.out = out

    def write(self, case: str, header: Any) -> list[Path]:
        """Write the masks of the case that was predicted last.

        Args:
            case: Name of the case.
            header: Header of its image, or its affine.
        """
        masks: NDArray[np.uint8] = self.model.last["masks"]
        shape = masks.shape[1:] if isinstance(header, np.ndarray) else header.get_data_shape()
        return [
            write_label_nifti(masks[number - 1].reshape(shape), header, self._file(case, number))
            for number in self.names
        ]

    def note(self, case: str) -> str:
        """Nothing is to be said of a case."""
        return ""

    def write_table(self, cases: Sequence[str]) -> None:
        """There is none."""

    def _file(self, case: str, number: int) -> Path:
        file = label_map_path(self.out / mask_folder(number, self.names[number]), case)
        file.parent.mkdir(parents=True, exist_ok=True)
        return file
