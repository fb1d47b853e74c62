"""Train the region finder of a bundle's copy, and measure what of the structures lies in the regions that it finds."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medimg3d.atomic import write_text
from medimg3d.bundle.finder import FINDER_CONFIG, FINDER_WEIGHTS, region_step
from medimg3d.bundle.folder import BundleFolder, read_json, set_config_values
from medimg3d.data.folds import case_name
from medimg3d.data.json_file import write_json
from medimg3d.engines.history import read_history
from medimg3d.errors import BundleError, UsageError

FOLDER = Path("training_finder")
CHECKPOINT = FOLDER / "checkpoint.pt"
SETTINGS = FOLDER / "settings.json"
BOTH_CASES = FOLDER / "training_cases.json"
"""What both networks are trained on: neither may know a case that the other holds out."""

FINE_SETTINGS = Path("training") / "settings.json"
RECALL = FOLDER / "recall.csv"
"""Written last: where it is, the finder's training is whole."""

COLUMNS = ("case", "recall", "share_of_image", "note")


@dataclass(frozen=True)
class RegionRecall:
    """What a finder found of one case.

    Attributes:
        case: Name of the case.
        recall: Share of the labelled voxels that lie in the region; NaN where nothing is labelled.
        share_of_image: Voxels of the region, as a share of the image's.
        note: What the region says of itself; not empty where nothing was found.
    """

    case: str
    recall: float
    share_of_image: float
    note: str = ""


@dataclass(frozen=True)
class FinderSettings:
    """What a finder's training was begun with; a resumed one keeps it.

    Args:
        fold: Held-out fold, -1 for none.
        epochs: Length of the run.
        seed: Seed of weights, order and augmentation.
        precision: ``"float32"`` or ``"bfloat16"``.
        channels_last: Memory layout of images and weights.
        compiled: Whether ``torch.compile`` runs the network.
    """

    fold: int
    epochs: int
    seed: int
    precision: str = "float32"
    channels_last: bool = False
    compiled: bool = False


@dataclass(frozen=True)
class FinderResult:
    """A trained finder.

    Attributes:
        settings: What it was trained with.
        history: A row an epoch.
        recalls: Of the held-out cases, or of those it was trained on where none was held out.
    """

    settings: FinderSettings
    history: list[dict[str, float]]
    recalls: list[RegionRecall]

    def line(self) -> str:
        """The recall in one line."""
        return recall_line(self.recalls, held_out=self.settings.fold >= 0)


def train_finder(
    copy: BundleFolder,
    list_file: Path,
    *,
    fold: int,
    epochs: int | None = None,
    seed: int | None = None,
    options: Mapping[str, Any] | None = None,
    tracking: str | None = None,
) -> FinderResult:
    """Train the finder of a copy, or go on where its training stopped; a whole one is kept.

    Args:
        copy: A copy that is trained, its folds written into ``train.json``.
        list_file: The datalist.
        fold: Fold that is held out, -1 for none.
        epochs: Length of the run; the recipe's if None.
        seed: The recipe's if None.
        options: Further values of the overlay (``num_workers``, ``cache_dir``, ``show_progress``).
        tracking: ``"mlflow"`` to track with MLflow.

    Returns:
        Its history, and the recall of the held-out cases.

    Raises:
        BundleError: It was begun with other settings.
    """
    recipe = read_json(copy.config("train"))
    own = read_json(copy.config(FINDER_CONFIG))
    settings = FinderSettings(
        fold=fold,
        epochs=int(own["train"]["trainer"]["max_epochs"] if epochs is None else epochs),
        seed=int(own["seed"] if seed is None else seed),
    )
    _begin(copy, settings)
    set_config_values(
        copy.config(FINDER_CONFIG),
        {
            "fold": fold,
            "num_folds": recipe["num_folds"],
            "fold_seed": recipe["fold_seed"],
            "seed": settings.seed,
            "train#trainer#max_epochs": settings.epochs,
        },
    )
    if not (copy.root / RECALL).is_file():
        _run(copy, list_file, settings, dict(options or {}), tracking)
        recalls = measure_recall(copy, list_file, fold=fold)
        write_text(copy.root / RECALL, _table(recalls))
    return FinderResult(settings, read_history(copy.root / FOLDER / "history.csv"), read_recalls(copy))


def refuse_finder(out: Path) -> None:
    """Refuse a folder that holds a finder's training.

    Raises:
        UsageError: It does.
    """
    if (out / CHECKPOINT).exists() or (out / FINDER_WEIGHTS).exists():
        raise UsageError(
            f"{out} holds a training of a region finder; expected an empty folder. Add --resume to go on, --stage fine "
            "to keep it, or choose another --out."
        )


