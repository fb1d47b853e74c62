"""The experiments of a YAML file, every mistake of which is one line: found, expected, what to do."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

from medimg3d.bundle.folder import BundleFolder
from medimg3d.bundle.start_weights import find_start_weights
from medimg3d.data.json_file import is_int, kind_of
from medimg3d.errors import Medimg3dError, UsageError
from medimg3d.workflows.training_copy import (
    TrainingList,
    count_folds,
    find_datalist,
    read_training_list,
    refuse_unknown_values,
)

KEYS = ("datalist", "dataset_dir", "folds", "seeds", "bundle", "epochs", "experiments")
EXPERIMENT_KEYS = ("name", "bundle", "epochs", "set", "overlay", "start_from", "grid")
MOST = 500
"""Experiments of one file; more is a slip of the grid."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.=-]*")
_TAKEN = ("jobs",)  # folders of --out that are no experiment's


@dataclass(frozen=True)
class Experiment:
    """One recipe with its settings.

    Attributes:
        name: Unlike every other; its folder in ``--out``.
        bundle: The bundle whose recipe is followed.
        epochs: Length of each training; the recipe's if None.
        values: Values of ``train.json`` by id.
        overlay: A variant of the bundle, ``configs/<overlay>.json``.
        start_from: Weights to begin with, of a bundle or a file.
    """

    name: str
    bundle: Path
    epochs: int | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    overlay: str | None = None
    start_from: Path | None = None

    def options(self) -> dict[str, Any]:
        """Options of :func:`medimg3d.workflows.train.train`."""
        return {
            "epochs": self.epochs,
            "overrides": dict(self.values),
            "overlay": self.overlay,
            "start_from": self.start_from,
        }

    def in_words(self) -> str:
        """What it is, in one line."""
        parts = [self.bundle.name]
        if self.epochs is not None:
            parts.append(f"{self.epochs} epochs")
        if self.overlay is not None:
            parts.append(f"overlay {self.overlay}")
        if self.start_from is not None:
            parts.append(f"starts from {self.start_from.name}")
        parts += [f"{identity} = {json.dumps(value)}" for identity, value in self.values.items()]
        return ", ".join(parts)


@dataclass(frozen=True)
class ExperimentGrid:
    """What a file of experiments asks for.

    Attributes:
        list_file: The datalist.
        folds: Folds of each experiment.
        seeds: Seeds of each experiment; empty for the recipe's own.
        experiments: The first one is what the others are compared with.
    """

    list_file: Path
    folds: tuple[int, ...]
    seeds: tuple[int, ...]
    experiments: tuple[Experiment, ...]


def read_experiments(path: Path) -> ExperimentGrid:
    """Read a file of experiments, as ``configs/experiments.yaml`` explains it. Its paths are relative to its folder.

    Raises:
        UsageError: No such file, no YAML, or anything in it that cannot be run.
        DataError: The datalist cannot be used.
    """
    content = _load(path)
    _refuse_unknown_keys(content, KEYS, path.name)
    base = path.resolve().parent
    given = {name: base / _text(content, name, path.name) for name in KEYS[:2] if content.get(name)}
    if len(given) != 1:
        raise UsageError(f"{path.name} needs one of datalist and dataset_dir, found {len(given)}.")
    list_file = find_datalist(given.get("dataset_dir"), given.get("datalist"))
    common = {name: content[name] for name in ("bundle", "epochs") if content.get(name) is not None}
    experiments = [
        one
        for number, entry in enumerate(_entries(content, path.name), start=1)
        for one in _experiments(entry, common, base, f"Experiment {number} of {path.name}")
    ]
    _refuse_equal_names([one.name for one in experiments])
    if len(experiments) > MOST:
        raise UsageError(
            f"{path.name} makes {len(experiments)} experiments; expected at most {MOST}. Shorten the lists of grid."
        )
    training_list = read_training_list(list_file)
    fold_counts = {one.name: _check(one, training_list) for one in experiments}
    folds = _numbers(content, "folds", path.name)
    if folds is None:
        folds = tuple(range(min(fold_counts.values())))
    _refuse_other_folds(folds, fold_counts)
    seeds = _numbers(content, "seeds", path.name) or ()
    return ExperimentGrid(list_file, folds, seeds, tuple(experiments))


