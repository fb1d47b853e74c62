"""Measure a classifier's decisions against the truth: figures with intervals, subgroups, mistakes, a page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medimg3d.data.class_pairs import ClassPairs, pair_up
from medimg3d.data.class_predictions import read_class_predictions
from medimg3d.data.class_references import (
    ClassReferences,
    check_section,
    find_class_references,
)
from medimg3d.data.json_file import write_json
from medimg3d.data.training_record import (
    RUN_FILE,
    TrainingRecord,
    find_training_record,
    read_json,
)
from medimg3d.errors import UsageError
from medimg3d.report.classification_summary import (
    Resampling,
)
from medimg3d.report.film_table import FilmRow, write_film_table
from medimg3d.workflows.classification_warnings import film_notices, film_warnings
from medimg3d.workflows.evaluation_log import TestEvaluation, log_test_evaluation
from medimg3d.workflows.film_figures import summarise_films
from medimg3d.workflows.held_against import held_against
from medimg3d.workflows.scored_films import (
    Progress,
    ScoredPairs,
    file_hashes,
    other_films,
    predicted_hashes,
    score_pairs,
    worst_mistakes,
)

NUM_MISTAKES = 12
DECISION_FILE = Path("models") / "decision.json"


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
    predicted_on = predicted_hashes(said)
    pairs = pair_up(said.rows, wanted, other_films(truth, wanted), hashes=predicted_on)
    if not pairs.pairs:
        raise UsageError(_nothing_matches(pairs, predictions, references))
    scored, wrong_class = score_pairs(pairs.pairs, said)
    rejected = {**pairs.unmatched, **wrong_class, **said.rejected}
    hashes = file_hashes(scored.pairs, predicted_on, progress)
    record = find_training_record(said.folder, bundle)
    seen = None if record.missing else _seen(record, hashes)
    how = Resampling(num_resamples, level, seed)
    summary = summarise_films(scored, how, subgroup_by)
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
    summary["warnings"] = film_warnings(scored, summary, wanted, truth, record, hashes)
    summary["notices"] = film_notices(summary, bundle, subgroup_by, log)
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


def _seen(record: TrainingRecord, hashes: Mapping[str, set[str]]) -> dict[str, str]:
    """Scored file → training case of the same content."""
    found = {file: record.seen(sorted(own)) for file, own in hashes.items()}
    return {file: name for file, name in found.items() if name}


def _about(record: TrainingRecord, folder: Path) -> dict[str, Any]:
    """The bundle, with the weights that made the predictions where ``run.json`` tells them."""
    told = read_json(folder / RUN_FILE).get("bundle") or {}
    weights = told.get("weights_sha256") or record.bundle.get("weights_sha256")
    return {**record.bundle, **({"weights_sha256": weights} if weights else {})}


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
    scored: ScoredPairs,
    seen: Mapping[str, str] | None,
    num_mistakes: int,
) -> dict[str, Path]:
    from medimg3d.report.classification_page import classification_page
    from medimg3d.workflows.classification_pictures import draw_pictures

    out.mkdir(parents=True, exist_ok=True)
    mistakes = worst_mistakes(scored, num_mistakes)
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


def _mistake_as_json(row: FilmRow, classes: Sequence[str]) -> dict[str, Any]:
    return {
        "file": row.file,
        "truth": row.truth,
        "decision": row.decision,
        "probability": row.probabilities[classes.index(row.decision)],
        "unsure": row.unsure,
    }
