"""Turns the configs of a bundle's trained folds into those of one bundle that averages them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

from medimg3d.bundle.label_rules import LabelRule, is_cleaning
from medimg3d.errors import BundleError

Config = dict[str, Any]

_ROOTS = {"bundle_root", "device", "output_dir", "dataset_dir", "imports", "checkpoint"}
_REFERENCE = re.compile(r"@(\w+)")
LABEL_MAP_INFERER = "medimg3d.inference.label_map_inferer.LabelMapInferer"
NETWORK_MEAN = "medimg3d.inference.network_mean.NetworkMean"


def gives_probabilities(config: Mapping[str, Any]) -> bool:
    """Whether an inference config's inferer gives probabilities: one that averages flips does by default."""
    inferer = config["inferer"]
    name = str(inferer.get("_target_", "")).rpartition(".")[2]
    return name == "MirroringInferer" and bool(inferer.get("softmax", True))


def ensemble_inference(
    configs: Sequence[Mapping[str, Any]],
    files: Sequence[Sequence[str]],
    sha256: Sequence[Sequence[str]],
    rules: Sequence[LabelRule],
    *,
    package: str,
    combined: bool = False,
) -> Config:
    """The ``inference.json`` of an ensemble.

    Args:
        configs: ``inference.json`` of each configuration; their preprocessing must be equal.
        files: Names of each configuration's weights below ``models/``; the first of all is the bundle's
            ``checkpoint``.
        sha256: Hashes in the same form.
        rules: Rules that come last before the label map is saved.
        package: Package of the bundle that carries ``ensemble_inferer`` and ``small_components``.
        combined: Configurations are averaged: the first one's own cleaning is left away, since the mean was judged
            without it.

    Returns:
        The config, on the base of the first one. Of overlapping regions raw outputs are averaged, before the sigmoid.

    Raises:
        BundleError: A config has no argmax in its postprocessing, or no list of transforms; or rules for regions.
    """
    config = deepcopy(dict(configs[0]))
    networks, inferers = ["@network_def"], ["@member_inferer"]
    config["member_inferer"] = config.pop("inferer")
    for number, other in enumerate(configs[1:], start=1):
        _merge(config, other, number)
        networks.append(f"@network_def_{number}")
        inferers.append(f"@inferer_{number}")
    further = [list(files[0][1:]), *(list(names) for names in files[1:])]
    config["member_networks"] = {
        "_target_": f"{package}.ensemble_inferer.MemberNetworks",
        "networks": networks,
        "checkpoints": [[_weights(name) for name in names] for names in further],
        "sha256": [list(sha256[0][1:]), *(list(hashes) for hashes in sha256[1:])],
    }
    config["network"] = "$@member_networks.to(@device)"
    config["inferer"] = {
        "_target_": f"{package}.ensemble_inferer.EnsembleInferer",
        "inferers": inferers,
        "softmax": [not (_has_regions(one) or gives_probabilities(one)) for one in configs],
    }
    config["postprocessing"] = _cleaned(config.get("postprocessing"), rules, package, combined)
    return _in_reading_order(config)


def ensemble_fast(
    plain: Mapping[str, Any],
    fast: Mapping[str, Any],
    files: Sequence[str],
    rules: Sequence[LabelRule],
    *,
    package: str,
    combined: bool = False,
) -> Config | None:
    """The ``inference_fast.json`` of an ensemble of one configuration.

    Args:
        plain: That configuration's ``inference.json``.
        fast: Its ``inference_fast.json``.
        files: Names of the weights below ``models/``.
        rules: As for :func:`ensemble_inference`.
        package: As there.
        combined: As there.

    Returns:
        The overlay; None where its result would differ from the plain one: another inferer than
        ``LabelMapInferer``, thresholds, or flips whose raw outputs are averaged.
    """
    inferer = fast.get("inferer") or {}
    averages_raw = bool(inferer.get("flips")) and not inferer.get("average_probabilities")
    if inferer.get("_target_") != LABEL_MAP_INFERER or inferer.get("thresholds") is not None or averages_raw:
        return None
    if gives_probabilities(plain) != bool(inferer.get("flips")):
        return None
    config = deepcopy(dict(fast))
    config["network_mean"] = {
        "_target_": NETWORK_MEAN,
        "network": "@network_def",
        "checkpoints": [_weights(name) for name in files[1:]],
    }
    config["network"] = "$@network_mean.to(@device)"
    steps = config.get("postprocessing") or {"_target_": "Compose", "transforms": []}
    if steps.get("_target_") != "Compose":
        steps = {"_target_": "Compose", "transforms": [steps]}
    steps["transforms"] = _with_rules(steps["transforms"], rules, package, combined)
    config["postprocessing"] = steps
    return config


