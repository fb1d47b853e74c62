"""The pages that a person reads: ``docs/plan.md``, the model card, the licence note."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from medimg3d.planning.data_facts import DataFacts
from medimg3d.planning.decision import Decision
from medimg3d.planning.metadata import image_words
from medimg3d.planning.plan import Plan
from medimg3d.planning.trial import LOADING_GB, RUNNING_GB

_SCHEMES = {
    "fixed": "one window for all, z-score",
    "own": "z-score of each image",
    "film": "percentiles of each",
}


def plan_page(plan: Plan) -> str:
    """``docs/plan.md``: the data, each decision with its reason and what changes it, what was measured."""
    facts = plan.facts
    lines = [
        f"# Plan: {facts.name or 'data set without a name'}",
        "",
        "Made by `medimg3d plan`. Each line below can be decided otherwise by what stands in its last column; "
        "`medimg3d plan … --resume` with that flag alone keeps the rest.",
        "",
        "## The data",
        "",
        *_data_lines(plan),
        "",
        "## Decisions",
        "",
        "| what | decided | why | change it by |",
        "|---|---|---|---|",
        *(_decision_row(decision) for decision in plan.decisions),
        "",
        "## Intensities",
        "",
        *_intensity_lines(plan),
        "",
        "## Memory",
        "",
        *_memory_lines(plan),
    ]
    if plan.notes:
        lines += ["", "## Mind", "", *(f"- {note}" for note in plan.notes)]
    return "\n".join([*lines, "", *_next_lines(plan)]) + "\n"


def card(plan: Plan, name: str) -> str:
    """``docs/README.md``: the model card of a bundle without weights."""
    package = "BUNDLE/configs"
    run = "python -m monai.bundle run --config_file"
    outputs = ", ".join(plan.output_names)
    next_commands = "\n".join(_commands(plan, "DATA/dataset.json"))
    images, place = "a folder of images", "IMAGES"
    if len(plan.facts.channels) > 1:
        images, place = 'the cases under "test" of DATA/dataset.json', "DATA"
    result = "label maps" if plan.is_segmentation else "`predictions.csv`"
    finder, weights = "", ""
    if plan.finder is not None:
        finder = f"{run} {package}/train_finder.json --bundle_root BUNDLE --dataset_dir DATA --fold 0 \\\n"
        finder += "    --output_dir OUT/finder\n"
        weights = "--finder_checkpoint OUT/finder/models/finder.pt "
    return f"""# {name}

{image_words(plan)} to {outputs}. Planned by medimg3d from {plan.facts.num_cases} training cases;
`docs/plan.md` says why each setting is as it is. **There are no weights yet.** Software for research; not for
diagnosis.

## Use

With stock MONAI, from any folder, on DATA with `dataset.json`:

```bash
{finder}{run} {package}/train.json --bundle_root BUNDLE --dataset_dir DATA --fold 0 --output_dir OUT
{run} {package}/evaluate.json --bundle_root BUNDLE --dataset_dir DATA --fold 0 \\
    --checkpoint OUT/models/model.pt {weights}--output_dir OUT
{run} {package}/inference.json --bundle_root BUNDLE --dataset_dir {place} \\
    --checkpoint OUT/models/model.pt {weights}--output_dir OUT   # {images} to {result}
```

Another file name than `dataset.json`: add `--datalist_file FILE`. With medimg3d, resumable and faster:

```bash
{next_commands}
```

## Input and output

| | channels | meaning |
|---|---|---|
| `image` | {len(plan.facts.channels)} | {", ".join(channel.name for channel in plan.facts.channels)} |
| `pred` | {len(plan.output_names)} | {outputs} |

## Recipe

`configs/train.json` is the whole of it. {_recipe(plan)}{_finder_recipe(plan)}

## Figures

None yet: train, predict the cases that were held out, and score them with `medimg3d evaluate`.

## Limits

