"""Errors that a person can act on.

Each message says what was found, what was expected and what to do, in one line, and never holds a
patient's name, ID or birth date. The command line prints the message alone; ``--debug`` adds the
traceback.
"""

from __future__ import annotations

import errno


class Medimg3dError(Exception):
    """Something the user can mend; the command line ends with exit code 1."""

    exit_code = 1


class UsageError(Medimg3dError):
    """The command was called wrongly (no such folder, nothing in it, a bad option); exit code 2."""

    exit_code = 2


class GeometryError(Medimg3dError):
    """An image has no geometry that can be trusted, or two grids that should agree do not."""


class DataError(Medimg3dError):
    """An image, label or datalist cannot be used."""


class BundleError(Medimg3dError):
    """A bundle lacks a file, a key or weights, or does not fit the data."""


class MissingExtraError(Medimg3dError):
    """An optional package is not installed.

    Args:
        package: Import name of the missing package.
        extra: Extra of medimg3d that brings it.
    """

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f'{package} is not installed; install it with: pip install "medimg3d[{extra}]"')


def root_cause(err: BaseException) -> BaseException:
    """The error that another one was raised from, and that one from another; MONAI wraps what a config raises.

    Args:
        err: What was caught.

    Returns:
        The first that a person can act on (a :class:`Medimg3dError`, an error of the system), else the innermost.
    """
    while err.__cause__ is not None and not isinstance(err, (Medimg3dError, OSError)):
        err = err.__cause__
    return err


def is_out_of_memory(err: BaseException) -> bool:
    """Whether Python, PyTorch on a CPU or PyTorch on a GPU found no memory for something.

    Args:
        err: What was raised. PyTorch's allocator on CPUs raises a plain ``RuntimeError``.
    """
    if isinstance(err, MemoryError) or type(err).__name__ == "OutOfMemoryError":
        return True
    return isinstance(err, RuntimeError) and "can't allocate memory" in str(err)


def in_one_line(err: Exception) -> str:
    """What a person is told of an error that is none of medimg3d's own.

    Args:
        err: What was caught.
    """
    if isinstance(err, OSError) and err.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full; nothing half-written was left. Free some space and run the command again."
    if isinstance(err, PermissionError):
        return f"no permission for {err.filename}; expected a folder that you may write to."
    if isinstance(err, (FileExistsError, NotADirectoryError)) and err.filename is not None:
        return f"{err.filename} is a file, or lies in one; expected a folder. Choose another one."
    return f"{type(err).__name__}: {err} (unexpected; run again with --debug for the traceback)"
