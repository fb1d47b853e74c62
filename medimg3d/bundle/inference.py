"""Reads what a bundle says about inference and runs it: its preprocessing, network, inferer, postprocessing.

Nothing here decides how an image is handled: every part comes out of the bundle's ``inference.json``, so that
the label map is the one that ``python -m monai.bundle run`` writes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medimg3d.bundle.code_path import bundle_code
from medimg3d.bundle.finder import finder_sha256
from medimg3d.bundle.folder import TRAINING_CASES, WEIGHTS, BundleFolder, read_json
from medimg3d.bundle.notices import quiet_dicom_plugin
from medimg3d.data.content_hash import content_sha256
from medimg3d.errors import BundleError, UsageError

if TYPE_CHECKING:
    import torch
    from monai.bundle import ConfigParser


FAST = "inference_fast"


@dataclass(frozen=True)
class BundleFacts:
    """What a bundle says of itself.

    Attributes:
        name: Name of the bundle's folder.
        version: Its version.
        class_names: Label → name, without the background; class → name for a classifier.
        num_channels: Channels of the input image.
        weights: File of the weights.
        weights_sha256: Hash of that file.
        training_cases: What the weights were trained on; empty if there is no record beside them.
        num_axes: Axes of what the network sees: 2 or 3.
        regions: Region → the label values that it unites, where the label maps number overlapping regions.
    """

    name: str
    version: str
    class_names: Mapping[int, str]
    num_channels: int
    weights: Path
    weights_sha256: str
    training_cases: list[dict[str, Any]] = field(default_factory=list)
    num_axes: int = 3
    regions: Mapping[str, list[int]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Inference:
    """A bundle ready to predict, its parts as MONAI made them from ``inference.json``.

    Attributes:
        facts: What the bundle says of itself.
        device: Where the network is.
        preprocessing: ``{"image": path}`` → the same with a MetaTensor, shape (C, *spatial).
        network: In evaluation mode; or what runs its windows (:mod:`medimg3d.inference.backends`).
        inferer: Called with a batch and the network.
        postprocessing: ``{"pred": ...}`` → the same as a label map on the image's grid.
        amp: Whether CUDA autocast is on.
        backend: Name of what runs the windows.
        is_fast: Whether ``inference_fast.json`` is merged on top: ``inferer`` then gives the label map itself.
    """

    facts: BundleFacts
    device: torch.device
    preprocessing: Callable[[dict[str, Any]], dict[str, Any]]
    network: Any
    inferer: Callable[..., torch.Tensor]
    postprocessing: Callable[[dict[str, Any]], dict[str, Any]]
    amp: bool
    is_fast: bool = False
    backend: str = "torch"

    @property
    def image_axes(self) -> int:
        """Axes of the images that it takes; 3 also for a 2D network that goes through a volume slice by slice."""
        return 3 if _goes_by_slices(self.inferer) else self.facts.num_axes

    def settings(self, bundle: BundleFolder) -> dict[str, Any]:
        """What its label maps depend on besides the images."""
        from medimg3d.inference.network_mean import AveragedNetworks

        configs = ["inference", *([FAST] if self.is_fast else [])]
        finder = finder_sha256(bundle)
        further = AveragedNetworks.of(self.network).further_sha256
        return {
            "weights_sha256": self.facts.weights_sha256,
            **({"further_weights_sha256": list(further)} if further else {}),
            **({"finder_sha256": finder} if finder else {}),
            "configs_sha256": {name: content_sha256(bundle.config(name)) for name in configs},
            "backend": self.backend,
            "device": self.device.type,
        }

    def label_map(self, image: Path) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        """Predict one image.

        Args:
            image: NIfTI file.

        Returns:
            As :meth:`labels_of`.

        Raises:
            BundleError: The postprocessing gives no label map of one channel with labels 0 to 255.
        """
        return self.labels_of(self.prepare(image))

    def prepare(self, image: Path, *further: Path) -> dict[str, Any]:
        """Load and preprocess one image; safe in another thread than the prediction.

        Args:
            image: Its file.
            *further: Files of its further channels, in order.
        """
        files = [str(file) for file in (image, *further)]
        return self.preprocessing({"image": files if further else files[0]})

    def labels_of(self, item: dict[str, Any]) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        """Predict what :meth:`prepare` gave.

        Returns:
            Label map, shape (I, J, K), or (I, J) of a 2D image, uint8, and its RAS affine in mm, shape (4, 4).

        Raises:
            BundleError: The postprocessing gives no label map of one channel with labels 0 to 255.
        """
        import torch
        from monai.data import decollate_batch

        from medimg3d.inference.batch_of_one import batch_of_one_item

        batch = batch_of_one_item(item)
        pixels = batch["image"].to(self.device)
        with torch.no_grad(), torch.autocast("cuda") if self.amp else nullcontext():
            batch |= {"image": pixels, "pred": self.inferer(pixels, self.network)}
        pred = self.postprocessing(decollate_batch(batch)[0])["pred"]
        return _whole_labels(pred.cpu().numpy(), self.image_axes), np.asarray(pred.affine, dtype=np.float64)


def read_facts(bundle: BundleFolder, *, checkpoint: Path | None = None) -> BundleFacts:
    """What a bundle's metadata says, and its weights; loads no torch.

    Args:
        bundle: The bundle.
        checkpoint: Weights to use instead of the bundle's own.

    Raises:
        UsageError: The checkpoint does not exist.
        BundleError: The metadata names no classes, or the bundle has no weights.
    """
    if checkpoint is not None and not checkpoint.is_file():
        raise UsageError(f"{checkpoint} does not exist; expected a file of weights (model.pt).")
    weights = checkpoint or bundle.root / WEIGHTS
    if not weights.is_file():
        raise BundleError(
            f"{bundle.name} has no weights ({WEIGHTS.as_posix()}); train it first, or pass --checkpoint."
        )
    finder_sha256(bundle)  # refused here, before any image is read
    return BundleFacts(
        name=bundle.name,
        version=bundle.version,
        class_names=_class_names(bundle),
        num_channels=_num_channels(bundle),
        weights=weights,
        weights_sha256=content_sha256(weights),
        training_cases=_training_cases(weights),
        num_axes=_num_axes(bundle),
        regions=dict(bundle.metadata.get("regions") or {}),
    )


def has_fast_inference(bundle: BundleFolder) -> bool:
    """Whether the bundle has the overlay ``inference_fast.json``."""
    return (bundle.root / "configs" / f"{FAST}.json").is_file()


def load_inference(
    bundle: BundleFolder, facts: BundleFacts, *, device: str | None = None, fast: bool = False
) -> Inference:
    """Build the parts of ``inference.json`` and load the weights.

    Args:
        bundle: The bundle.
        facts: Of the same bundle.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``; the bundle's own choice if None.
        fast: Merge ``inference_fast.json`` on top.

    Raises:
        UsageError: There is no such device.
        BundleError: The configuration cannot be built, or the weights do not fit the network.
    """
    with building(bundle, facts, device=device, fast=fast) as parser:
        return _build(parser, facts, is_fast=fast)


@contextmanager
def building(
    bundle: BundleFolder, facts: BundleFacts, *, device: str | None = None, fast: bool = False
) -> Iterator[ConfigParser]:
    """A parser of ``inference.json`` whose parts can be built inside the block.

    Args:
        bundle: The bundle.
        facts: Of the same bundle.
        device: As for :func:`load_inference`.
        fast: As for :func:`load_inference`.

    Raises:
        UsageError: There is no such device.
        BundleError: The configuration cannot be built.
    """
    from monai.bundle import ConfigParser

    parser = ConfigParser()
    parser.read_config([str(bundle.config(name)) for name in ("inference", *([FAST] if fast else []))])
    parser.read_meta(str(bundle.root / "configs" / "metadata.json"))
    parser["bundle_root"] = str(bundle.root)
    parser["checkpoint"] = str(facts.weights.resolve())
    if device is not None:
        parser["device"] = f"$torch.device({checked_device(device)!r})"
    with bundle_code(bundle.root), quiet_dicom_plugin():
        try:
            parser.parse(reset=True)
            if "initialize" in parser:
                parser.get_parsed_content("initialize")
            yield parser
        except BundleError:
            raise
        except Exception as err:
            raise BundleError(
                f"{facts.name}: configs/inference.json cannot be built ({type(err).__name__}: {err}); "
                "check it with: python -m monai.bundle run --config_file configs/inference.json"
            ) from err


def _build(parser: ConfigParser, facts: BundleFacts, *, is_fast: bool) -> Inference:
    device = parser.get_parsed_content("device")
    network = parser.get_parsed_content("network" if "network" in parser else "network_def").to(device)
    load_weights(network, facts.weights, device)
    amp = parser.get_parsed_content("evaluator#amp") if "evaluator#amp" in parser else False
    return Inference(
        facts=facts,
        device=device,
        preprocessing=parser.get_parsed_content("preprocessing"),
        network=network.eval(),
        inferer=parser.get_parsed_content("inferer"),
        postprocessing=_without_saving(parser.get_parsed_content("postprocessing")),
        amp=bool(amp) and device.type == "cuda",  # as the engine that the configuration would run
        is_fast=is_fast,
    )


def _without_saving(postprocessing: Any) -> Any:
    """The postprocessing but for its writers: medimg3d writes the file itself, whole or not at all."""
    from monai.transforms import Compose, SaveImage, SaveImaged

    steps = getattr(postprocessing, "transforms", (postprocessing,))
    return Compose([step for step in steps if not isinstance(step, SaveImage | SaveImaged)])


def load_weights(network: torch.nn.Module, weights: Path, device: torch.device) -> None:
    """Load a state dict, alone or under ``"model"``; half precision becomes the network's own.

    Raises:
        BundleError: It does not fit.
    """
    import torch

    try:
        state = torch.load(weights, map_location=device, weights_only=True)
        network.load_state_dict(state.get("model", state))
    except Exception as err:
        reason = str(err).strip().splitlines()[0].rstrip(":") if str(err).strip() else ""
        raise BundleError(
            f"{weights.name} does not fit the network of configs/inference.json ({type(err).__name__}: "
            f"{reason[:160]}); expected its state dict. Pass the weights of this bundle."
        ) from err


def checked_device(device: str) -> str:
    """The name of a device that is there.

    Raises:
        UsageError: It is not.
    """
    import torch

    try:
        found = torch.device(device)
    except RuntimeError as err:
        raise UsageError(f"Unknown device {device!r}; expected cpu, cuda or cuda:0.") from err
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"Found {torch.cuda.device_count()} CUDA devices, not {device}; pass --device cpu.")
    return device


def _class_names(bundle: BundleFolder) -> dict[int, str]:
    try:
        first = 0 if bundle.is_classifier else 1  # label maps: 0 is the background
        return {label: name for label, name in sorted(bundle.class_names.items()) if label >= first}
    except (KeyError, TypeError, ValueError, AttributeError) as err:
        raise BundleError(
            f"{bundle.name}: configs/metadata.json names no classes; expected "
            "network_data_format.outputs.pred.channel_def, label to name."
        ) from err


def channel_names(bundle: BundleFolder) -> tuple[str, ...]:
    """Names of the image's channels in order, by the metadata; their numbers where it names none."""
    try:
        image = bundle.metadata["network_data_format"].get("inputs", {}).get("image", {})
        named = {str(number): str(name) for number, name in (image.get("channel_def") or {}).items()}
        return tuple(named.get(str(n), str(n)) for n in range(int(image.get("num_channels", 1))))
    except (KeyError, TypeError, ValueError, AttributeError):
        return ("0",)  # reading the facts says what is wrong


