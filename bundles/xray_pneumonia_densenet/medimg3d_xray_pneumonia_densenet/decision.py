# Copied from medimg3d/inference/decision.py; do not edit here.
# Source sha256: a69c0f8321eaab2f46245e81474a1d63c29b76939c87b491a0d8b1f7a74b7ac6
"""From a network's scores to a decision: calibrated probability, threshold, a band that a human should see.

Bundles carry a copy of this file: it imports nothing of medimg3d.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

FORMAT = 1


@dataclass(frozen=True)
class Decision:
    """How a classifier's scores become a class; made on validation data, stored beside the weights.

    Args:
        classes: Class names, in the order of the network's outputs.
        temperature: Scores are divided by it before the softmax (Guo et al. 2017, arXiv:1706.04599).
        bias: Added to the scores after that, one number a class, for classes that are not as common as the
            training made them (Alexandari et al. 2020, arXiv:1901.06852); empty for none.
        positive: With two classes, the one that the threshold is about.
        threshold: Probability of ``positive`` from which on it is decided; None: the likeliest class.
        unsure: With a threshold: a band (low, high) of that probability. Without: (0, high) of the top
            probability. A case whose probability lies in it is sent to a human. None: none is.
        rule: How the threshold was chosen, e.g. ``"youden"`` or ``"sensitivity 0.95"``.
        chosen_on: What it was chosen on; never the test set.
        weights_sha256: The weights it belongs to.

    Raises:
        ValueError: A value is out of range, or a name is unknown.
    """

    classes: tuple[str, ...]
    temperature: float = 1.0
    positive: str | None = None
    threshold: float | None = None
    unsure: tuple[float, float] | None = None
    rule: str = "likeliest class"
    chosen_on: str = "not chosen on data"
    weights_sha256: str = ""
    bias: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if len(self.classes) < 2 or len(set(self.classes)) != len(self.classes):
            raise ValueError(f"classes must be at least two distinct names, got {list(self.classes)}.")
        if not 0 < self.temperature < float("inf"):
            raise ValueError(f"temperature must be above 0, got {self.temperature}.")
        if self.bias and len(self.bias) != len(self.classes):
            raise ValueError(f"bias must have one number a class, got {len(self.bias)} for {self.classes}.")
        if (self.threshold is None) != (self.positive is None):
            raise ValueError("positive and threshold belong together; give both or neither.")
        if self.positive is not None and (self.positive not in self.classes or len(self.classes) != 2):
            raise ValueError(f"positive must be one of two classes, got {self.positive!r} of {self.classes}.")
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold must be in [0, 1], got {self.threshold}.")
        if self.unsure is not None and not 0 <= self.unsure[0] <= self.unsure[1] <= 1:
            raise ValueError(f"unsure must be (low, high) in [0, 1], got {self.unsure}.")

    @classmethod
    def plain(cls, classes: Sequence[str]) -> Decision:
        """Uncalibrated, with the threshold 0.5 for the second of two classes."""
        names = tuple(classes)
        if len(names) == 2:
            return cls(names, positive=names[1], threshold=0.5, rule="0.5")
        return cls(names)

    @classmethod
    def load(cls, path: str | Path) -> Decision:
        """Read what :meth:`as_json` gave.

        Raises:
            ValueError: The file is no decision, or of a newer format.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            if content["format"] > FORMAT:
                raise ValueError(f"format {content['format']}; this version reads up to {FORMAT}")
            return cls.from_json(content)
        except (KeyError, TypeError, AttributeError, ValueError) as err:
            raise ValueError(
                f"{Path(path).name} is no decision ({type(err).__name__}: {err}); make it anew with "
                "`medimg3d calibrate`."
            ) from err

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Decision:
        """The decision of a parsed JSON object."""
        unsure = content.get("unsure")
        return cls(
            classes=tuple(str(name) for name in content["classes"]),
            temperature=float(content["temperature"]),
            positive=content.get("positive"),
            threshold=None if content.get("threshold") is None else float(content["threshold"]),
            unsure=None if unsure is None else (float(unsure[0]), float(unsure[1])),
            rule=str(content.get("rule", "")),
            chosen_on=str(content.get("chosen_on", "")),
            weights_sha256=str(content.get("weights_sha256", "")),
            bias=tuple(float(number) for number in content.get("bias") or ()),
        )

    def as_json(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return {
            "format": FORMAT,
            "classes": list(self.classes),
            "temperature": self.temperature,
            "bias": list(self.bias),
            "positive": self.positive,
            "threshold": self.threshold,
            "unsure": None if self.unsure is None else list(self.unsure),
            "rule": self.rule,
            "chosen_on": self.chosen_on,
            "weights_sha256": self.weights_sha256,
        }

    def probabilities(self, logits: Any) -> np.ndarray:
        """Calibrated probabilities.

        Args:
            logits: The network's scores, shape (n, classes).

        Returns:
            Shape (n, classes), float64; rows add up to 1.
        """
        scores = np.asarray(logits, dtype=np.float64) / self.temperature
        if scores.ndim != 2 or scores.shape[1] != len(self.classes):
            raise ValueError(f"logits have the shape {scores.shape}; expected (n, {len(self.classes)}).")
        if self.bias:
            scores = scores + np.asarray(self.bias)
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))

    def decide(self, probabilities: Sequence[float] | np.ndarray) -> str:
        """The class of one case, from its probabilities, shape (classes,)."""
        if self.threshold is None or self.positive is None:
            return self.classes[int(np.argmax(probabilities))]
        at = self.classes.index(self.positive)
        return self.positive if probabilities[at] >= self.threshold else self.classes[1 - at]

    def leading(self, probabilities: Sequence[float] | np.ndarray) -> float:
        """The probability that a reader is shown: of ``positive``, else of the likeliest class."""
        if self.positive is None:
            return float(np.max(probabilities))
        return float(probabilities[self.classes.index(self.positive)])

    def is_unsure(self, probabilities: Sequence[float] | np.ndarray) -> bool:
        """Whether a case falls into the band that is sent to a human."""
        return self.unsure is not None and self.unsure[0] <= self.leading(probabilities) <= self.unsure[1]


def load_decision(path: str | Path, classes: Sequence[str]) -> Decision:
    """The decision stored beside the weights, or :meth:`Decision.plain` where there is none yet.

    Raises:
        ValueError: The stored one is for other classes.
    """
    if not Path(path).is_file():
        return Decision.plain(classes)
    decision = Decision.load(path)
    if decision.classes != tuple(classes):
        raise ValueError(
            f"{Path(path).name} is for the classes {list(decision.classes)}; expected {list(classes)}. "
            "Make it anew with `medimg3d calibrate`."
        )
    return decision
