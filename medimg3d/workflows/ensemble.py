"""From cross-validations to one bundle: the best configuration or mean of several, cleaned where that helps.

What the held-out cases choose is judged by nested cross-validation: the cases of a fold are answered by what the
other folds chose.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from medimg3d.atomic import remove_partial_files, write_text
from medimg3d.bundle.folder import read_json
from medimg3d.bundle.label_rules import MIN_VOLUMES, LabelRule, apply_rules, tried_rules
from medimg3d.data.fast_nifti_writer import write_label_nifti
from medimg3d.data.json_file import write_json
from medimg3d.errors import MissingExtraError, UsageError
from medimg3d.report.ensemble_page import ensemble_card, ensemble_page
from medimg3d.stats.bootstrap import bootstrap_mean
from medimg3d.workflows.cross_validated import CrossValidated, combinable, read_cross_validations
from medimg3d.workflows.ensemble_choice import (
    CaseScore,
    Choice,
    choose,
    interval_json,
    paired_gain,
    patients_of,
)
from medimg3d.workflows.ensemble_export import MOST_BYTES, export_ensemble
from medimg3d.workflows.ensemble_scores import HeldOutScores, class_means
from medimg3d.workflows.evaluate import EvaluationResult, evaluate

REPORT = Path("docs") / "ensemble"
SUMMARY = REPORT / "summary.json"
WORK = ".ensemble"
LEVEL = 0.95
UNUSUAL = 0.05
FEW_CASES = 50

Say = Callable[[str], None]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class EnsembleResult:
    """An exported ensemble.

    Attributes:
        bundle: Folder of the bundle.
        summary: The content of ``docs/ensemble/summary.json``.
        page: The report.
    """

    bundle: Path
    summary: dict[str, Any]
    page: Path


def ensemble(
    folders: Sequence[Path],
    out: Path,
    *,
    most_combined: int = 2,
    say: Say = lambda _: None,
    progress: Progress | None = None,
) -> EnsembleResult:
    """Choose among cross-validated configurations, and export the folds of the chosen one as one bundle.

    A second run goes on where the first one stopped: each case's scores are on disk, and ``out`` becomes a bundle
    only when everything of it is there.

    Args:
        folders: Of :func:`medimg3d.workflows.cross_validate.cross_validate`, the same cases in the same folds.
        out: Folder of the new bundle.
        most_combined: Most configurations that are averaged; those need ``softmax`` and the same preprocessing.
        say: Called with a line as a step begins.
        progress: Called with the numbers of cases scored and of all cases.

    Returns:
        The bundle, its figures and its page.

    Raises:
        UsageError: The folders do not fit each other, or ``out`` holds something else.
        MissingExtraError: scikit-image is not installed.
        BundleError: A bundle cannot be exported, having no argmax.
        DataError: A case cannot be read.
    """
    if find_spec("skimage") is None:
        raise MissingExtraError("scikit-image", "postprocessing")
    found = read_cross_validations(folders)
    combined = combinable(found, most_combined)
    settings = {
        "most_combined": most_combined,
        "level": LEVEL,
        "min_volumes_mm3": list(MIN_VOLUMES),
        "configurations": [one.fingerprint() for one in found],
    }
    if _begin(out, settings):
        return EnsembleResult(out, read_json(out / SUMMARY), out / REPORT / "ensemble.html")
    work = out / WORK
    say("Scoring the held-out cases under every candidate and rule")
    candidates = [*(one.name for one in found), *("+".join(names) for names in combined)]
    held_out = HeldOutScores(found, candidates, work / "scores")
    scores = held_out.all(progress)
    say("Choosing, and judging the choice by nested cross-validation")
    choice = choose(scores, held_out.cleaned, held_out.together, level=LEVEL)
    nested = _nested_choices(scores, held_out)
    judged = _judge(nested, scores, held_out, found[0], work / "nested")
    summary = _summary(found, candidates, scores, choice, nested, judged, held_out, settings)
    say("Exporting the bundle")
    parts = [one for name in choice.candidate.split("+") for one in found if one.name == name]
    record = {"chosen_on": _chosen_on(scores), "uncertainty": summary["uncertainty"]}
    _report(summary, choice, judged, parts, record, out, work)
    return EnsembleResult(out, summary, out / REPORT / "ensemble.html")


def _begin(out: Path, settings: dict[str, Any]) -> bool:
    """Whether the ensemble is there already; else write what its making is begun with."""
    settings = json.loads(json.dumps(settings))
    done, begun = out / SUMMARY, out / WORK / "settings.json"
    if done.is_file() and not begun.is_file():
        if read_json(done).get("settings") == settings:
            return True
        raise UsageError(f"{out} holds another ensemble; expected an empty folder. Choose another --out.")
    if begun.is_file():
        if read_json(begun) != settings:
            raise UsageError(
                f"{out} was begun with other cross-validations or options; expected the same to go on. Choose another "
                "--out."
            )
        remove_partial_files(out / WORK)
        return False
    if out.exists() and any(out.iterdir()):
        raise UsageError(f"{out} is not empty; expected a new folder. Choose another --out.")
    write_json(settings, begun)
    return False


def _nested_choices(scores: Sequence[CaseScore], held_out: HeldOutScores) -> dict[int, Choice]:
    """Fold → what the cases of the other folds choose."""
    return {
        fold: choose(
            [score for score in scores if score.fold != fold],
            held_out.cleaned,
            held_out.together,
            level=LEVEL,
        )
        for fold in sorted({score.fold for score in scores})
    }


@dataclass(frozen=True)
class _Judged:
    """The nested choice's answers, measured.

    Attributes:
        evaluation: All metrics.
        means: Mean Dice of each case, in the order of the scores.
    """

    evaluation: EvaluationResult
    means: list[float]


def _judge(
    nested: dict[int, Choice],
    scores: Sequence[CaseScore],
    held_out: HeldOutScores,
    reference: CrossValidated,
    folder: Path,
) -> _Judged:
    """Write each case's label map as the other folds' choice makes it, and score them all together."""
    predictions = folder / "predictions"
    predictions.mkdir(parents=True, exist_ok=True)
    remove_partial_files(predictions)
    means = []
    for score in scores:
        choice = nested[score.fold]
        target = predictions / f"{score.case}_seg.nii.gz"
        if not target.is_file():
            made = held_out.labels_of(choice.candidate, score.case)
            labels = apply_rules(made.labels, choice.rules, spacing_mm=made.spacing_mm)
            header = _header(reference.cases[score.case].prediction)
            write_label_nifti(labels.reshape(header.get_data_shape()), header, target)
        means += held_out.together(choice.candidate, choice.rules, [score])
    cases = [
        {
            "id": score.case,
            "label": str(case.label.resolve()),
            "image": str((case.image or case.label).resolve()),
            **({"patient": case.patient} if case.patient else {}),
        }
        for score in scores
        if (case := reference.cases[score.case])
    ]
    labels_file = folder / "datalist.json"
    meaning = held_out.meaning
    names = {"0": "background"} | {str(label): name for label, name in reference.class_names.items()}
    head: dict[str, Any] = {"labels": names} if meaning.regions is None else {}
    if not meaning.has_voxel_size:
        head["voxel_size"] = "unknown"
    write_text(labels_file, json.dumps({**head, "training": cases}, indent=1))
    how: dict[str, Any] = {"regions": meaning.regions, "ignore_label": meaning.ignored}
    if meaning.regions is not None:
        how["predicted"] = meaning.predicted
    return _Judged(evaluate(predictions, labels_file, folder, workers=1, **how), means)


def _header(path: Path) -> Any:
    import nibabel as nib

    return nib.load(path).header


def _in_words(names: Mapping[int, str], has_voxel_size: bool, rules: Sequence[LabelRule]) -> list[str]:
    return [rule.describe(names, has_voxel_size=has_voxel_size) for rule in rules]


def _summary(
    found: Sequence[CrossValidated],
    candidates: Sequence[str],
    scores: Sequence[CaseScore],
    choice: Choice,
    nested: dict[int, Choice],
    judged: _Judged,
    held_out: HeldOutScores,
    settings: dict[str, Any],
) -> dict[str, Any]:
    names = found[0].class_names
    in_words = partial(_in_words, names, held_out.meaning.has_voxel_size)
    words = dict(
        zip([rule.key for rule in tried_rules(list(names))], in_words(tried_rules(list(names))), strict=True)
    )
    groups = patients_of(scores)
    first = candidates[0]
    figures = {
        name: {
            "mean_dice": interval_json(bootstrap_mean([score.mean(name) for score in scores], groups=groups)),
            "classes": {
                label: interval_json(bootstrap_mean(values, groups=groups))
                for label, values in class_means(scores, name, names).items()
            },
        }
        for name in candidates
    }
    gain = paired_gain("nested choice", first, judged.means, [score.mean(first) for score in scores], scores)
    return {
        "format": 1,
        "num_cases": len(scores),
        "folds": sorted(nested),
        "classes": {str(label): name for label, name in names.items()},
        "candidates": figures,
        "choice": choice.as_json()
        | {
            "in_words": in_words(choice.rules),
            "gains": [
                gain.as_json() | {"in_words": words.get(gain.what, gain.what)} for gain in choice.gains
            ],
        },
        "nested": {
            "choices": {
                str(fold): {
                    "candidate": one.candidate,
                    "rules": [rule.as_json() for rule in one.rules],
                    "in_words": in_words(one.rules),
                }
                for fold, one in nested.items()
            },
            "mean_dice": interval_json(bootstrap_mean(judged.means, groups=groups)),
            "gain": gain.as_json(),
            "metrics": judged.evaluation.summary["metrics"],
        },
        "uncertainty": _uncertainty(choice, scores),
        "warnings": _warnings(scores, choice, nested, found, judged),
        "resampled_by": "patient" if groups else "case",
        "settings": json.loads(json.dumps(settings)),
    }


def _uncertainty(choice: Choice, scores: Sequence[CaseScore]) -> dict[str, Any] | None:
    """How unsure the networks were of cases that they had not seen; None where probabilities were not kept."""
    parts = choice.candidate.split("+")
    if any(name not in score.uncertainty for score in scores for name in parts):
        return None
    values = [float(np.mean([score.uncertainty[name] for name in parts])) for score in scores]
    return {
        "measure": "1 - soft Dice confidence, mean over the members",
        "level": 1 - UNUSUAL,
        "threshold": float(np.quantile(values, 1 - UNUSUAL, method="higher")),
        "held_out": sorted(round(value, 6) for value in values),
    }


def _warnings(
    scores: Sequence[CaseScore],
    choice: Choice,
    nested: dict[int, Choice],
    found: Sequence[CrossValidated],
    judged: _Judged,
) -> list[str]:
    warnings = []
    if len(scores) < FEW_CASES:
        warnings.append(
            f"{len(scores)} cases chose and judged: below about {FEW_CASES} the intervals are too narrow."
        )
    chosen = (choice.candidate, choice.rules)
    others = [fold for fold, one in nested.items() if (one.candidate, one.rules) != chosen]
    if others:
        warnings.append(
            f"{len(others)} of {len(nested)} folds, left out, would have chosen something else: the choice hangs on "
            "few cases."
        )
    missing = found[0].never_held_out()
    if missing:
        warnings.append(
            f"{len(missing)} cases of the trainings were held out by none of the folds {', '.join(map(str, nested))} "
            f"(the first: {min(missing)}): neither chosen on nor judged. Run medimg3d cross-validate once more for "
            "the folds that are missing."
        )
    without = [one.name for one in found if not one.has_softmax]
    if without:
        warnings.append(
            f"No class probabilities were kept for {', '.join(without)}: not combined with others, and predictions get "
            "no warning of unusual cases. Run medimg3d cross-validate --softmax."
        )
    if judged.evaluation.rejected:
        warnings.append(f"{len(judged.evaluation.rejected)} cases could not be scored by the evaluation.")
    return warnings


def _too_large(out: Path) -> list[str]:
    large = [file for file in sorted((out / "models").glob("*.pt")) if file.stat().st_size >= MOST_BYTES]
    if not large:
        return []
    return [
        f"{len(large)} files of weights have {MOST_BYTES / 1e6:.0f} MB or more ({large[0].name}: "
        f"{large[0].stat().st_size / 1e6:.0f} MB), also in half precision: too large for most collections of bundles. "
        "Plan a narrower network to share one."
    ]


def _chosen_on(scores: Sequence[CaseScore]) -> str:
    return f"{len(scores)} held-out cases of {len({score.fold for score in scores})} folds"


def _report(
    summary: dict[str, Any],
    choice: Choice,
    judged: _Judged,
    parts: Sequence[CrossValidated],
    record: dict[str, Any],
    out: Path,
    work: Path,
) -> None:
    """The bundle, then its papers; the summary is last but for the end of the work folder."""
    export_ensemble(parts, choice.rules, record, out, work=work)
    summary["warnings"] += _too_large(out)
    folder = out / REPORT
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy2(judged.evaluation.files["cases"], folder / "nested_cases.csv")
    write_text(
        out / "docs" / "README.md", ensemble_card(summary, read_json(out / "configs" / "metadata.json"))
    )
    ensemble_page(summary, folder / "ensemble.html")
    write_json(summary, folder / "summary.json")
    shutil.rmtree(work)