def _num_channels(bundle: BundleFolder) -> int:
    image = bundle.metadata["network_data_format"].get("inputs", {}).get("image", {})
    return int(image.get("num_channels", 1))


def _num_axes(bundle: BundleFolder) -> int:
    image = bundle.metadata["network_data_format"].get("inputs", {}).get("image", {})
    return len(image.get("spatial_shape") or (0, 0, 0))


def _goes_by_slices(inferer: Any) -> bool:
    """Whether an inferer, or the one inside it, gives a 2D network the slices of a volume; of several the first one."""
    from monai.inferers import SliceInferer

    while inferer is not None:
        stream = getattr(inferer, "stream", inferer)
        if isinstance(inferer, SliceInferer) or getattr(stream, "slice_axis", None) is not None:
            return True
        several = getattr(inferer, "inferers", None)  # those of an ensemble's configurations
        inferer = several[0] if several else getattr(inferer, "inferer", None)
    return False


def _training_cases(weights: Path) -> list[dict[str, Any]]:
    record = weights.with_name(TRAINING_CASES.name)
    return list(read_json(record).get("cases") or []) if record.is_file() else []


def _whole_labels(pred: NDArray[Any], axes: int) -> NDArray[np.uint8]:
    if pred.ndim != axes + 1 or pred.shape[0] != 1:
        expected = ", ".join("1IJK"[: axes + 1])
        raise BundleError(f"the bundle gave shape {pred.shape}; expected one label map, ({expected})")
    if pred.dtype == np.uint8:
        return np.asarray(pred[0])
    labels: NDArray[np.uint8] = pred[0].astype(np.uint8)
    if not np.array_equal(labels, pred[0]):
        raise BundleError("the bundle gave values that are no labels; expected whole numbers from 0 to 255")
    return labels