def _load(path: Path) -> dict[str, Any]:
    import yaml

    class Loader(yaml.SafeLoader):
        """Refuses a key that comes twice; YAML's own takes the last one in silence."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            keys = [key.value for key, _ in node.value]
            twice = next((key for key in keys if keys.count(key) > 1), None)
            if twice is not None:
                line = node.start_mark.line + 1
                raise UsageError(
                    f"{path.name} has {twice} twice in the block of line {line}; expected it once."
                )
            return super().construct_mapping(node, deep)

    if not path.is_file():
        raise UsageError(
            f"Found no experiments at {path}; expected a YAML file. Copy configs/experiments.yaml and edit it."
        )
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader)  # a SafeLoader
    except (yaml.YAMLError, UnicodeDecodeError) as err:
        raise UsageError(
            f"{path.name} is no valid YAML ({' '.join(str(err).split())}); mend the file."
        ) from err
    if not isinstance(content, dict):
        raise UsageError(
            f"{path.name} holds no experiments; expected keys such as datalist and experiments. "
            "Copy configs/experiments.yaml and edit it."
        )
    return content


def _entries(content: Mapping[str, Any], file: str) -> list[Any]:
    entries = content.get("experiments")
    if not isinstance(entries, list) or not entries:
        raise UsageError(
            f"experiments of {file} is {kind_of(entries)}; expected a list with at least one, each beginning "
            "with '- name: …'."
        )
    return entries


def _experiments(entry: Any, common: Mapping[str, Any], base: Path, where: str) -> list[Experiment]:
    """The experiment of an entry, or the product of its grid."""
    if not isinstance(entry, dict):
        raise UsageError(f"{where} is {kind_of(entry)}; expected keys such as name and bundle.")
    _refuse_unknown_keys(entry, EXPERIMENT_KEYS, where)
    entry = {**common, **{key: value for key, value in entry.items() if value is not None}}
    for needed in ("name", "bundle"):
        if not entry.get(needed):
            raise UsageError(f"{where} has no {needed}; expected one. Add '{needed}: …'.")
    name = str(entry["name"])
    _check_name(name)
    where = f"Experiment {name}"
    epochs = entry.get("epochs")
    if epochs is not None and (not is_int(epochs) or epochs < 1):
        raise UsageError(f"{where}: epochs is {epochs!r}; expected a whole number from 1.")
    one = Experiment(
        name,
        (base / _text(entry, "bundle", where)).resolve(),
        epochs,
        _values(entry.get("set", {}), f"{where}: set"),
        _text(entry, "overlay", where) if "overlay" in entry else None,
        (base / _text(entry, "start_from", where)).resolve() if "start_from" in entry else None,
    )
    return _product(one, entry["grid"]) if "grid" in entry else [one]


def _product(one: Experiment, grid: Any) -> list[Experiment]:
    """An experiment for each combination of a grid's values, the last list's turning fastest."""
    where = f"Experiment {one.name}: grid"
    if not isinstance(grid, dict) or not grid:
        raise UsageError(f"{where} is {kind_of(grid)}; expected ids with a list of values each.")
    for identity, values in grid.items():
        if not isinstance(values, list) or not values:
            raise UsageError(
                f"{where}: {identity} is {kind_of(values)}; expected a list of values, such as [0.001, 0.002]."
            )
        if identity in one.values:
            raise UsageError(f"Experiment {one.name} has {identity} in set and in grid; expected it once.")
    words = _short_ids([str(identity) for identity in grid])
    lists = [[_value(value) for value in values] for values in grid.values()]
    made = []
    for chosen in product(*lists):
        values = _values(dict(zip(grid, chosen, strict=True)), where)
        parts = [f"{word}={_word(value)}" for word, value in zip(words, chosen, strict=True)]
        name = "-".join([one.name, *parts])
        _check_name(name)
        made.append(replace(one, name=name, values={**one.values, **values}))
    return made


def _short_ids(identities: list[str]) -> list[str]:
    """The last part of each id; the whole id where that says nothing or several ids share it."""
    last = [identity.split("#")[-1] for identity in identities]
    return [
        re.sub(r"[^A-Za-z0-9_]+", ".", identity if short.isdigit() or last.count(short) > 1 else short)
        for identity, short in zip(identities, last, strict=True)
    ]


def _word(value: Any) -> str:
    """A value as a part of a folder's name."""
    if isinstance(value, list):
        return "x".join(_word(one) for one in value)
    text = value if isinstance(value, str) else json.dumps(value)
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", text).strip("_")


