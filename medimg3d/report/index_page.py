"""The page that lists the cases of a prediction, with their volumes and links to their reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medimg3d import __version__
from medimg3d.atomic import write_text


@dataclass(frozen=True)
class IndexRow:
    """One predicted case on the page.

    Attributes:
        case: Name of the case; must not name a patient.
        volumes_ml: Volume of each structure in mL, in the order of the columns; None where not known.
        links: What to open → address relative to the page.
        note: What a reader should know of this case.
    """

    case: str
    volumes_ml: tuple[float | None, ...] = ()
    links: Mapping[str, str] = field(default_factory=dict)
    note: str = ""


def index_page(
    rows: Sequence[IndexRow],
    *,
    structures: Sequence[str],
    rejected: Mapping[str, str],
    bundle: str,
    out: Path,
) -> Path:
    """Write the page.

    Args:
        rows: Cases in their order.
        structures: Names of the volumes' columns.
        rejected: File → reason.
        bundle: Name and version of the bundle.
        out: HTML file to write; whole or not at all.

    Returns:
        ``out``.

    Raises:
        ValueError: A row has another number of volumes than there are structures.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    for row in rows:
        if len(row.volumes_ml) != len(structures):
            raise ValueError(f"Found {len(row.volumes_ml)} volumes for {len(structures)} structures.")
    environment = Environment(
        loader=PackageLoader("medimg3d.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    page = environment.get_template("index.html").render(
        rows=rows,
        structures=structures,
        rejected=rejected,
        bundle=bundle,
        version=__version__,
        with_notes=any(row.note for row in rows),
        with_links=any(row.links for row in rows),
    )
    write_text(out, page)
    return out