def further_steps(config: Mapping[str, Any]) -> list[Any]:
    """What an inference config does to a label map between its argmax and saving it, cleaning left out."""
    steps = (config.get("postprocessing") or {}).get("transforms") or []
    after = steps[1 + next((n for n, step in enumerate(steps) if _is_argmax(step)), len(steps)) :]
    return [step for step in after[: _place_of_saving(after)] if not is_cleaning(step)]


def _cleaned(postprocessing: Any, rules: Sequence[LabelRule], package: str, combined: bool) -> Config:
    """The postprocessing without its softmax, and with the rules; that of regions as it is."""
    if not rules and _has_regions({"postprocessing": postprocessing}):
        return dict(postprocessing)
    try:
        steps = [step for step in postprocessing["transforms"] if not _is_softmax(step)]
        position = next(n for n, step in enumerate(steps) if _is_argmax(step))
    except (KeyError, TypeError, StopIteration) as err:
        raise BundleError(
            "The postprocessing of configs/inference.json has no AsDiscreted with argmax in a Compose; an ensemble "
            "needs one, behind which label maps can be cleaned."
        ) from err
    after = _with_rules(steps[position + 1 :], rules, package, combined)
    return {**postprocessing, "transforms": [*steps[: position + 1], *after]}


def _with_rules(steps: Sequence[Any], rules: Sequence[LabelRule], package: str, combined: bool) -> list[Any]:
    """Steps of a label map with the rules behind them, as they were judged; saving comes after."""
    kept = [step for step in steps if not (combined and is_cleaning(step))]
    place = _place_of_saving(kept)
    return [*kept[:place], *(rule.config(package) for rule in rules), *kept[place:]]


def _place_of_saving(steps: Sequence[Any]) -> int:
    names = [str(step.get("_target_", "")).rpartition(".")[2] for step in steps]
    return next((n for n, name in enumerate(names) if name.startswith("SaveImage")), len(steps))


def _has_regions(config: Mapping[str, Any]) -> bool:
    steps = (config.get("postprocessing") or {}).get("transforms") or ()
    return any(str(step.get("_target_", "")).endswith("RegionsToLabelsd") for step in steps)


def _is_softmax(step: Mapping[str, Any]) -> bool:
    return str(step.get("_target_", "")).endswith("Activationsd") and bool(step.get("softmax"))


def _is_argmax(step: Mapping[str, Any]) -> bool:
    argmax = step.get("argmax")
    return str(step.get("_target_", "")).endswith("AsDiscreted") and (
        argmax is True or (isinstance(argmax, list) and bool(argmax[0]))
    )


def _weights(name: str) -> str:
    return f"$os.path.join(@bundle_root, 'models', '{name}')"


def _merge(config: Config, other: Mapping[str, Any], number: int) -> None:
    """Take over another configuration's network and inferer with all that they refer to, under names of their own."""
    names = {"network_def": f"network_def_{number}", "inferer": f"inferer_{number}"}
    pending = list(names)
    taken: list[str] = []
    while pending:
        name = pending.pop()
        taken.append(name)
        for found in _references(other[name]):
            known = found in names or found in _ROOTS or found not in other
            if known or config.get(found) == other[found]:
                continue
            names[found] = f"{found}_{number}"
            pending.append(found)
    for name in taken:
        config[names[name]] = _renamed(other[name], names)


def _references(value: Any) -> set[str]:
    if isinstance(value, str):
        return set(_REFERENCE.findall(value))
    if isinstance(value, Mapping):
        value = list(value.values())
    return set().union(*(_references(one) for one in value)) if isinstance(value, list) else set()


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return _REFERENCE.sub(lambda match: "@" + names.get(match.group(1), match.group(1)), value)
    if isinstance(value, Mapping):
        return {key: _renamed(one, names) for key, one in value.items()}
    return [_renamed(one, names) for one in value] if isinstance(value, list) else value


def _in_reading_order(config: Config) -> Config:
    """Members right behind the network, where a reader looks for them."""
    moved = [name for name in config if name.startswith(("member_", "network_def_", "inferer_"))]
    moved += ["network", "inferer"]
    result: Config = {}
    for name, value in config.items():
        if name not in moved:
            result[name] = value
        if name == "network_def":
            result |= {key: config[key] for key in moved}
    return result