def _values(given: Any, where: str) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise UsageError(f"{where} is {kind_of(given)}; expected lines such as 'learning_rate: 0.001'.")
    values = {str(identity): _value(value) for identity, value in given.items()}
    try:
        json.dumps(values, allow_nan=False)
    except (TypeError, ValueError) as err:
        raise UsageError(
            f"{where} holds a value that JSON cannot ({err}); expected numbers, text, lists."
        ) from err
    return values


def _value(value: Any) -> Any:
    """A value as ``medimg3d train --set`` takes it: 1e-3 is a number there, and text in YAML."""
    if isinstance(value, str) and re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)[eE][+-]?\d+", value):
        return float(value)
    return [_value(one) for one in value] if isinstance(value, list) else value


def _check(one: Experiment, training_list: TrainingList) -> int:
    """Refuse an experiment that could not begin; the number of its folds."""
    try:
        bundle = BundleFolder(one.bundle)
        bundle.config("train")
        if bundle.is_classifier:
            raise UsageError(
                f"{bundle.name} is a classifier; expected a bundle of label maps. Train its folds with medimg3d train."
            )
        if one.overlay is not None:
            bundle.config(one.overlay)
        if one.start_from is not None:
            find_start_weights(one.start_from)
        refuse_unknown_values(bundle, one.values)
        return count_folds(bundle, training_list)
    except Medimg3dError as err:
        raise UsageError(f"Experiment {one.name}: {err}") from err


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name) or name.lower() in _TAKEN or len(name) > 150:
        raise UsageError(
            f"An experiment is called {name!r}, which becomes a folder; expected at most 150 letters, digits and "
            f"'_', '.', '=', '-' (not {', '.join(_TAKEN)}). Give it another name."
        )


def _refuse_equal_names(names: list[str]) -> None:
    seen: dict[str, str] = {}
    for name in names:
        if name.lower() in seen:  # one folder where the disk does not tell capitals
            raise UsageError(
                f"Two experiments are called {name}; expected a name of its own for each. Rename one."
            )
        seen[name.lower()] = name


def _refuse_other_folds(folds: tuple[int, ...], counts: Mapping[str, int]) -> None:
    for name, count in counts.items():
        outside = [fold for fold in folds if fold >= count]
        if outside:
            raise UsageError(
                f"There is no fold {outside[0]} for experiment {name}; expected 0 to {count - 1}. Mend folds, or make "
                "the datalist anew with medimg3d datalist --num-folds."
            )


def _refuse_unknown_keys(content: Mapping[Any, Any], known: Collection[str], where: str) -> None:
    for key in content:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"Did you mean {near[0]}?" if near else f"Known are: {', '.join(known)}."
            raise UsageError(f"{where} has an unknown key {key}. {hint}")


def _text(content: Mapping[str, Any], key: str, where: str) -> str:
    value = content[key]
    if not isinstance(value, str):
        raise UsageError(f"{where}: {key} is {kind_of(value)}; expected text.")
    return value


def _numbers(content: Mapping[str, Any], key: str, file: str) -> tuple[int, ...] | None:
    """A list of whole numbers from 0, none twice; None if it is not there."""
    value = content.get(key)
    if value is None:
        return None
    good = isinstance(value, list) and all(is_int(one) and one >= 0 for one in value)
    if not good or not value or len(set(value)) < len(value):
        raise UsageError(
            f"{key} of {file} is {value}; expected a list of whole numbers from 0, each once, such as [0, 1, 2]."
        )
    return tuple(value)
