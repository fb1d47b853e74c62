"""The copy of a bundle that a training works in: its data, its configs, its record of the cases."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medimg3d.atomic import write_text
from medimg3d.bundle.folder import (
    TRAINING_CASES,
    WEIGHTS,
    BundleFolder,
    copy_bundle,
    read_json,
    rename_classes,
    set_config_values,
    value_at,
)
from medimg3d.bundle.start_weights import StartWeights
from medimg3d.data.content_hash import content_sha256
from medimg3d.data.datalist_file import parse_split
from medimg3d.data.folds import case_name, select_fold, split_unit
from medimg3d.errors import BundleError, DataError, UsageError

CHECKPOINT = Path("training") / "checkpoint.pt"


@dataclass(frozen=True)
class TrainingList:
    """What training reads from a datalist.

    Args:
        file: The datalist; paths are relative to its folder.
        cases: The labelled cases.
        labels: Name of each label value, or of each class.
        split: The folds that ``medimg3d datalist`` made (``num_folds``, ``seed``); empty for plain files.
    """

    file: Path
    cases: list[dict[str, Any]]
    labels: dict[int, str]
    split: dict[str, Any]


def find_datalist(dataset_dir: Path | None, datalist: Path | None) -> Path:
    """The datalist file of a dataset folder, or the one given.

    Args:
        dataset_dir: Decathlon root with ``dataset.json``.
        datalist: Datalist file instead.

    Returns:
        Its absolute path.

    Raises:
        UsageError: Both or neither were given, or the file does not exist.
    """
    if (dataset_dir is None) == (datalist is None):
        raise UsageError("Give either a dataset folder (--dataset-dir) or a datalist file (--datalist).")
    path = Path(datalist) if datalist is not None else Path(dataset_dir or ".") / "dataset.json"
    if not path.is_file():
        raise UsageError(
            f"Found no {path}; expected a datalist. Make one with `medimg3d datalist FOLDER --out FILE`."
        )
    return path.resolve()


def read_training_list(
    list_file: Path, *, of_classes: bool = False, class_names: Sequence[str] | None = None
) -> TrainingList:
    """Read the labelled cases of a datalist.

    Args:
        list_file: The datalist.
        of_classes: Labels are classes of whole images (``class_label``), not label maps.
        class_names: Names of the classes where they are not the datalist's own (a variant of the bundle).

    Raises:
        DataError: It is no datalist, holds no case, or a case has no label or no image.
    """
    try:
        content = json.loads(list_file.read_text(encoding="utf-8"))
        cases = content["training"]
        labels = _class_names(content, class_names) if of_classes else _label_names(content)
        split = parse_split(content.get("split"))
    except (ValueError, KeyError, TypeError, AttributeError) as err:
        raise DataError(
            f"{list_file.name} is no usable datalist ({type(err).__name__}: {err}); expected JSON with "
            f'"{"classes" if of_classes else "labels"}" and "training". Make one with `medimg3d datalist`.'
        ) from err
    if not cases:
        raise DataError(f"{list_file.name} has no training case; expected labelled cases.")
    label = ("class_label", "class") if of_classes else ("label", "label map")
    for key, what in (label, ("image", "image")):
        kinds = {"class_label": (str, int), "image": (str, list)}.get(key, (str,))
        lacking = [
            case_name(case)
            for case in cases
            if not isinstance(case.get(key), kinds) and not (key == "image" and case.get("images"))
        ]
        if lacking:
            raise DataError(
                f"{len(lacking)} of {len(cases)} training cases have no {what} (first: {lacking[0]}); "
                "expected one each. Make the datalist anew with `medimg3d datalist`."
            )
    return TrainingList(list_file, cases, labels, split)


def _label_names(content: Mapping[str, Any]) -> dict[int, str]:
    ignored = content.get("ignore_label")
    named = {int(value): str(name) for value, name in content["labels"].items()}
    return {value: name for value, name in named.items() if value != ignored and name.lower() != "ignore"}


def _class_names(content: Mapping[str, Any], variant: Sequence[str] | None) -> dict[int, str]:
    classes = variant or content["classes"]
    if isinstance(classes, Mapping):
        classes = [classes[key] for key in sorted(classes, key=int)]
    return {number: str(name) for number, name in enumerate(classes)}


def count_folds(bundle: BundleFolder, training_list: TrainingList) -> int:
    """Number of folds: that of the datalist's split, else the recipe's."""
    return int(training_list.split.get("num_folds") or read_json(bundle.config("train"))["num_folds"])


def prepare_copy(
    source: BundleFolder,
    out: Path,
    training_list: TrainingList,
    overrides: Mapping[str, Any],
    *,
    resume: bool,
) -> BundleFolder:
    """Copy a bundle and fit the copy to the data; a run that is resumed keeps the copy that it began with.

    Args:
        source: The bundle whose recipe is followed.
        out: Folder of the copy.
        training_list: The data: its classes and folds are written into the copy.
        overrides: Values of ``train.json`` by id, written into the copy.
        resume: Whether a run in ``out`` may be gone on with.

    Returns:
        The copy.

    Raises:
        UsageError: ``out`` is the bundle itself or holds a training that is not to be resumed, or an id is unknown.
        BundleError: A resumed run was begun with other values.
    """
    if out.resolve() == source.root:
        raise UsageError(
            "--out is the bundle itself; expected another folder, so that the bundle stays as it is."
        )
    if not resume and ((out / CHECKPOINT).exists() or (out / WEIGHTS).exists()):
        raise UsageError(
            f"{out} holds a training already; expected an empty folder. Add --resume to go on, or choose another --out."
        )
    refuse_unknown_values(source, overrides)
    if (out / CHECKPOINT).exists():
        copy = BundleFolder(out)
        refuse_other_values(copy, overrides)
        return copy
    copy = copy_bundle(source, out)
    has_regions = bool(copy.metadata.get("regions"))  # its outputs are no label values
    if not has_regions and not _same_names(
        training_list.labels, copy.class_names, ignore_case=copy.is_classifier
    ):
        copy = rename_classes(copy, training_list.labels)
    folds = {"num_folds": count_folds(source, training_list)}
    if "seed" in training_list.split:
        folds["fold_seed"] = int(training_list.split["seed"])
    for name in ("train", "evaluate"):
        set_config_values(copy.config(name), folds)
    recipe = read_json(source.config("train"))
    for name in ("evaluate", "inference"):  # a block that they have in common stays in common
        own = read_json(source.config(name))
        blocks = {key for key in own if own[key] == recipe.get(key)}
        shared = {key: value for key, value in overrides.items() if key.split("#")[0] in blocks}
        set_config_values(copy.config(name), shared)
    set_config_values(copy.config("train"), overrides)
    return copy


def refuse_ensemble(source: BundleFolder) -> None:
    """Refuse the recipe of an ensemble: what it trains is one network, and its inference needs several.

    Raises:
        UsageError: The bundle averages several networks.
    """
    inference = source.root / "configs" / "inference.json"
    if inference.is_file() and "member_networks" in read_json(inference):
        raise UsageError(
            f"{source.name} is an ensemble of several networks; expected a bundle of one to train. Take one of the "
            "folds that it was made of (fold_<k>), or begin with its weights: --start-from."
        )


def _image_hashes(case: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """``image_sha256``; with several channels that of the first, and of all in ``images_sha256``."""
    images = case.get("image") or list(case["images"].values())
    hashes = [content_sha256(folder / image) for image in (images if isinstance(images, list) else [images])]
    return {"image_sha256": hashes[0], **({"images_sha256": hashes} if len(hashes) > 1 else {})}


def _same_names(first: Mapping[int, str], second: Mapping[int, str], *, ignore_case: bool) -> bool:
    """Whether the names agree; a class counts whatever its case, as in :mod:`medimg3d.data.class_index`."""
    if ignore_case:
        return {k: v.lower() for k, v in first.items()} == {k: v.lower() for k, v in second.items()}
    return dict(first) == dict(second)


def refuse_unknown_values(source: BundleFolder, overrides: Mapping[str, Any]) -> None:
    """Refuse a value that the recipe has no place for.

    Args:
        source: The bundle.
        overrides: Values of ``train.json`` by id.

    Raises:
        UsageError: ``train.json`` lacks the first part of an id.
    """
    known = read_json(source.config("train"))
    for identity in overrides:
        first = identity.split("#")[0]
        if first not in known:
            near = difflib.get_close_matches(first, known, n=1)
            hint = f"Did you mean {near[0]}?" if near else f"Known are: {', '.join(known)}."
            raise UsageError(f"train.json of {source.name} has no {first}. {hint}")


def refuse_other_values(copy: BundleFolder, overrides: Mapping[str, Any]) -> None:
    """Refuse values that a training was not begun with.

    Args:
        copy: The copy that is trained.
        overrides: Values of ``train.json`` by id.

    Raises:
        BundleError: One is another in the copy.
    """
    for identity, value in overrides.items():
        begun = value_at(read_json(copy.config("train")), identity)
        if begun != value:
            raise BundleError(
                f"The run was begun with {identity} {begun} and is resumed with {value}; expected the same. "
                "Leave the option away, or train into another folder."
            )


def record_cases(
    copy: BundleFolder,
    training_list: TrainingList,
    fold: int,
    *,
    resumed: bool,
    start: StartWeights | None = None,
    record: Path = TRAINING_CASES,
) -> None:
    """Write which cases are trained on, by content, before the weights exist that know them.

    Args:
        copy: The copy that is trained.
        training_list: The data.
        fold: The held-out fold.
        resumed: The run goes on; its cases must be those it began with.
        start: Weights that the run begins with: what they were trained on is listed too, marked ``from``.
        record: The file, below the copy.

    Raises:
        BundleError: A resumed run would see other cases.
        DataError: The folds do not fit the cases.
    """
    config = read_json(copy.config("train"))
    try:
        trained = select_fold(
            training_list.cases,
            fold=fold,
            part="training",
            num_folds=config["num_folds"],
            seed=config["fold_seed"],
        )
    except ValueError as err:
        raise DataError(f"{err} Make the datalist anew with medimg3d datalist --num-folds.") from err
    folder = training_list.file.parent
    cases = [
        {
            "name": case_name(case),
            **_image_hashes(case, folder),
            **({"label_sha256": content_sha256(folder / case["label"])} if "label" in case else {}),
        }
        for case in trained
    ]
    path = copy.root / record
    begun = read_json(path)["cases"] if resumed and path.is_file() else None
    if begun is not None and [case for case in begun if "from" not in case] != cases:
        raise BundleError(
            "The run was begun on other cases than the datalist holds now; expected the same files and folds. "
            "Restore them, or train into another folder."
        )
    if begun is not None:
        earlier = [case for case in begun if "from" in case]
    else:
        earlier = [{**case, "from": start.name} for case in start.cases] if start is not None else []
    content = {"format": 1, "split_by": split_unit(training_list.cases), "cases": [*cases, *earlier]}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(content, indent=1) + "\n")
