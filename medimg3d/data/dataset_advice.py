"""What a person should know of a data set before training on it: one line a finding, with its numbers.

Every function takes the summary that ``medimg3d explore`` writes as ``explore.json``, or a part of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from medimg3d.stats.proportion import wilson_interval

Level = Literal["warning", "note"]

EXAMPLE_SHARE = 0.9
TOO_WIDE = 0.10
WIDE = 0.05
IMBALANCE = 1.5
SHIFT = 0.05
SHORTCUT_AUC = 0.60
SHIFT_AUC = 0.70
SPACING_RATIO = 1.25
ANISOTROPY = 3.0
SIZE_RATIO = 1.5
FEW_LABELLED = 20


@dataclass(frozen=True)
class Advice:
    """One finding.

    Attributes:
        level: ``"warning"`` where figures would be wrong or misleading, else ``"note"``.
        text: The finding with its numbers, and what to do.
    """

    level: Level
    text: str


def advise(summary: Mapping[str, Any]) -> list[Advice]:
    """All findings, warnings first."""
    rules: Sequence[Callable[[Mapping[str, Any]], list[Advice]]] = (
        _files,
        _duplicates,
        _patients,
        _evidence,
        _balance,
        _class_shift,
        _shortcuts,
        _part_differences,
        _sizes,
        _spacings,
        _intensities,
        _structures,
    )
    found = [advice for rule in rules for advice in rule(summary)]
    return sorted(found, key=lambda advice: advice.level == "note")


def evidence(
    sections: Mapping[str, int], classes: Mapping[str, Mapping[str, int]], folds: Mapping[str, int]
) -> list[dict[str, Any]]:
    """What each part of a data set for classification can show: the interval of an accuracy of about 0.9.

    Args:
        sections: Section to number of cases.
        classes: Section to class to number of cases.
        folds: Fold to number of training cases.

    Returns:
        One entry a part that is scored: ``part``, ``n``, ``right`` (nine tenths of them), the 95 % interval of
        that share from ``low`` to ``high``; the same with ``class_`` in front for its smallest class,
        ``class_name``.
    """
    parts = {name: n for name, n in sections.items() if name != "training"}
    rows = [_evidence_of(name, n, classes.get(name, {})) for name, n in parts.items()]
    if folds:
        share = 1 / len(folds)
        of_fold = {name: round(n * share) for name, n in classes.get("training", {}).items()}
        rows.append(_evidence_of("one fold", min(folds.values()), of_fold))
    return rows


def _evidence_of(part: str, n: int, classes: Mapping[str, int]) -> dict[str, Any]:
    row: dict[str, Any] = {"part": part} | _example(n)
    there = {name: count for name, count in classes.items() if count and name != "(none)"}
    if len(there) > 1:
        name = min(there, key=lambda key: there[key])
        row |= {"class_name": name} | {f"class_{key}": value for key, value in _example(there[name]).items()}
    return row


def _example(n: int) -> dict[str, Any]:
    """Nine tenths of ``n`` cases right, and the 95 % interval of that share."""
    right = round(EXAMPLE_SHARE * n)
    low, high = wilson_interval(right, n) or (0.0, 1.0)
    return {"n": n, "right": right, "low": low, "high": high}


def _evidence(summary: Mapping[str, Any]) -> list[Advice]:
    if not summary["classes"]:
        return _evidence_for_labels(summary)
    found = []
    for row in summary["evidence"]:
        part, n, half = row["part"], row["n"], (row["high"] - row["low"]) / 2
        measured = f"{_right(row, '')} has a 95 % interval from {_range(row, '')} (Wilson)"
        name = _part_name(part)
        if half > TOO_WIDE:
            text = f"{name} has {n} cases: too few to decide anything. {measured}{_smallest(row)}."
            found.append(Advice("warning", text + _instead(part)))
        elif half > WIDE:
            found.append(Advice("note", f"{name} has {n} cases. {measured}{_smallest(row)}."))
        elif (row.get("class_high", 0) - row.get("class_low", 0)) / 2 > WIDE:
            text = f"{name} has {n} cases: {measured}{_smallest(row)}."
            found.append(Advice("note", text))
    return found


def _evidence_for_labels(summary: Mapping[str, Any]) -> list[Advice]:
    parts = {name: n for name, n in summary["sections"].items() if name != "training"}
    return [
        Advice(
            "note",
            f"{_part_name(name)} has {n} cases: differences between methods of less than a few hundredths of "
            "Dice cannot be told from chance there; give intervals.",
        )
        for name, n in parts.items()
        if n < FEW_LABELLED
    ]


def _part_name(part: str) -> str:
    return "One fold" if part == "one fold" else f"The {part} part"


def _smallest(row: Mapping[str, Any]) -> str:
    """The same of the smallest class, as the end of a sentence; empty where there is no class."""
    if "class_name" not in row:
        return ""
    return (
        f"; {row['class_n']} of them are {row['class_name']}, where {_right(row, 'class_')} means "
        f"{_range(row, 'class_')}"
    )


def _right(row: Mapping[str, Any], prefix: str) -> str:
    right, n = row[f"{prefix}right"], row[f"{prefix}n"]
    return f"{right} of {n} right ({_percent(right / n)} %)"


def _range(row: Mapping[str, Any], prefix: str) -> str:
    return f"{_percent(row[f'{prefix}low'])} to {_percent(row[f'{prefix}high'])} %"


def _instead(part: str) -> str:
    if part != "validation":
        return ""
    return (
        " Do not choose a threshold, an epoch or a model on it: hold out a part of the training list, "
        "by patient (medimg3d datalist makes such folds)."
    )


def _balance(summary: Mapping[str, Any]) -> list[Advice]:
    counts = _class_counts(summary, _main_section(summary))
    if len(counts) < 2 or max(counts.values()) < IMBALANCE * max(min(counts.values()), 1):
        return []
    total, largest = sum(counts.values()), max(counts, key=lambda name: counts[name])
    smallest = min(counts, key=lambda name: counts[name])
    share = _percent(counts[largest] / total)
    return [
        Advice(
            "warning",
            f"The classes are unbalanced: {largest} {counts[largest]:,}, {smallest} {counts[smallest]:,}. Always "
            f"saying {largest} is right in {share} %: judge by AUC, sensitivity and specificity rather than by "
            "accuracy, and weight the loss or the sampling.",
        )
    ]


def _class_shift(summary: Mapping[str, Any]) -> list[Advice]:
    from scipy.stats import chi2_contingency

    main = _main_section(summary)
    before = _class_counts(summary, main)
    found = []
    for section in summary["classes"]:
        now = _class_counts(summary, section)
        if section == main or not sum(now.values()) or not sum(before.values()):
            continue
        names = [name for name in before if before[name] + now.get(name, 0)]
        change = {name: _share(now, name) - _share(before, name) for name in names}
        most = max(change, key=lambda name: abs(change[name]), default="")
        if not most or abs(change[most]) < SHIFT or len(names) < 2:
            continue
        p = chi2_contingency([[part.get(name, 0) for name in names] for part in (before, now)])[1]
        if p < 0.05:
            text = (
                f"{most} is {_percent(_share(before, most))} % of {main} and {_percent(_share(now, most))} % of "
                f"{section} (chi-square p = {p:.2g}): probabilities and thresholds learnt on one mix are off on "
                "the other. Calibrate on a part that is mixed as in use."
            )
            found.append(Advice("warning", text))
    return found


def _shortcuts(summary: Mapping[str, Any]) -> list[Advice]:
    found = []
    for entry in summary["shortcuts"]["classes"]:
        strong = [one for one in entry["features"] if _low_strength(one) > SHORTCUT_AUC]
        if strong:
            listed = ", ".join(f"{one['feature']} {_strength(one):.2f}" for one in strong[:4])
            text = (
                f"Crude numbers that see no anatomy tell {entry['first']} from {entry['second']} (AUC): "
                f"{listed}.{_joint(entry.get('joint'))} A network can cheat by what is behind them: crop borders, "
                "bring all images to one size and scale, and look where it looks (heat maps)."
            )
            found.append(Advice("warning", text))
    return found


def _joint(joint: Mapping[str, Any] | None) -> str:
    if joint is None:
        return ""
    return (
        f" All of them together reach {joint['auc']:.2f} (95 % interval {joint['low']:.2f} to "
        f"{joint['high']:.2f}) on held-out images."
    )


def _part_differences(summary: Mapping[str, Any]) -> list[Advice]:
    found = []
    for entry in summary["shortcuts"]["sections"]:
        strong = [one for one in entry["features"] if _low_strength(one) > SHIFT_AUC]
        if strong:
            within = f"Within {entry['class_name']}, " if entry["class_name"] else ""
            listed = ", ".join(f"{one['feature']} {_strength(one):.2f}" for one in strong[:3])
            text = (
                f"{within}{entry['first']} and {entry['second']} differ in how the images were made (AUC): {listed}. "
                "Figures on one part need not hold on the other."
            )
            found.append(Advice("warning", text[0].upper() + text[1:]))
    return found


def _duplicates(summary: Mapping[str, Any]) -> list[Advice]:
    groups = summary["duplicates"]["groups"]
    found = []
    against = [group for group in groups if group["contradicts_itself"]]
    across = [group for group in groups if group["crosses_sections"]]
    if against:
        text = (
            f"{_groups(against)} with contradicting classes: at least one label of each is wrong. Mend them."
        )
        found.append(Advice("warning", text))
    if across:
        text = (
            f"{_groups(across)} in more than one of training, validation and test: results there will look "
            "too good. medimg3d datalist keeps the copy in test and rejects the other."
        )
        found.append(Advice("warning", text))
    rest = [group for group in groups if not group["contradicts_itself"] and not group["crosses_sections"]]
    if rest:
        text = (
            f"{_groups(rest)} within one part, under different names. medimg3d datalist keeps the first of "
            "each; else folds may share them."
        )
        found.append(Advice("note", text))
    return found


def _groups(groups: Sequence[Mapping[str, Any]]) -> str:
    files = sum(len(group["cases"]) for group in groups)
    return f"The same picture several times: {_plural(len(groups), 'group')} ({files} cases)"


def _patients(summary: Mapping[str, Any]) -> list[Advice]:
    patients, total = summary["patients"], sum(summary["sections"].values())
    found = []
    shared = patients["in_several_sections"]
    if shared:
        text = (
            f"{_plural(len(shared), 'patient')} in more than one of training, validation and test: results there "
            "will look too good. Move all images of a patient into one list."
        )
        found.append(Advice("warning", text))
    if patients["cases_with_patient"] < total:
        text = (
            f"The patient is known of {patients['cases_with_patient']:,} of {total:,} cases. If one person has "
            "several images, folds may share that person: give --patient-pattern to medimg3d datalist."
        )
        found.append(Advice("note", text))
    return found


def _files(summary: Mapping[str, Any]) -> list[Advice]:
    found = []
    if summary["unreadable"]:
        text = f"{_plural(len(summary['unreadable']), 'case')} cannot be used; the reasons are listed below."
        found.append(Advice("warning", text))
    if summary["not_in_a_case"]:
        text = f"{_plural(len(summary['not_in_a_case']), 'file')} of the folder in no case; listed below."
        found.append(Advice("note", text))
    return found


def _sizes(summary: Mapping[str, Any]) -> list[Advice]:
    found = []
    for called, image in _images_unlike(summary, "size", "sizes"):
        if len(image["dimensions"]) > 1:
            listed = " and ".join(f"{number}D" for number in image["dimensions"])
            found.append(Advice("warning", f"{called} are mixed {listed}: make one datalist for each."))
        if image["num_sizes"] > 1:
            low, high = image["size"]["min"], image["size"]["max"]
            text = (
                f"{called} have {image['num_sizes']:,} sizes, from {_times(low)} to {_times(high)}: bring "
                "them to one size or cut patches, and keep their proportions."
            )
            found.append(Advice("note", text))
        found += _sizes_of_parts(called, image["size_by_section"])
    return found


def _images_unlike(summary: Mapping[str, Any], *keys: str) -> list[tuple[str, Mapping[str, Any]]]:
    """The images of a case with what to call them; of images that agree in the keys the first, for all."""
    kinds: list[tuple[str, Mapping[str, Any]]] = []
    for word, image in summary["images"].items():
        if not any(all(image[key] == other[key] for key in keys) for _, other in kinds):
            kinds.append((word, image))
    return [("Images" if len(kinds) == 1 else f"{word}: images", image) for word, image in kinds]


def _sizes_of_parts(called: str, by_section: Mapping[str, Mapping[str, list[float]] | None]) -> list[Advice]:
    training = by_section.get("training")
    found = []
    for section, sizes in by_section.items():
        if section == "training" or not sizes or not training:
            continue
        ratios = [a / b for a, b in zip(sizes["median"], training["median"], strict=False)]
        if max(max(ratios), 1 / min(ratios)) > SIZE_RATIO:
            text = (
                f"{called} of {section} have another size than those of training (median "
                f"{_times(sizes['median'])} and {_times(training['median'])}): they went another way, and results "
                "there may not speak for the rest."
            )
            found.append(Advice("warning", text))
    return found


def _spacings(summary: Mapping[str, Any]) -> list[Advice]:
    found = []
    for called, image in _images_unlike(summary, "spacing_mm", "spacings_mm", "spacing_unknown"):
        unknown, spread = image["spacing_unknown"], image["spacing_mm"]
        if unknown:
            count = "None" if unknown == image["read"] else f"Only {image['read'] - unknown:,}"
            text = (
                f"{called}: {count.lower()} of {image['read']:,} files states a spacing; nothing can be "
                "measured in mm without."
            )
            found.append(Advice("note", text))
        if not spread:
            continue
        mixed = [
            f"{axis} {low:.3g} to {high:.3g} mm"
            for axis, low, high in zip("IJK", spread["min"], spread["max"], strict=False)
            if high > SPACING_RATIO * low
        ]
        if mixed:
            text = f"{called} have mixed spacings ({', '.join(mixed)}): resample to one before training."
            found.append(Advice("warning", text))
        if max(spread["median"]) > ANISOTROPY * min(spread["median"]):
            text = (
                f"{called} have long voxels (median {_times(spread['median'])} mm): do not pool or "
                "interpolate along the long axis as along the others."
            )
            found.append(Advice("note", text))
    return found


def _intensities(summary: Mapping[str, Any]) -> list[Advice]:
    found = []
    for word, image in summary["images"].items():
        if image["scales_differ"]:
            text = (
                f"{_called(word)} have no common scale of grey: the range from the 0.5th to the 99.5th percentile "
                f"is {_number(image['range']['min'])} to {_number(image['range']['max'])} wide. Normalise each by "
                "itself, unless the unit is fixed (CT in HU, PET in SUV)."
            )
            found.append(Advice("note", text))
        for key, what in (
            ("not_finite", "hold NaN or infinity"),
            ("constant", "show one value nearly everywhere"),
        ):
            if image[key]:
                count = _plural(len(image[key]), "image")
                text = f"{count} {what}, such as {image[key][0]}: leave them out or mend them."
                found.append(Advice("warning", text))
    return found


def _structures(summary: Mapping[str, Any]) -> list[Advice]:
    found = []
    for name, entry in summary["structures"].items():
        if entry["label"] and entry["cases"] < entry["of_cases"]:
            text = (
                f"{name} is marked in {entry['cases']:,} of {entry['of_cases']:,} label maps: where it is absent "
                "its Dice is undefined; see that it is absent, not forgotten."
            )
            found.append(Advice("note", text))
    return found


def _main_section(summary: Mapping[str, Any]) -> str:
    sections = summary["sections"]
    return "training" if "training" in sections else next(iter(sections), "")


def _class_counts(summary: Mapping[str, Any], section: str) -> dict[str, int]:
    counts = summary["classes"].get(section, {})
    return {name: count for name, count in counts.items() if name != "(none)"}


def _share(counts: Mapping[str, int], name: str) -> float:
    return counts.get(name, 0) / sum(counts.values())


def _strength(entry: Mapping[str, Any]) -> float:
    return max(entry["auc"], 1 - entry["auc"])


def _low_strength(entry: Mapping[str, Any]) -> float:
    """The end of the interval that is nearer to no separation."""
    return float(entry["low"]) if entry["auc"] >= 0.5 else 1.0 - float(entry["high"])


def _called(word: str) -> str:
    return "Images" if word == "image" else f"{word}: images"


def _percent(share: float) -> str:
    return f"{100 * share:.0f}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _plural(count: int, word: str) -> str:
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"


def _times(numbers: Sequence[float]) -> str:
    return " × ".join(f"{number:.4g}" for number in numbers)
