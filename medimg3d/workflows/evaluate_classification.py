"""Measure a classifier's decisions against the truth: figures with intervals, subgroups, mistakes, a page."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from medimg3d import __version__
from medimg3d.data.class_pairs import ClassPair, ClassPairs, pair_up
from medimg3d.data.class_predictions import ClassPredictions, read_class_predictions
from medimg3d.data.class_references import (
    ClassReference,
    ClassReferences,
    check_section,
    find_class_references,
)
from medimg3d.data.content_hash import content_sha256
from medimg3d.data.json_file import write_json
from medimg3d.data.training_record import (
    RUN_FILE,
    TrainingRecord,
    find_training_record,
    input_hashes,
    read_json,
)
from medimg3d.errors import DataError, UsageError
from medimg3d.report.classification_summary import (
    NUM_BINS,
    Resampling,
    ScoredFilms,
    class_estimates,
    decision_estimates,
    overall_estimates,
    share_unsure,
    subgroup_estimates,
)
from medimg3d.report.film_table import FilmRow, write_film_table
from medimg3d.workflows.evaluation_log import TestEvaluation, earlier_evaluations, log_test_evaluation
from medimg3d.workflows.held_against import held_against

FEW_FILMS = 50
NUM_MISTAKES = 12
DECISION_FILE = Path("models") / "decision.json"

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ClassificationEvaluation:
    """What an evaluation found and wrote.

    Attributes:
        summary: The content of ``summary.json``.
        films: Every scored film.
        rejected: File → why it is not scored.
        warnings: What the reader of the figures must know.
        notices: What was done besides: the log of test evaluations.
        files: What was written, by name: ``cases``, ``summary``, ``page``.
    """

    summary: dict[str, Any]
    films: tuple[FilmRow, ...]
    rejected: dict[str, str]
    warnings: list[str]
    notices: list[str]
    files: dict[str, Path]


@dataclass(frozen=True)
class _Scored:
    """The pairs that count, and the same as arrays."""

    pairs: tuple[ClassPair, ...]
    rows: tuple[FilmRow, ...]
    films: ScoredFilms


def evaluate_classification(
    predictions: Path,
    references: Path,
    out: Path,
    *,
    section: str = "test",
    bundle: Path | None = None,
    subgroup_by: Sequence[str] = ("subtype",),
    against: Sequence[Path] = (),
    num_mistakes: int = NUM_MISTAKES,
    seed: int = 0,
    num_resamples: int = 2000,
    level: float = 0.95,
    log: bool = True,
    progress: Progress | None = None,
) -> ClassificationEvaluation:
    """Score a classifier's ``predictions.csv``; write a table, a summary, pictures and a page.

    Decisions are those of the column ``decision``: nothing is chosen here. A film that cannot be scored is
    rejected with its reason; the others go on.

    Args:
        predictions: ``predictions.csv`` or its folder.
        references: Datalist (.json), ``labels.csv``, a folder with one of them, or one folder a class.
        out: Folder to write to; made if need be.
        section: ``"test"``, ``"validation"``, ``"training"`` or ``"all"``.
        bundle: Bundle that made the predictions: its classes, its record of training cases, its log; else
            what ``run.json`` beside the predictions tells.
        subgroup_by: Columns of the references to show figures by; one that they lack is named in a notice.
        against: Other predictions of the same films, of two classes: the specificity gained over each at equal
            sensitivity.
        num_mistakes: Number of most confident mistakes to draw.
        seed: Seed of the intervals.
        num_resamples: Number of resamples for each interval.
        level: Confidence of the intervals.
        log: Append an evaluation on a test section to the bundle's log; off only in tests of the program.
        progress: Called with the numbers of films read and of all films.

    Returns:
        Figures, films and files.

    Raises:
        UsageError: A file does not exist, the section is empty, nothing matches, or a setting is out of range.
        DataError: A file cannot be read, or no film could be scored.
    """
    check_section(section)
    if not 0 < level < 1 or num_resamples < 1 or num_mistakes < 0:
        raise UsageError(
            "level must lie between 0 and 1, num_resamples be at least 1, num_mistakes at least 0."
        )
    if bundle is not None and not bundle.is_dir():
        raise UsageError(f"{bundle} is no folder; give the folder of the bundle that made the predictions.")
    decision = _decision(bundle)
    said = read_class_predictions(
        predictions, classes=decision.get("classes", ()), positive=decision.get("positive")
    )
    truth = find_class_references(references)
    wanted = truth.in_section(section)
    if not wanted:
        raise UsageError(_empty_section(truth, section, references))
    predicted_on = _predicted_on(said)
    pairs = pair_up(said.rows, wanted, _others(truth, wanted), hashes=predicted_on)
    if not pairs.pairs:
        raise UsageError(_nothing_matches(pairs, predictions, references))
    scored, wrong_class = _score(pairs.pairs, said)
    rejected = {**pairs.unmatched, **wrong_class, **said.rejected}
    hashes = _hashes(scored.pairs, predicted_on, progress)
    record = find_training_record(said.folder, bundle)
    seen = None if record.missing else _seen(record, hashes)
    how = Resampling(num_resamples, level, seed)
    summary = _summary(scored, how, subgroup_by)
    summary |= {
        "against": held_against(against, scored.films, scored.pairs, wanted, how),
        "section": section,
        "datalist": truth.name,
        "decision": decision,
        "rejected": rejected,
        "elsewhere": dict(Counter(pairs.elsewhere.values())),
        "seen_in_training": {
            "checked": seen is not None,
            "why_not": record.missing,
            "cases": dict(seen or {}),
        },
        "bundle": _about(record, said.folder),
    }
    summary["warnings"] = _warnings(scored, summary, wanted, truth, record, hashes)
    summary["notices"] = _notices(summary, bundle, subgroup_by, log)
    files = _write(out, summary, scored, seen, num_mistakes)
    notices = list(summary["notices"])
    if bundle is not None and log and section == "test":
        notices += _log(summary, bundle, predictions, references)
    return ClassificationEvaluation(summary, scored.rows, rejected, summary["warnings"], notices, files)


def _decision(bundle: Path | None) -> dict[str, Any]:
    """Classes and threshold of the bundle: from ``decision.json``, else the classes of ``metadata.json``."""
    if bundle is None:
        return {}
    stored = read_json(bundle / DECISION_FILE)
    if stored.get("classes"):
        return {key: value for key, value in stored.items() if key != "format"}
    content: Any = read_json(bundle / "configs" / "metadata.json")
    for key in ("network_data_format", "outputs", "pred", "channel_def"):
        content = content.get(key, {}) if isinstance(content, dict) else {}
    names = {int(index): str(name) for index, name in content.items() if str(index).isdigit()}
    return {"classes": [names[index] for index in sorted(names)]} if len(names) > 1 else {}


def _empty_section(truth: ClassReferences, section: str, source: Path) -> str:
    counts = Counter(film.section for film in truth.films)
    there = ", ".join(f"{name} ({n})" for name, n in counts.items())
    return f"{source} has no film with a class in section {section!r}; it has {there}. Choose one with --section."


def _nothing_matches(pairs: ClassPairs, predictions: Path, references: Path) -> str:
    if pairs.elsewhere:
        counts = Counter(pairs.elsewhere.values())
        there = ", ".join(f"{n} in {name}" for name, n in counts.items())
        return f"No prediction of {predictions} is in the section asked for, but {there}; choose one with --section."
    file, reason = next(iter(pairs.unmatched.items()))
    return f"No prediction of {predictions} belongs to a film of {references}; the first, {file}, {reason}."


def _others(truth: ClassReferences, wanted: Sequence[ClassReference]) -> list[ClassReference]:
    chosen = {id(film) for film in wanted}
    return [film for film in truth.films if id(film) not in chosen]


def _score(pairs: Sequence[ClassPair], said: ClassPredictions) -> tuple[_Scored, dict[str, str]]:
    """The pairs whose class is known to the classifier, and why the others are not scored."""
    index = {name.lower(): number for number, name in enumerate(said.classes)}
    index = {str(number): number for number in range(len(said.classes))} | index
    kept, rows, rejected = [], [], {}
    for pair in pairs:
        prediction, reference = pair.prediction, pair.reference
        number = index.get(reference.truth.lower())
        if number is None:
            names = ", ".join(said.classes)
            rejected[prediction.file] = f"its class is {reference.truth!r}; expected one of {names}"
            continue
        kept.append(pair)
        rows.append(
            FilmRow(
                prediction.file,
                prediction.case or reference.case,
                said.classes[number],
                prediction.decision,
                prediction.probabilities,
                prediction.unsure,
            )
        )
    if not rows:
        raise DataError(
            f"None of {len(pairs)} films could be scored; the first: {next(iter(rejected.values()))}."
        )
    return _Scored(tuple(kept), tuple(rows), _arrays(kept, rows, said)), rejected


def _arrays(pairs: Sequence[ClassPair], rows: Sequence[FilmRow], said: ClassPredictions) -> ScoredFilms:
    number = {name: index for index, name in enumerate(said.classes)}
    positive = None
    if len(said.classes) == 2:
        positive = number[said.positive] if said.positive else 1
    patients = [pair.reference.patient for pair in pairs]
    known = tuple(patient for patient in patients if patient is not None)
    return ScoredFilms(
        said.classes,
        positive,
        np.array([number[row.truth] for row in rows], dtype=np.intp),
        np.array([number[row.decision] for row in rows], dtype=np.intp),
        np.array([row.probabilities for row in rows], dtype=np.float64),
        np.array([row.unsure for row in rows], dtype=bool),
        known if len(known) == len(patients) else None,
    )


def _predicted_on(said: ClassPredictions) -> dict[str, str]:
    """Case → hash of the file that was predicted on; a case name that two rows share tells nothing."""
    count = Counter(row.case for row in said.rows)
    return {case: digest for case, digest in input_hashes(said.folder).items() if count[case] == 1}


def _hashes(
    pairs: Sequence[ClassPair], predicted: Mapping[str, str], progress: Progress | None
) -> dict[str, set[str]]:
    """File → hashes of what was predicted on and of the listed film, as far as they are there."""
    found = {}
    for done, pair in enumerate(pairs, start=1):
        path = pair.reference.path
        own = {predicted.get(pair.prediction.case, ""), content_sha256(path) if path.exists() else ""}
        found[pair.prediction.file] = own - {""}
        if progress is not None:
            progress(done, len(pairs))
    return found


def _seen(record: TrainingRecord, hashes: Mapping[str, set[str]]) -> dict[str, str]:
    """Scored file → training case of the same content."""
    found = {file: record.seen(sorted(own)) for file, own in hashes.items()}
    return {file: name for file, name in found.items() if name}


def _about(record: TrainingRecord, folder: Path) -> dict[str, Any]:
    """The bundle, with the weights that made the predictions where ``run.json`` tells them."""
    told = read_json(folder / RUN_FILE).get("bundle") or {}
    weights = told.get("weights_sha256") or record.bundle.get("weights_sha256")
    return {**record.bundle, **({"weights_sha256": weights} if weights else {})}


def _summary(scored: _Scored, how: Resampling, subgroup_by: Sequence[str]) -> dict[str, Any]:
    """Everything that follows from the films alone."""
    films = scored.films
    sure = films.only(~films.unsure)
    counts = np.bincount(films.truth, minlength=len(films.classes))
    columns = {name: [pair.reference.values.get(name, "") for pair in scored.pairs] for name in subgroup_by}
    without = {k: e.as_json() for k, e in decision_estimates(sure, how).items()} if films.unsure.any() else {}
    return {
        "format": 1,
        "task": "classification",
        "num_scored": len(films),
        "classes": list(films.classes),
        "positive": None if films.positive is None else films.classes[films.positive],
        "n_by_class": {name: int(n) for name, n in zip(films.classes, counts, strict=True)},
        "metrics": {name: e.as_json() for name, e in overall_estimates(films, how).items()},
        "per_class": {
            name: {k: e.as_json() for k, e in figures.items()}
            for name, figures in class_estimates(films, how).items()
        },
        "confusion": films.confusion.tolist(),
        "unsure": {
            "n": int(films.unsure.sum()),
            "share": share_unsure(films, how).as_json(),
            "without": without,
            "confusion_without": sure.confusion.tolist(),
            "mistakes": _mistakes_left_to_a_human(films),
        },
        "subgroups": {
            name: subgroup_estimates(films, values, how) for name, values in columns.items() if any(values)
        },
        "settings": {
            "level": how.level,
            "num_resamples": how.num_resamples,
            "resampled_by": "case" if films.patients is None else "patient",
            "num_patients": None if films.patients is None else len(set(films.patients)),
            "stratified_by": "class",
            "seed": how.seed,
            "calibration_bins": f"{NUM_BINS} of equal count",
        },
        "versions": {
            "medimg3d": __version__,
            "python": platform.python_version(),
            **{package: version(package) for package in ("numpy", "scipy")},
        },
    }


def _mistakes_left_to_a_human(films: ScoredFilms) -> dict[str, dict[str, int]]:
    """Of two classes: how many false alarms and missed films there are, and how many of them were unsure."""
    if films.positive is None:
        return {}
    is_positive, is_called = films.truth == films.positive, films.decided == films.positive
    kinds = {"false_alarms": ~is_positive & is_called, "missed": is_positive & ~is_called}
    return {
        name: {"all": int(wrong.sum()), "unsure": int((wrong & films.unsure).sum())}
        for name, wrong in kinds.items()
    }


def _warnings(
    scored: _Scored,
    summary: Mapping[str, Any],
    wanted: Sequence[ClassReference],
    truth: ClassReferences,
    record: TrainingRecord,
    hashes: Mapping[str, set[str]],
) -> list[str]:
    n = len(scored.rows)
    checks = (
        _warn_seen(summary["seen_in_training"]["cases"], n),
        f"The check for training cases may be wrong: {record.doubt}." if record.doubt else "",
        _warn_decision(summary["decision"], summary["bundle"]),
        _warn_patients(scored.pairs, wanted, truth),
        _warn_few(summary["n_by_class"]),
        _warn_missing(n, len(wanted)),
        _warn_section(summary["section"]),
        _warn_copies(hashes),
    )
    return [text for text in checks if text]


def _warn_seen(seen: Mapping[str, str], n: int) -> str:
    if not seen:
        return ""
    named = ", ".join(list(seen)[:10]) + (f" and {len(seen) - 10} more" if len(seen) > 10 else "")
    return (
        f"{len(seen)} of {n} scored films were among those the weights were trained on: {named}. "
        "The figures flatter the model; score films that it has not seen."
    )


def _warn_decision(decision: Mapping[str, Any], bundle: Mapping[str, Any]) -> str:
    own, used = decision.get("weights_sha256"), bundle.get("weights_sha256")
    if own and used and own != used:
        return "The bundle's threshold was chosen for other weights than those that made the predictions."
    return ""


def _warn_patients(
    pairs: Sequence[ClassPair], wanted: Sequence[ClassReference], truth: ClassReferences
) -> str:
    """Patients of scored films who also have films in another section of the list."""
    elsewhere = {film.patient for film in _others(truth, wanted) if film.patient}
    shared = sum(pair.reference.patient in elsewhere for pair in pairs if pair.reference.patient)
    if not shared:
        return ""
    return f"{shared} scored films are of patients who also have films in another section of the list."


def _warn_few(n_by_class: Mapping[str, int]) -> str:
    few = [f"{n} of {name}" for name, n in n_by_class.items() if n < FEW_FILMS]
    if not few:
        return ""
    named = ", ".join(few)
    return f"Fewer than {FEW_FILMS} films of a class ({named}): rough figures, and intervals that are too narrow."


def _warn_missing(n: int, wanted: int) -> str:
    if n >= wanted:
        return ""
    return f"{wanted - n} of {wanted} films of the section are not scored; the figures are those of the rest."


def _warn_section(section: str) -> str:
    if section == "test":
        return ""
    return f"Section {section!r} may have chosen the epoch or the threshold: its figures flatter the model."


def _warn_copies(hashes: Mapping[str, set[str]]) -> str:
    count = Counter(key for own in hashes.values() for key in own)
    copies = sum(any(count[key] > 1 for key in own) for own in hashes.values())
    return f"{copies} scored films have the same content as another scored film." if copies else ""


def _notices(
    summary: Mapping[str, Any], bundle: Path | None, subgroup_by: Sequence[str], log: bool
) -> list[str]:
    notices = [
        f"The references have no column {name!r}: no figures by it."
        for name in subgroup_by
        if name not in summary["subgroups"]
    ]
    if summary["section"] == "test" and bundle is None and log:
        notices.append("This evaluation is not logged, since no bundle is given.")
    if bundle is not None and (earlier := earlier_evaluations(bundle, summary["datalist"])):
        times = "time" if len(earlier) == 1 else "times"
        notices.append(
            f"The bundle's log has this list {len(earlier)} {times} already; a test set that is asked often begins to "
            "choose."
        )
    return notices


def _log(summary: Mapping[str, Any], bundle: Path, predictions: Path, references: Path) -> list[str]:
    about, metrics = summary["bundle"], summary["metrics"]
    names = [path.resolve().name for path in (predictions, references, bundle)]
    entry = TestEvaluation(
        bundle=names[2],
        version=about.get("version") or read_json(bundle / "configs" / "metadata.json").get("version"),
        weights_sha256=about.get("weights_sha256"),
        datalist=summary["datalist"],
        section=summary["section"],
        n=summary["num_scored"],
        auc=metrics["auc"]["value"],
        accuracy=metrics["accuracy"]["value"],
        command=f"medimg3d evaluate {names[0]} {names[1]} --bundle {names[2]} --section {summary['section']} "
        f"--seed {summary['settings']['seed']}",
    )
    try:
        path = log_test_evaluation(entry, bundle)
    except OSError as err:
        return [f"This evaluation could not be logged in the bundle ({type(err).__name__}); note it by hand."]
    return [f"Logged in {path}."]


def _write(
    out: Path,
    summary: dict[str, Any],
    scored: _Scored,
    seen: Mapping[str, str] | None,
    num_mistakes: int,
) -> dict[str, Path]:
    from medimg3d.report.classification_page import classification_page
    from medimg3d.workflows.classification_pictures import draw_pictures

    out.mkdir(parents=True, exist_ok=True)
    mistakes = _mistakes(scored, num_mistakes)
    columns = {
        name: [pair.reference.values.get(name, "") for pair in scored.pairs] for name in summary["subgroups"]
    }
    paths = {row.file: pair.reference.path for row, pair in zip(scored.rows, scored.pairs, strict=True)}
    pictures, not_drawn = draw_pictures(out, summary, scored.films, columns, mistakes, paths)
    summary["mistakes"] = [_mistake_as_json(row, scored.films.classes) for row in mistakes]
    summary["not_drawn"] = not_drawn
    return {
        "cases": write_film_table(scored.rows, scored.films.classes, seen, out / "cases.csv"),
        "summary": write_json(summary, out / "summary.json"),
        "page": classification_page(summary, pictures, out / "evaluation.html"),
        **pictures,
    }


def _mistakes(scored: _Scored, count: int) -> list[FilmRow]:
    """The wrong decisions with the highest probability of the decided class, the worst first."""
    classes = scored.films.classes
    wrong = [row for row in scored.rows if not row.correct]
    return sorted(wrong, key=lambda row: (-row.probabilities[classes.index(row.decision)], row.file))[:count]


def _mistake_as_json(row: FilmRow, classes: Sequence[str]) -> dict[str, Any]:
    return {
        "file": row.file,
        "truth": row.truth,
        "decision": row.decision,
        "probability": row.probabilities[classes.index(row.decision)],
        "unsure": row.unsure,
    }
