"""The ``medimg3d`` command: registers the subcommands and turns errors into one line and an exit code.

Exit codes: 0 done, 1 failed, 2 bad usage, 3 done with rejected inputs, 130 stopped by the user.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Annotated

import typer

from medimg3d import __version__
from medimg3d.cli.output import errors_console
from medimg3d.errors import Medimg3dError, in_one_line

# Module below medimg3d.cli → the names it registers, in the order of the job they belong to.
COMMAND_MODULES = (
    "datalist",
    "data",
    "explore",
    "plan",
    "train",
    "cross_validate",
    "experiments",
    "ensemble",
    "calibrate",
    "predict",
    "explain",
    "evaluate",
    "demo",
)

EXIT_STOPPED = 130

app = typer.Typer(
    name="medimg3d",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="From real medical images to trained, evaluated, shareable MONAI Bundles, and back.",
    epilog="Exit codes: 0 done, 1 failed, 2 bad usage, 3 done with rejected inputs. Research use only.",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"medimg3d {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Hold the options that stand before any command."""


for _module in COMMAND_MODULES:
    import_module(f"medimg3d.cli.{_module}").register(app)


def run(argv: list[str] | None = None) -> int:
    """Run the command line; the entry point of the ``medimg3d`` script.

    Args:
        argv: Arguments after the program's name; those of the process if None.

    Returns:
        Never when called as a script: it ends with ``sys.exit``.
    """
    arguments = sys.argv[1:] if argv is None else argv
    try:
        code = app(args=arguments, standalone_mode=False)
        if code == EXIT_STOPPED:  # typer's answer to Ctrl-C
            raise KeyboardInterrupt
        sys.exit(code if isinstance(code, int) else 0)
    except Medimg3dError as err:
        if "--debug" in arguments:
            raise
        errors_console().print(f"[bold red]Error:[/] {_escape(str(err))}", soft_wrap=True)
        sys.exit(err.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        hint = " Go on with --resume." if arguments[:1] == ["train"] else ""
        errors_console().print(f"Stopped. What was finished is kept.{hint}")
        sys.exit(EXIT_STOPPED)
    except Exception as err:
        usage_exit = getattr(err, "exit_code", None)  # click's own usage errors
        if usage_exit is not None and hasattr(err, "show"):
            err.show()
            sys.exit(usage_exit)
        if "--debug" in arguments:
            raise
        errors_console().print(f"[bold red]Error:[/] {_escape(in_one_line(err))}", soft_wrap=True)
        sys.exit(1)


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)


if __name__ == "__main__":
    run()
