"""The page that lists a classifier's decisions, the doubtful ones first, with heat maps where there are some."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medimg3d import __version__
from medimg3d.atomic import write_text


@dataclass(frozen=True)
class DecisionRow:
    """One classified image on the page.

    Attributes:
        file: Name of the image; must not name a patient.
        probability: Probability that is shown, 0 to 1.
        decision: Name of the decided class.
        unsure: A human should look at it.
        heat_map: Address of the heat map's picture relative to the page, or None.
    """

    file: str
    probability: float
    decision: str
    unsure: bool
    heat_map: str | None = None


def decisions_page(
    rows: Sequence[DecisionRow],
    *,
    of_class: str,
    rule: str,
    rejected: Mapping[str, str],
    bundle: str,
    out: Path,
) -> Path:
    """Write the page.

    Args:
        rows: Images in any order.
        of_class: What the probability is of.
        rule: One sentence: how a probability becomes a decision.
        rejected: File → reason.
        bundle: Name and version of the bundle.
        out: HTML file to write; whole or not at all.

    Returns:
        ``out``.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("medimg3d.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    page = environment.get_template("decisions.html").render(
        rows=sorted(rows, key=lambda row: (not row.unsure, -row.probability)),
        num_unsure=sum(row.unsure for row in rows),
        of_class=of_class,
        rule=rule,
        rejected=rejected,
        bundle=bundle,
        version=__version__,
        with_heat=any(row.heat_map for row in rows),
    )
    write_text(out, page)
    return out
