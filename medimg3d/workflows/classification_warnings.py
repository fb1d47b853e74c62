"""What the reader of a classifier's figures must know: doubts about them, and what was done besides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medimg3d.data.class_pairs import ClassPair
from medimg3d.data.class_references import ClassReference, ClassReferences
from medimg3d.data.training_record import TrainingRecord
from medimg3d.workflows.evaluation_log import earlier_evaluations
from medimg3d.workflows.scored_films import ScoredPairs, other_films

FEW_FILMS = 50


def film_warnings(
    scored: ScoredPairs,
    summary: Mapping[str, Any],
    wanted: Sequence[ClassReference],
    truth: ClassReferences,
    record: TrainingRecord,
    hashes: Mapping[str, set[str]],
) -> list[str]:
    """Reasons to doubt the figures.

    Args:
        scored: The films that were scored.
        summary: Their figures, with ``seen_in_training``, ``decision``, ``bundle`` and ``section``.
        wanted: References of the section asked for.
        truth: All references.
        record: What the weights were trained on.
        hashes: File → hashes of what was predicted on and of the listed film.
    """
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


def film_notices(
    summary: Mapping[str, Any], bundle: Path | None, subgroup_by: Sequence[str], log: bool
) -> list[str]:
    """What was left out or not logged, and how often this list was asked before."""
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
    elsewhere = {film.patient for film in other_films(truth, wanted) if film.patient}
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
