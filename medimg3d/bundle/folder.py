"""A MONAI Bundle as a folder: what it holds, its configs, copying it for a training of one's own."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medimg3d.atomic import write_text
from medimg3d.errors import BundleError, UsageError

WEIGHTS = Path("models") / "model.pt"
TRAINING_CASES = Path("models") / "training_cases.json"


@dataclass(frozen=True)
class BundleFolder:
    """A bundle that has its metadata and can be read.

    Args:
        root: The bundle's folder.

    Raises:
        UsageError: There is no such folder.
        BundleError: It is no bundle: ``configs/metadata.json`` is absent or no JSON.
    """

    root: Path
    metadata: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", Path(self.root).resolve())
        if not self.root.is_dir():
            raise UsageError(f"Found no bundle at {self.root}; expected a folder with configs/metadata.json.")
        path = self.root / "configs" / "metadata.json"
        if not path.is_file():
            raise BundleError(f"{self.root} is no MONAI Bundle: configs/metadata.json is missing.")
        object.__setattr__(self, "metadata", read_json(path))

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.root.name

    @property
    def version(self) -> str:
        """Version from the metadata, empty if it has none."""
        return str(self.metadata.get("version", ""))

    @property
    def class_names(self) -> dict[int, str]:
        """Names of the output channels, background included, from ``channel_def``."""
        channels = self.metadata["network_data_format"]["outputs"]["pred"]["channel_def"]
        return {int(number): str(name) for number, name in channels.items()}

    @property
    def is_classifier(self) -> bool:
        """Whether the network scores whole images, by the metadata (``"type": "probabilities"``)."""
        pred = self.metadata.get("network_data_format", {}).get("outputs", {}).get("pred", {})
        return str(pred.get("type")) == "probabilities"

    def config(self, name: str) -> Path:
        """Path of ``configs/<name>.json``.

        Raises:
            BundleError: The bundle has no such config.
        """
        path = self.root / "configs" / f"{name}.json"
        if not path.is_file():
            raise BundleError(f"Bundle {self.name} has no configs/{name}.json; this command needs it.")
        return path


def read_json(path: Path) -> Any:
    """Parse a JSON file of a bundle.

    Raises:
        BundleError: It is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as err:
        raise BundleError(f"{path.name} is no valid JSON ({err}); mend the file.") from err


def format_json(content: Any) -> str:
    """JSON as the bundles' configs are written: indented, with lists of plain values on one line."""
    text = json.dumps(content, indent=2, ensure_ascii=False)
    plain = r'(?:-?[\d.eE+-]+|"[^"\n]{0,24}"|true|false|null)'
    one_line = re.compile(rf"\[\s+({plain}(?:,\s+{plain})*)\s+\]")
    return one_line.sub(lambda match: "[" + re.sub(r",\s+", ", ", match.group(1)) + "]", text) + "\n"


def copy_bundle(source: BundleFolder, target: Path) -> BundleFolder:
    """Copy what a training needs: configs, licence, the bundle's own code. Weights and the card stay behind.

    The card's figures and the data's licence belong to the original weights, not to those that will be
    trained here.

    Args:
        source: The bundle to copy.
        target: Folder of the copy; files of the same names are replaced.

    Returns:
        The copy.
    """
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.root.iterdir()):
        if path.name in ("docs", "models") or path.name.startswith((".", "__")):
            continue
        if path.is_file():
            shutil.copy2(path, target / path.name)
        elif path.name == "configs" or any(path.glob("*.py")):
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(path, target / path.name, dirs_exist_ok=True, ignore=ignore)
    return BundleFolder(target)


def set_config_values(path: Path, values: Mapping[str, Any]) -> None:
    """Set values in a JSON config and write it back.

    Args:
        path: The config.
        values: By id, for example ``{"train#trainer#max_epochs": 50}`` or, into a list,
            ``{"preprocessing#transforms#2#mode": "bilinear"}``; ids that the config lacks at their first level
            are left out.

    Raises:
        BundleError: An id leads nowhere below its first level.
    """
    content = read_json(path)
    for identity, value in values.items():
        *parents, last = identity.split("#")
        if (parents or [last])[0] not in content:
            continue
        try:
            place = content
            for parent in parents:
                place = place[_step(place, parent)]
            place[_step(place, last)] = value
        except (KeyError, IndexError, TypeError, ValueError) as err:
            raise BundleError(f"{path.name} has no {identity}; expected it in a training config.") from err
    write_text(path, format_json(content))


def value_at(content: Mapping[str, Any], identity: str) -> Any:
    """What stands in a parsed config under an id such as ``preprocessing#transforms#2#mode``; None if nothing does."""
    place: Any = content
    try:
        for name in identity.split("#"):
            place = place[_step(place, name)]
    except (KeyError, IndexError, TypeError, ValueError):
        return None
    return place


def _step(place: Any, name: str) -> str | int:
    return int(name) if isinstance(place, list) else name


def rename_classes(bundle: BundleFolder, labels: Mapping[int, str]) -> BundleFolder:
    """Fit a copied bundle to other classes: output channels in every config, their names in the metadata.

    Args:
        bundle: A copy that is to be trained anew.
        labels: Name of each label value, 0 for the background, without gaps.

    Returns:
        The bundle, read anew.

    Raises:
        BundleError: The label values are not 0, 1, 2, …
    """
    if sorted(labels) != list(range(len(labels))):
        raise BundleError(f"The datalist's labels are {sorted(labels)}; expected 0, 1, 2, … without gaps.")
    values: dict[str, Any] = {"num_classes": len(labels)}
    if bundle.is_classifier:
        values["class_names"] = [labels[value] for value in sorted(labels)]
    for path in sorted((bundle.root / "configs").glob("*.json")):
        if path.name != "metadata.json":
            set_config_values(path, values)
    metadata = json.loads(json.dumps(bundle.metadata))
    pred = metadata["network_data_format"]["outputs"]["pred"]
    pred["num_channels"] = len(labels)
    pred["channel_def"] = {str(value): labels[value] for value in sorted(labels)}
    names = ", ".join(labels[value] for value in sorted(labels) if value > 0 or bundle.is_classifier)
    task = f"{'Classification as' if bundle.is_classifier else 'Segmentation of'} {names}"
    metadata["name"] = task
    metadata["task"] = metadata["description"] = f"{task}, by the recipe of another bundle"
    for foreign in ("data_source", "image_classes", "intended_use", "references"):
        metadata.pop(foreign, None)
    metadata["label_classes"] = ", ".join(f"{value} {labels[value]}" for value in sorted(labels))
    form = "scores before the softmax" if bundle.is_classifier else "channels one-hot"
    metadata["pred_classes"] = f"{len(labels)} {form}: {', '.join(labels[v] for v in sorted(labels))}"
    write_text(bundle.root / "configs" / "metadata.json", format_json(metadata))
    return BundleFolder(bundle.root)
