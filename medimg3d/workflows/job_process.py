"""The process of one job: it does what the first line on standard input says, and ends when that input closes.

Whoever started it holds the other end: where that process is killed, the system closes the input, and no orphan goes
on writing beside the next try.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from importlib import import_module
from threading import Thread

from medimg3d.errors import Medimg3dError, in_one_line
from medimg3d.workflows.jobs import COMMAND_MODULE

STOPPED = 130


def main() -> int:
    """Read the job, do it, and return its exit code."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a parent in the background ignores it
    with open(0, "rb", buffering=0, closefd=False) as unbuffered:
        job = json.loads(unbuffered.readline())
    Thread(target=_end_with_the_starter, daemon=True).start()
    if job.get("words"):
        import_module(COMMAND_MODULE).run(job["words"])
        return 0
    module, _, function = job["call"].partition(":")
    try:
        getattr(import_module(module), function)(**job["arguments"])
    except Medimg3dError as err:
        print(f"Error: {err}", file=sys.stderr)  # noqa: T201 - goes to the job's log
        return err.exit_code
    except KeyboardInterrupt:
        return STOPPED
    except Exception as err:  # noqa: BLE001 - told in the log, and by the exit code
        traceback.print_exc()
        print(f"Error: {in_one_line(err)}", file=sys.stderr)  # noqa: T201 - goes to the job's log
        return 1
    return 0


def _end_with_the_starter() -> None:
    """Wait until standard input closes, then end this process and those that load for it."""
    while os.read(0, 1):
        pass
    if hasattr(os, "killpg") and os.getpgid(0) == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(STOPPED)


if __name__ == "__main__":
    sys.exit(main())
