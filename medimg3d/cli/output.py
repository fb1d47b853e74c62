"""What every command shares: its common options, consoles, tables and JSON output."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

EXIT_DONE, EXIT_FAILED, EXIT_USAGE, EXIT_REJECTS = 0, 1, 2, 3

JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on standard output, for machines.")
]
DebugOption = Annotated[bool, typer.Option("--debug", help="On an error, show the traceback.")]


def console() -> Console:
    """The console for results (standard output)."""
    from rich.console import Console

    return Console()


def errors_console() -> Console:
    """The console for messages, progress and errors (standard error)."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def print_json(result: Any) -> None:
    """Print one JSON object and nothing else on standard output; paths become strings."""
    print(json.dumps(result, indent=2, default=str))


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table; numbers should come formatted, None prints as an empty cell."""
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*("" if cell is None else str(cell) for cell in row))
    console().print(table)


def print_rejects(rejected: dict[str, str]) -> None:
    """Name each rejected input with its reason on standard error."""
    if rejected:
        out = errors_console()
        out.print(f"[bold yellow]{len(rejected)} rejected:[/]")
        for name, reason in rejected.items():
            out.print(f"  {name}: {reason}", markup=False, soft_wrap=True)


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """A bar with the time left on standard error; nothing where that is no terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = errors_console()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
