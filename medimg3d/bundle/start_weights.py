"""Lets a bundle's training begin with the weights of another one: fine-tuning."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medimg3d.atomic import atomic_file, write_text
from medimg3d.bundle.carried_code import carried_text
from medimg3d.bundle.code_path import bundle_code
from medimg3d.bundle.folder import TRAINING_CASES, WEIGHTS, BundleFolder, format_json, read_json
from medimg3d.bundle.parser import parse_config
from medimg3d.data.content_hash import content_sha256
from medimg3d.errors import BundleError, UsageError

START = Path("models") / "start.pt"
SETTING = "start_from"


@dataclass(frozen=True)
class StartWeights:
    """Weights that a training begins with.

    Attributes:
        name: Name of the bundle or file.
        file: The file.
        sha256: Its hash.
        cases: What they were trained on, as far as a record beside them says.
    """

    name: str
    file: Path
    sha256: str
    cases: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class StartReport:
    """What of the weights fits a network.

    Attributes:
        share: Share of the network's numbers that are loaded.
        left: Parts of the network that begin at random, each with the reason.
        unused: Parts of the weights that the network does not have.
    """

    share: float
    left: dict[str, str]
    unused: list[str]

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"share": self.share, "left": self.left, "unused": self.unused}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> StartReport:
        """The report of :meth:`as_json`."""
        return cls(content["share"], dict(content["left"]), list(content["unused"]))

    def lines(self) -> list[str]:
        """What a person is told."""
        # rounded up to all it would deny the next lines
        share = self.share if self.share == 1 else min(self.share, 0.999)
        told = [f"{share:.1%} of the network begins with the given weights."]
        told += [f"At random: {name} ({why})" for name, why in self.left.items()]
        if self.unused:
            told.append(f"Not used: {', '.join(self.unused)}")
        return told


def find_start_weights(source: Path) -> StartWeights:
    """The weights of a bundle's folder, or a file.

    Raises:
        UsageError: There is neither.
    """
    file = source / WEIGHTS if source.is_dir() else source
    if not file.is_file():
        raise UsageError(
            f"--start-from {source} has no weights; expected a bundle with {WEIGHTS.as_posix()}, or a file of weights."
        )
    record = file.with_name(TRAINING_CASES.name)
    cases = read_json(record).get("cases") or [] if record.is_file() else []
    return StartWeights(source.resolve().name, file, content_sha256(file), tuple(cases))


def begin_with(copy: BundleFolder, start: StartWeights) -> StartReport:
    """Put weights beside a copy that is to be trained, and name them in its ``train.json``.

    The recipe stays whole: stock MONAI begins with the same weights.

    Args:
        copy: The copy, not yet trained.
        start: The weights.

    Returns:
        What fits.

    Raises:
        BundleError: The network's definition is not where a bundle has it, or less than half of it fits.
    """
    config = read_json(copy.config("train"))
    if "network_def" not in config or "@network_def" not in str(config.get("network")):
        raise BundleError(
            'configs/train.json has no "network" made of "@network_def"; --start-from needs both.'
        )
    report = _report(copy, start.file)
    with atomic_file(copy.root / START) as temporary:
        shutil.copyfile(start.file, temporary)
    package = _package(copy.root)
    write_text(copy.root / package / "transfer.py", carried_text("transfer.py"))
    config[SETTING] = {"name": start.name, "sha256": start.sha256}
    config["started_network"] = {
        "_target_": f"{package}.transfer.start_from",
        "network": "@network_def",
        "mode": "finetune",
        "weights": f"$os.path.join(@bundle_root, 'models', '{START.name}')",
        "sha256": start.sha256,
        "head": "",
    }
    config["network"] = str(config["network"]).replace("@network_def", "@started_network")
    write_text(copy.config("train"), format_json(config))
    return report


def refuse_other_start(copy: BundleFolder, start: StartWeights | None) -> None:
    """Refuse to resume a training with other weights than it was begun with.

    Raises:
        BundleError: They differ; leaving the option away goes on with the same.
    """
    begun = read_json(copy.config("train")).get(SETTING)
    if start is not None and (begun is None or begun["sha256"] != start.sha256):
        raise BundleError(
            f"The run was begun from {'random weights' if begun is None else begun['name']}, not from {start.name}; "
            "expected the same to resume. Leave --start-from away, or train into another folder."
        )


def _report(copy: BundleFolder, file: Path) -> StartReport:
    from medimg3d.networks.transfer import LEAST_SHARE, _read_state

    with bundle_code(copy.root):
        network = parse_config(copy, ["train"]).get_parsed_content("network_def")
    try:
        given = {
            name.removeprefix("module.").removeprefix("backbone."): value
            for name, value in _read_state(file, None).items()
        }
    except Exception as err:
        raise BundleError(f"{file.name} cannot be read as weights ({type(err).__name__}: {err})") from err
    own = network.state_dict()
    left: dict[str, str] = {}
    for name, value in own.items():
        if name not in given:
            left[name] = "not among them"
        elif given[name].shape != value.shape:
            left[name] = f"has shape {tuple(given[name].shape)}, not {tuple(value.shape)}"
    total = sum(value.numel() for value in own.values())
    share = sum(value.numel() for name, value in own.items() if name not in left) / max(1, total)
    if share < LEAST_SHARE:
        raise BundleError(
            f"{file.name} fits {share:.0%} of the network; expected at least {LEAST_SHARE:.0%}. Begin with weights of "
            "the same architecture."
        )
    return StartReport(share, left, sorted(name for name in given if name not in own))


def _package(root: Path) -> str:
    found = sorted(path.parent.name for path in root.glob("medimg3d_*/__init__.py"))
    if not found:
        raise BundleError(
            "The bundle carries no package of its own; --start-from needs one to name in train.json."
        )
    return found[0]