- Only images like those that the plan was made from.
- Folds are by {plan.split_by}.{_split_warning(plan)}{_finder_limits(plan)}
"""


def _split_warning(plan: Plan) -> str:
    return "" if plan.split_by == "patient" else " No patients are named: figures may be too good."


def licence_note(licence: str) -> str:
    """``docs/data_license.txt``."""
    return f"{licence}\n" if licence else "The datalist names no licence. State that of your data here.\n"


def plan_json(plan: Plan) -> dict[str, Any]:
    """``docs/plan.json``: the plan for machines; its ``decided`` holds what a second plan keeps."""
    return {
        "format": 1,
        "name": plan.facts.name,
        "given": dict(plan.given),
        "decided": decided_values(plan),
        "decisions": [
            {"name": d.name, "value": d.value, "reason": d.reason, "change": d.change} for d in plan.decisions
        ],
        "data": data_json(plan.facts),
        "measured": [dict(one) for one in plan.measured],
        "notes": list(plan.notes),
    }


def data_json(facts: DataFacts) -> dict[str, Any]:
    """What a plan was made from, in numbers."""
    return {
        "cases": facts.num_cases,
        "patients": facts.num_patients,
        "median_shape": list(facts.median_shape),
        "channels": [channel.name for channel in facts.channels],
        "labels": {str(value): name for value, name in facts.labels.items()},
        "label_cases": {str(value): count for value, count in facts.label_cases.items()},
        "label_voxels": {str(value): count for value, count in facts.label_voxels.items()},
        "label_ml": {str(value): volume for value, volume in facts.label_ml.items()},
        "orientations": dict(Counter(filter(None, facts.orientations))),
        "classes": dict(facts.class_counts),
    }


def decided_values(plan: Plan) -> dict[str, Any]:
    """Every decided value as the setting that would ask for it."""
    values: dict[str, Any] = {
        "task": plan.task,
        "modality": list(plan.modalities),
        "device": plan.settings.device,
        "network": plan.network,
        "mirror_axes": list(plan.mirror_axes),
        "batch_size": plan.batch_size,
        "width": plan.width,
        "num_folds": plan.num_folds,
        "fold_seed": plan.fold_seed,
        "iterations_per_epoch": plan.iterations_per_epoch,
        "epochs": plan.epochs,
        "learning_rate": plan.learning_rate,
        "weight_decay": plan.weight_decay,
        "windows_per_batch": plan.windows_per_batch,
    }
    if plan.is_segmentation:
        values["patch_size"] = list(plan.patch_size)
        if plan.spacing_mm is not None:
            values["spacing_mm"] = list(plan.spacing_mm)
        if plan.facts.num_axes == 3:
            values["dimension"] = "3d" if plan.slice_axis is None else "2d"
        if any(one.name == "region finder" for one in plan.decisions):
            values["finder"] = "no" if plan.finder is None else "yes"
        if any(one.name == "field of view" for one in plan.decisions):
            values["field_of_view"] = "own" if plan.field_of_view is None else "common"
    else:
        values["image_size"] = list(plan.topology.patch)
    return values


def _data_lines(plan: Plan) -> list[str]:
    facts = plan.facts
    shapes = np.array(facts.shapes)
    rows = [
        (
            "training cases",
            f"{facts.num_cases}" + (f" of {facts.num_patients} patients" if facts.num_patients else ""),
        ),
        (
            "channels",
            ", ".join(
                f"{channel.name} ({kind})"
                for channel, kind in zip(facts.channels, plan.modalities, strict=True)
            ),
        ),
        (
            "size, voxels",
            f"{_times(shapes.min(axis=0))} to {_times(shapes.max(axis=0))}, median {_times(np.median(shapes, axis=0))}",
        ),
        ("voxel size, mm", _spacing_words(plan)),
    ]
    if facts.known_spacings:
        rows.append(("anisotropy (longest to shortest voxel edge)", _anisotropy_words(facts)))
    if any(facts.orientations):
        rows.append(("orientation of the files", _orientation_words(facts)))
    if facts.num_test:
        rows.append(("test cases (not looked at)", str(facts.num_test)))
    for value, name in facts.labels.items():
        if value:
            rows.append((f"label {value}: {name}", _label_words(facts, value)))
    rows += [(f"class {name}", f"{count} cases") for name, count in facts.class_counts.items()]
    return ["| | |", "|---|---|", *(f"| {_cell(name)} | {_cell(text)} |" for name, text in rows)]


def _spacing_words(plan: Plan) -> str:
    known = np.array(plan.facts.known_spacings)
    if not known.size:
        return "not stated in the files"
    low, high = known.min(axis=0), known.max(axis=0)
    text = (
        _times(np.median(known, axis=0))
        if np.allclose(low, high)
        else f"{_times(low)} to {_times(high)}, median {_times(np.median(known, axis=0))}"
    )
    lacking = len(plan.facts.spacings_mm) - len(known)
    return text + (f"; not stated in {lacking} files" if lacking else "")


def _anisotropy_words(facts: DataFacts) -> str:
    """How much longer than short the voxels are, over the cases whose voxel size is known."""
    known = np.array(facts.known_spacings)
    ratios = known.max(axis=1) / known.min(axis=1)
    low, high, median = float(ratios.min()), float(ratios.max()), float(np.median(ratios))
    return f"{median:.3g}" if np.isclose(low, high) else f"{low:.3g} to {high:.3g}, median {median:.3g}"


def _orientation_words(facts: DataFacts) -> str:
    """``RAS in 200, LPS in 20``: where the axes of the files run, the most frequent first."""
    counts = Counter(code or "not stated" for code in facts.orientations)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{code} in {count}" for code, count in ordered)


def _label_words(facts: DataFacts, value: int) -> str:
    cases, voxels = facts.label_cases.get(value, 0), facts.label_voxels.get(value, 0)
    volume = facts.label_ml.get(value)
    in_ml = "" if volume is None else f", {volume:.0f} mL" if volume >= 100 else f", {volume:.3g} mL"
    return f"in {cases} cases, {voxels:.0f} voxels{in_ml} (median)"


def _intensity_lines(plan: Plan) -> list[str]:
    lines = []
    for channel, scheme in zip(plan.facts.channels, plan.intensities, strict=True):
        shown = ", ".join(f"{value:.4g}" for value in channel.percentiles)
        lines.append(
            f"- **{channel.name}**: percentiles 0.5, 5, 50, 95, 99.5 are {shown} (median image). "
            f"{_scheme_words(scheme)}"
        )
    return lines


def _scheme_words(scheme: Mapping[str, Any]) -> str:
    if scheme["scheme"] == "fixed":
        window = f"{scheme['low']:g} … {scheme['high']:g}"
        return f"Clipped to {window}, minus {scheme['mean']:g}, divided by {scheme['std']:g}."
    if scheme["scheme"] == "film":
        return "Each image: its own 0.5 and 99.5 percentiles become 0 and 1, then z-scored."
    return "Each image: clipped at its own 0.5 and 99.5 percentiles, z-scored" + (
        " over its values other than 0." if scheme["nonzero"] else "."
    )


def _memory_lines(plan: Plan) -> list[str]:
    if not plan.measured:
        return ["Not measured (`--no-trial`).", *_whole_image_lines(plan)]
    asked = plan.settings.memory_gb
    lines = [
        f"Peak memory, measured with the bundle's own configs on {plan.settings.device}"
        + (f"; asked for: {asked:g} GB." if asked else "; no figure was asked for (--memory-gb)."),
        "",
        "| patch | batch | filters | training, GB | validation, GB | prediction, GB | |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in plan.measured:
        used = "planned" if one is plan.measured[-1] else ""
        lines.append(
            f"| {_times(one['patch'])} | {one['batch']} | {one['width']} | {_gb(one['train_gb'])} | "
            f"{_validated(plan, one)} | {_gb(one['predict_gb'])} | {used} |"
        )
    if plan.finder is not None and plan.finder.train_gb is not None:
        finder = plan.finder
        lines.append(
            f"| {_times(finder.topology.patch)} | {finder.batch_size} | {finder.width} | {_gb(finder.train_gb)} | "
            "one window | one window | region finder |"
        )
    workers = plan.settings.num_workers
    if plan.settings.device == "cpu":
        loading = (
            f" and {LOADING_GB:g} GB for each of {workers} loading processes (`--set num_workers=0` does without)"
            if workers
            else ", which loads by itself"
        )
        counted = (
            "Training is measured steps with their optimizer and the averaged weights, "
            f"{RUNNING_GB:g} GB for the rest of its process{loading}."
        )
        if plan.is_segmentation:
            counted += (
                " Validation is that process between two steps, with as many windows as are taken at once, and the "
                "largest image with all its classes."
            )
    else:
        counted = "Training is measured steps with their optimizer and the averaged weights, on the GPU."
    return [
        *lines,
        "",
        f"{counted} `medimg3d train` keeps prepared images on disk, and up to 128 MiB of them in each loading process; "
        "stock MONAI keeps all of them in memory, which comes on top.",
        *_whole_image_lines(plan),
    ]


def _validated(plan: Plan, record: Mapping[str, Any]) -> str:
    """A record of an earlier version, and one of a classifier, has no such figure."""
    return _gb(record["validate_gb"]) if plan.is_segmentation and "validate_gb" in record else "–"


def _whole_image_lines(plan: Plan) -> list[str]:
    on_grid, inverted = plan.largest_image_gb, plan.largest_inverted_gb
    if on_grid is None or inverted is None:
        return []
    text = (
        f"Validation while training, and inference by stock MONAI, hold whole images with all classes: about "
        f"{on_grid:.2g} GB for the largest."
    )
    if inverted > on_grid:
        text += (
            f" Evaluation and inference by stock MONAI then bring all classes back onto the files' own voxels: about "
            f"{inverted:.2g} GB."
        )
    return ["", f"{text} `medimg3d predict` works block by block."]


def _next_lines(plan: Plan) -> list[str]:
    return [
        "## Next",
        "",
        "```bash",
        *_commands(plan, "DATALIST"),
        "```",
    ]


def _commands(plan: Plan, datalist: str) -> list[str]:
    """What to type next: folds and their ensemble for label maps; a classifier is not cross-validated."""
    one = f"medimg3d train BUNDLE --datalist {datalist} --fold 0 --out OUT      # one fold"
    if not plan.is_segmentation:
        return [
            one,
            "medimg3d predict OUT IMAGES --out PREDICTIONS",
            f"medimg3d evaluate PREDICTIONS {datalist} --out SCORES",
        ]
    return [
        one,
        f"medimg3d train BUNDLE --datalist {datalist} --fold all --out CV     # all folds, each scored",
        "medimg3d ensemble CV --out JOINED                                 # the folds as one bundle",
    ]


def _recipe(plan: Plan) -> str:
    length = f"{plan.epochs} epochs of {plan.iterations_per_epoch} steps, averaged weights"
    if not plan.is_segmentation:
        return (
            f"{plan.network} on images of {_times(plan.topology.patch)}, batch {plan.batch_size}, cross-entropy with "
            f"every class alike, AdamW ({plan.learning_rate:g}), {length}."
        )
    return (
        f"{plan.network} ({plan.width} filters, {plan.topology.num_levels} levels), patches of "
        f"{_times(plan.patch_size)}, batch {plan.batch_size}, AdamW ({plan.learning_rate:g}, polynomial decay), "
        f"{length}."
    )


def _finder_recipe(plan: Plan) -> str:
    if plan.finder is None:
        return ""
    finder = plan.finder
    return (
        f"\n\nImages are looked at twice. `configs/train_finder.json`: a small DynUNet ({finder.width} filters, "
        f"{finder.topology.num_levels} levels) on whole images in voxels of {_times(finder.voxel_mm)} mm tells "
        f"structures from background, {finder.epochs} epochs of {finder.iterations_per_epoch} steps, batch "
        f"{finder.batch_size}. Prediction crops the image to what it finds (pieces from a tenth of the largest), with "
        f"a margin of {_times(finder.margin_mm)} mm; training crops to the label map's own box with that margin, "
        f"varied by up to {_times(finder.jitter_mm)} mm from case to case. Where nothing is found, the whole image is "
        "predicted, and the case says so. The Dice that is watched in training is inside the label map's box; "
        "`evaluate.json` and predictions use the found one."
    )


def _finder_limits(plan: Plan) -> str:
    if plan.finder is None:
        return ""
    return (
        "\n- What the finder misses is lost: `medimg3d train` says how much that is on the held-out cases "
        "(`training_finder/recall.csv`)."
    )


def _decision_row(decision: Decision) -> str:
    cells = [
        decision.name,
        value_words(decision.value, decision.name),
        decision.reason,
        f"`{decision.change}`" if decision.change.startswith("--") else decision.change,
    ]
    return f"| {' | '.join(map(_cell, cells))} |"


def value_words(value: Any, name: str = "") -> str:
    """A decided value as a person reads it."""
    if value is None:
        return "as it is"
    if name == "mirroring":
        return ", ".join(f"axis {axis}" for axis in value) or "none"
    if isinstance(value, (list, tuple)):
        if value and all(isinstance(one, Mapping) for one in value):
            return "; ".join(_SCHEMES[str(one["scheme"])] for one in value)
        numbers = all(isinstance(one, (int, float)) for one in value)
        return (" x ".join(f"{one:g}" for one in value) if numbers else ", ".join(map(str, value))) or "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{key.replace('_', ' ')} {one}" for key, one in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _times(sizes: Any) -> str:
    return " x ".join(f"{float(size):.4g}" for size in sizes)


def _gb(value: float | None) -> str:
    return "too much" if value is None else f"{value:.2f}"


def page_of_json(content: Mapping[str, Any]) -> str:
    """Indented JSON."""
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"
