"""What a training asks of a datalist beyond what a plan needs: asked before an hour is spent on the plan."""

from __future__ import annotations

import json

from medimg3d.data.datalist import Datalist
from medimg3d.errors import DataError
from medimg3d.planning.data_facts import DataFacts
from medimg3d.planning.plan import Plan


def refuse_several_channels(facts: DataFacts) -> None:
    """Refuse images of several channels, or named ones, for a classification.

    Raises:
        DataError: The images are not one path a case under ``image``, of one channel.
    """
    if len(facts.channels) == 1 and not facts.named:
        return
    count = len(facts.channels)
    names = ", ".join(channel.name for channel in facts.channels)
    where = ' under "images"' if facts.named else ""
    raise DataError(
        f"The cases have {count} channel{'s' if count > 1 else ''}{where} ({names}); expected one a case, as a path "
        'under "image", since a classifier takes images of one channel. Write the one to learn from there; of a 4D '
        "file, save it as a volume of its own."
    )


def refuse_untrainable(plan: Plan, datalist: Datalist) -> None:
    """Refuse a datalist whose names a training would not find, or would take for others.

    Args:
        plan: The draft.
        datalist: What it was made from.

    Raises:
        DataError: Label values without a name, classes without names, or a class without a training case.
    """
    if plan.scheme is not None:
        unnamed = [value for value in plan.scheme.labels if value not in datalist.labels]
        if unnamed:
            line = json.dumps({str(value): name for value, name in plan.scheme.labels.items()})
            raise DataError(
                f'"labels" of the datalist has no name for {", ".join(map(str, unnamed))}; expected one for each value '
                f'of the label maps. Write "labels": {line} into it, with names of yours.'
            )
        return
    if not datalist.classes:
        raise DataError(
            'The datalist has no "classes"; expected the names of the classes in the order of their index. Write '
            f'"classes": {json.dumps(_class_names(datalist))} into it, with names of yours where these are numbers.'
        )
    empty = [name for name in datalist.classes if not plan.facts.class_counts.get(name)]
    if empty:
        raise DataError(
            f'Class "{empty[0]}" has no training case; expected some of each class. Add cases of it, or take it out of '
            '"classes" (where "class_label" is a number, the numbers above it become one less).'
        )


def _class_names(datalist: Datalist) -> list[str]:
    """Names to begin with: those of the cases; ``class 0``, ``class 1``, … where they hold numbers."""
    found = {case.class_label for case in datalist.training if case.class_label is not None}
    numbers = [label for label in found if isinstance(label, int)]
    if numbers:
        return [f"class {number}" for number in range(max(numbers) + 1)]
    return sorted(map(str, found))
