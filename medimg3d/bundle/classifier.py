"""Reads what a classification bundle says about inference and runs it.

As in :mod:`medimg3d.bundle.inference`, every part comes out of the bundle's ``inference.json``: the probability
is the one that ``python -m monai.bundle run`` writes. With ``inference_fast.json`` merged on top it is the same
within rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medimg3d.bundle.folder import BundleFolder
from medimg3d.bundle.inference import FAST, BundleFacts, building, load_weights, read_facts
from medimg3d.data.content_hash import content_sha256
from medimg3d.errors import BundleError
from medimg3d.inference.decision import Decision, load_decision

if TYPE_CHECKING:
    import torch
    from monai.bundle import ConfigParser

    from medimg3d.inference.backends.backend import Backend

DECISION = "decision.json"


@dataclass(frozen=True, eq=False)
class Classifier:
    """A classification bundle ready to predict.

    Attributes:
        facts: What the bundle says of itself.
        device: Where the network is.
        preprocessing: ``{"image": path}`` → the same with a MetaTensor, shape (C, *spatial).
        network: In evaluation mode.
        inferer: MONAI's, called with a batch and the network.
        decision: From scores to a class; from ``decision.json`` beside the weights, else plain.
        num_spatial_dims: 2 for films, 3 for volumes.
        batch_size: Images that the network takes at once.
        image_shape: Of a preprocessed image along I, J[, K]; None where the bundle does not fix it.
        is_fast: Whether ``inference_fast.json`` is merged on top.
        runner: What runs the network in its place (:mod:`medimg3d.inference.backends`); None for plain torch.
    """

    facts: BundleFacts
    device: torch.device
    preprocessing: Callable[[dict[str, Any]], dict[str, Any]]
    network: torch.nn.Module
    inferer: Callable[..., torch.Tensor]
    decision: Decision
    num_spatial_dims: int
    batch_size: int = 1
    image_shape: tuple[int, ...] | None = None
    is_fast: bool = False
    runner: Backend | None = None

    @property
    def backend(self) -> str:
        """Name of what runs the network."""
        return "torch" if self.runner is None else self.runner.name

    @property
    def refuses_bad_films(self) -> bool:
        """Whether the preprocessing refuses what :func:`medimg3d.data.film_reader.read_film` refuses.

        ``LoadImaged`` does not: where the named reader refuses a file, it asks others.
        """
        from medimg3d.data.load_by_one_reader import LoadByOneReaderd

        first = next(iter(getattr(self.preprocessing, "transforms", ())), None)
        # By name: a bundle carries its own copy of the class.
        return isinstance(first, LoadByOneReaderd) and type(first.reader).__name__ == "FilmReader"

    def settings(self, bundle: BundleFolder) -> dict[str, Any]:
        """What its probabilities depend on besides the images."""
        configs = ["inference", *([FAST] if self.is_fast else [])]
        return {
            "weights_sha256": self.facts.weights_sha256,
            "configs_sha256": {name: content_sha256(bundle.config(name)) for name in configs},
            "backend": self.backend,
            "device": self.device.type,
        }

    def image(self, path: Path) -> torch.Tensor:
        """One image as the network sees it: a MetaTensor of shape (C, *spatial)."""
        image: torch.Tensor = self.preprocessing({"image": str(path)})["image"]
        return image

    def logits(self, batch: torch.Tensor) -> torch.Tensor:
        """Scores before the softmax, shape (n, classes), of a batch (n, C, *spatial)."""
        import torch

        with torch.no_grad():
            scores = self.inferer(batch.to(self.device), self.runner or self.network)
        if scores.ndim != 2 or scores.shape[1] != len(self.decision.classes):
            raise BundleError(
                f"the bundle gave scores of shape {tuple(scores.shape)}; expected (n, {len(self.decision.classes)})"
            )
        return torch.Tensor(scores.float().cpu())

    def probabilities(self, path: Path) -> np.ndarray:
        """Calibrated probabilities of one image, shape (classes,)."""
        return np.asarray(self.decision.probabilities(self.logits(self.image(path)[None]).numpy())[0])


def num_spatial_dims(bundle: BundleFolder) -> int:
    """2 for films, 3 for volumes, from the metadata."""
    return len(bundle.metadata["network_data_format"]["inputs"]["image"]["spatial_shape"])


def decision_file(weights: Path) -> Path:
    """Where the decision of a file of weights stands."""
    return weights.with_name(DECISION)


def load_classifier(
    bundle: BundleFolder,
    *,
    checkpoint: Path | None = None,
    device: str | None = None,
    calibrated: bool = True,
    fast: bool = False,
) -> Classifier:
    """Build the parts of ``inference.json``, load the weights and the decision that belongs to them.

    Args:
        bundle: A bundle whose metadata says that it gives probabilities.
        checkpoint: Weights instead of the bundle's own; the decision is looked for beside them.
        device: ``"cpu"``, ``"cuda"``, …; the bundle's own choice if None.
        calibrated: Use the stored decision; False is for making it anew.
        fast: Merge ``inference_fast.json`` on top.

    Raises:
        UsageError: No such checkpoint or device.
        BundleError: It is no classifier, cannot be built, or weights, decision and classes do not fit.
    """
    if not bundle.is_classifier:
        raise BundleError(
            f"{bundle.name} segments (or its metadata does not say what it gives); expected a classifier: "
            'network_data_format.outputs.pred.type "probabilities".'
        )
    facts = read_facts(bundle, checkpoint=checkpoint)
    with building(bundle, facts, device=device, fast=fast) as parser:
        model = _build(parser, facts, num_spatial_dims(bundle), calibrated=calibrated)
        return replace(model, image_shape=_image_shape(parser, bundle), is_fast=fast)


def _build(parser: ConfigParser, facts: BundleFacts, dims: int, *, calibrated: bool) -> Classifier:
    device = parser.get_parsed_content("device")
    network = parser.get_parsed_content("network_def").to(device)
    load_weights(network, facts.weights, device)
    return Classifier(
        facts=facts,
        device=device,
        preprocessing=parser.get_parsed_content("preprocessing"),
        network=network.eval(),
        inferer=parser.get_parsed_content("inferer"),
        decision=read_decision(facts, calibrated=calibrated),
        num_spatial_dims=dims,
        batch_size=_batch_size(parser),
    )


def _batch_size(parser: ConfigParser) -> int:
    at = "dataloader#batch_size"
    return int(parser.get_parsed_content(at)) if at in parser else 1


def _image_shape(parser: ConfigParser, bundle: BundleFolder) -> tuple[int, ...] | None:
    """``image_size`` of the configuration, which a training may have changed, else what the metadata says."""
    if "image_size" in parser:
        shape = parser.get_parsed_content("image_size")
    else:
        shape = bundle.metadata["network_data_format"]["inputs"]["image"]["spatial_shape"]
    fixed = isinstance(shape, list | tuple) and all(isinstance(size, int) for size in shape)
    return tuple(shape) if fixed and len(shape) == num_spatial_dims(bundle) else None


def read_decision(facts: BundleFacts, *, calibrated: bool = True) -> Decision:
    """The decision that belongs to a bundle's weights; loads no network.

    Args:
        facts: What the bundle says of itself.
        calibrated: The stored one; else plain.

    Raises:
        BundleError: It does not fit the weights or the classes.
    """
    classes = list(facts.class_names.values())
    if not calibrated:
        return Decision.plain(classes)
    try:
        decision = load_decision(decision_file(facts.weights), classes)
    except ValueError as err:
        raise BundleError(str(err)) from err
    if decision.weights_sha256 and decision.weights_sha256 != facts.weights_sha256:
        raise BundleError(
            f"{DECISION} was made for other weights than {facts.weights.name}; make it anew with `medimg3d calibrate`."
        )
    return decision
