"""Shows what a check of the data found; the options of commands that check before they train."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medimg3d.cli.output import errors_console, print_json, progress_bar

if TYPE_CHECKING:
    from medimg3d.data.checks import CheckReport
    from medimg3d.data.finding import Finding
    from medimg3d.workflows.data_check import CheckedList, DataCheck

CheckOption = Annotated[
    bool, typer.Option("--check/--no-check", help="Read and check every image and label before training.")
]
DropOption = Annotated[
    bool,
    typer.Option(
        "--drop-rejected", help="Train on the good cases where others cannot be used (exit code 3)."
    ),
]


def data_check(*, drop_rejected: bool, quiet: bool = False, facts_file: Path | None = None) -> DataCheck:
    """The check for a command: with a progress bar, and its findings shown once on standard error."""
    from medimg3d.workflows.data_check import DataCheck

    return DataCheck(
        drop_rejected=drop_rejected,
        facts_file=facts_file,
        progress=None if quiet else partial(progress_bar, "Checking the data"),
        show=None if quiet else _show_once(),
    )


@contextmanager
def refusal_as_json(*, as_json: bool) -> Iterator[None]:
    """With ``--json``, print what a refused check found on standard output before the error ends the command."""
    from medimg3d.workflows.data_check import RefusedDataError

    try:
        yield
    except RefusedDataError as err:
        if as_json:
            report, base = err.checked.report, err.checked.source.resolve().parent
            findings = [finding.as_json(base) for finding in report.findings]
            print_json({"refused": True, "rejected": report.rejected, "findings": findings})
        raise


def _show_once() -> Callable[[CheckedList], None]:
    """A fold after the first finds the same: show it once."""
    seen: list[CheckReport] = []

    def show(checked: CheckedList) -> None:
        if checked.report not in seen:
            seen.append(checked.report)
            print_findings(checked.report.findings, checked.source.resolve().parent)

    return show


def print_findings(findings: Sequence[Finding], base: Path | None = None) -> None:
    """A table of the findings on standard error; one line a finding where that is no terminal.

    Args:
        findings: What a check found, the severe ones first.
        base: Folder that paths are shown relative to.
    """
    from medimg3d.workflows.data_check import shown_findings

    if not findings:
        return
    from rich.table import Table
    from rich.text import Text

    console = errors_console()
    shown, rest = shown_findings(findings)
    if console.is_terminal:
        table = Table(title="What the check of the data found", title_justify="left")
        for column in ("", "file", "found", "expected", "what to do"):
            table.add_column(column, overflow="fold")
        for one in shown:
            mark = Text("rejected", "bold red") if one.severe else Text("look", "yellow")
            table.add_row(mark, *map(Text, (one.place(base), one.found, one.expected, one.cure)))
        console.print(table)
    else:
        for one in shown:
            word = "rejected" if one.severe else "look at"
            console.print(f"{word}: {one.line(base)}", markup=False, soft_wrap=True)
    for line in rest:
        console.print(f"  {line}", markup=False)
    rejected = {one.case for one in findings if one.severe}
    looked = {one.case for one in findings if one.case} - rejected
    console.print(f"Cases rejected: {len(rejected)}; accepted, but to look at: {len(looked)}.", markup=False)
