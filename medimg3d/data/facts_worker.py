"""Reads image facts in a process of its own: ``python -m medimg3d.data.facts_worker``.

One JSON line in (``[path, as_label]``), one out (``{"facts": ...}`` or ``{"problem": ...}``), until the input
ends. A plain child process instead of Python's process pool: the caller's script needs no ``__main__`` guard,
and a reader that crashes on a damaged file takes one file with it, not the check.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from medimg3d.data.image_facts import ImageFacts, read_facts
from medimg3d.errors import DataError, GeometryError


def facts_or_problem(path: Path, *, as_label: bool) -> ImageFacts | str:
    """The facts of a file, or why it has none; the text starts with a verb and holds no path."""
    try:
        return read_facts(path, as_label=as_label)
    except (DataError, GeometryError) as err:
        return str(err)
    except MemoryError:
        return "does not fit into the memory; expected a smaller image. Close other programs, or leave it out"


def main() -> None:
    """Answer line after line; Ctrl-C is the parent's to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)  # what a library prints must not stand among the answers
        for line in sys.stdin:
            path, as_label = json.loads(line)
            found = facts_or_problem(Path(path), as_label=as_label)
            answer = {"problem": found} if isinstance(found, str) else {"facts": found.as_json()}
            print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