def refuse_other_fold(out: Path, fold: int) -> None:
    """Refuse a finder and a fine network of which one was trained on what the other holds out.

    Raises:
        BundleError: What ``out`` holds was trained with another fold.
    """
    for what, path in (("region finder", SETTINGS), ("fine network", FINE_SETTINGS)):
        begun = int(read_json(out / path)["fold"]) if (out / path).is_file() else fold
        if begun != fold:
            raise BundleError(
                f"The {what} in this folder was trained with fold {begun}, not {fold}; expected the same, so that both "
                "hold out the same cases. Train into another --out."
            )


def measure_recall(bundle: BundleFolder, list_file: Path, *, fold: int) -> list[RegionRecall]:
    """What of the structures lies in the regions that a trained bundle finds.

    Args:
        bundle: A copy with its finder's weights.
        list_file: The datalist.
        fold: Fold whose held-out cases are looked at; -1 looks at all training cases.

    Returns:
        One a case.
    """
    from medimg3d.bundle.code_path import bundle_code
    from medimg3d.bundle.parser import parse_config
    from medimg3d.transforms.found_region import share_inside, whole

    train = read_json(bundle.config("train"))
    parser = parse_config(
        bundle,
        ["evaluate"],
        {
            "dataset_dir": str(list_file.parent),
            "datalist_file": str(list_file),
            "fold": fold,
            "validation_datalist#part": "training" if fold < 0 else "validation",
            "label_loading": train["label_loading"],
        },
    )
    recalls = []
    with bundle_code(bundle.root):
        cases = parser.get_parsed_content("validation_datalist")
        steps = parser.get_parsed_content("preprocessing")
        loading = parser.get_parsed_content("label_loading")
    place = region_step(steps)
    assert place is not None
    for case in cases:
        item: Any = dict(case)
        for step in steps.transforms[:place]:
            item = step(item)
        box, note = steps.transforms[place].region(item["image"], item)
        label = loading(item)["label"]
        recall = share_inside(label, box, ignore_label=train["region"].get("ignore_label"))
        sizes = [(stop - start) / size for (start, stop), (_, size) in zip(box, whole(label), strict=True)]
        recalls.append(RegionRecall(case_name(case), recall, math.prod(sizes), note))
    return recalls


def read_recalls(bundle: BundleFolder) -> list[RegionRecall]:
    """What was measured after a finder's training."""
    rows = csv.DictReader(io.StringIO((bundle.root / RECALL).read_text(encoding="utf-8")))
    return [
        RegionRecall(row["case"], float(row["recall"] or "nan"), float(row["share_of_image"]), row["note"])
        for row in rows
    ]


def recall_line(recalls: Sequence[RegionRecall], *, held_out: bool) -> str:
    """The recall of a finder in one line.

    Args:
        recalls: One a case.
        held_out: Whether the cases were held out of its training.
    """
    known = [one for one in recalls if not math.isnan(one.recall)]
    which = "held-out cases" if held_out else "cases that it was trained on"
    if not known:
        return f"Region finder: none of {len(recalls)} {which} has a labelled voxel."
    mean = sum(one.recall for one in known) / len(known)
    least = min(known, key=lambda one: one.recall)
    shares = sorted(one.share_of_image for one in recalls)
    missed = sum(bool(one.note) for one in recalls)
    return (
        f"Region finder, {len(known)} {which}: {mean:.2%} of the labelled voxels lie in the region (mean; least "
        f"{least.recall:.2%}, {least.case}), which is {shares[len(shares) // 2]:.1%} of the image (median); nothing "
        f"was found in {missed}. {RECALL.as_posix()} has each case."
    )


def _begin(copy: BundleFolder, settings: FinderSettings) -> None:
    path = copy.root / SETTINGS
    if not path.is_file():
        write_json(asdict(settings), path)
        return
    begun = read_json(path)
    for name, value in asdict(settings).items():
        if begun.get(name) != value:
            raise BundleError(
                f"The region finder in this folder was begun with {name} {begun.get(name)}, not {value}; expected the "
                "same to resume. Leave the option away, or train into another --out."
            )


def _run(
    copy: BundleFolder,
    list_file: Path,
    settings: FinderSettings,
    options: dict[str, Any],
    tracking: str | None,
) -> None:
    from medimg3d.bundle.parser import run_training
    from medimg3d.engines.heap import keep_freed_memory

    keep_freed_memory()
    values = {
        "class_names": ["structures"],
        "dataset_dir": str(list_file.parent),
        "datalist_file": str(list_file),
        "output_dir": str(copy.root / FOLDER),
        "ckpt_dir": str(copy.root / FINDER_WEIGHTS.parent),
        "precision": settings.precision,
        "channels_last": settings.channels_last,
        "compiled": settings.compiled,
        "settings": asdict(settings),
        **options,
        "resume": True,
    }
    run_training(copy, values, tracking=tracking, config=FINDER_CONFIG)


def _table(recalls: Sequence[RegionRecall]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    for one in recalls:
        recall = "" if math.isnan(one.recall) else f"{one.recall:.6f}"
        writer.writerow((one.case, recall, f"{one.share_of_image:.6f}", one.note))
    return file.getvalue()
