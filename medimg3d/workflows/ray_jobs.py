"""Jobs spread over the machines of a Ray cluster: begun again where a machine dies, each failure named."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from medimg3d import __version__
from medimg3d.errors import Medimg3dError, MissingExtraError, UsageError
from medimg3d.workflows.jobs import Job

LOCAL = "local"
OBJECT_STORE_BYTES = 100_000_000  # only exit codes pass through it
GRACE_S = 30.0
"""Time that a cancelled job has to write what it finished, in s."""

_POLL_S = 0.2
_TAIL_BYTES = 4000
_TRY = "--- try on "
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_register_timeout_seconds": "180",  # a busy machine is slow, not broken
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TQDM_PATCH_PRINT": "0",
}
"""Environment of a local cluster and of the driver; what the user set stays."""

Say = Callable[[str], None]
Progress = Callable[[int, int], None]
"""Called with the number of things done and the number of all."""


class JobKilledError(RuntimeError):
    """A job's process was ended by a signal that nobody here sent (for example for want of memory): it is retried."""


class JobsFailedError(Medimg3dError):
    """No job came to its end."""


@dataclass(frozen=True)
class RayCluster:
    """Where jobs run, and what each asks for.

    Attributes:
        address: ``"local"`` for this machine alone, else what ``ray.init`` takes: ``"auto"``, ``"HOST:6379"``.
        cpus: Processors of a job; those of the smallest machine if None, divided by the jobs that its GPUs allow.
        gpus: GPUs of a job; if None one where the cluster has any, else none.
        retries: How often a job is begun again whose machine or process died.

    Raises:
        UsageError: A number is too small.
        MissingExtraError: Ray is not installed.
    """

    address: str = LOCAL
    cpus: int | None = None
    gpus: int | None = None
    retries: int = 3

    def __post_init__(self) -> None:
        for name, least in (("cpus", 1), ("gpus", 0), ("retries", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UsageError(f"{name} of a job is {value}; expected at least {least}.")
        if find_spec("ray") is None:
            raise MissingExtraError("ray", "ray")


@dataclass(frozen=True)
class Slots:
    """What a job gets, and how many fit at once.

    Attributes:
        cpus: Processors of a job.
        gpus: GPUs of a job.
        count: Jobs that the cluster runs at a time.
    """

    cpus: int
    gpus: int
    count: int


@dataclass(frozen=True)
class JobOutcome:
    """How a job ended.

    Attributes:
        name: The job's.
        machine: Where it ended; empty if it died.
        code: Exit code; None if its machine or process died more often than it may be begun again.
        reason: Why it failed, in one line; empty if it did not.
    """

    name: str
    machine: str = ""
    code: int | None = 0
    reason: str = ""

    @property
    def is_done(self) -> bool:
        """Whether it came to its end, perhaps with rejected inputs."""
        return not self.reason

    @property
    def has_died(self) -> bool:
        """Whether it was killed, again and again."""
        return self.code is None


class RayJobs:
    """A cluster that is connected to; made by :func:`ray_jobs`.

    Attributes:
        slots: What a job gets.
    """

    def __init__(self, ray: Any, cluster: RayCluster) -> None:
        self._ray = ray
        self._cluster = cluster
        self.slots = fit_slots([node["Resources"] for node in ray.nodes() if node["Alive"]], cluster)

    def run(
        self,
        jobs: Sequence[Job],
        logs: Path,
        *,
        retries: int | None = None,
        say: Say = lambda _: None,
        tick: Callable[[], None] = lambda: None,
    ) -> list[JobOutcome]:
        """Run all jobs; one that fails stops no other.

        A job whose machine or process dies is begun again, elsewhere if need be. On Ctrl-C the jobs are asked to
        stop and write what they finished.

        Args:
            jobs: What to run, with names that differ.
            logs: Folder that all machines see; gets ``<name>.log``, to which every try appends.
            retries: How often a dead job is begun again; the cluster's number if None.
            say: Called with a line as a job ends.
            tick: Called about every second.

        Returns:
            How each job ended, in their order.
        """
        logs.mkdir(parents=True, exist_ok=True)
        task = self._ray.remote(
            num_cpus=self.slots.cpus,
            num_gpus=self.slots.gpus,
            max_retries=self._cluster.retries if retries is None else retries,
            retry_exceptions=[JobKilledError],
            scheduling_strategy="SPREAD",
        )(_run_job)
        running = {
            task.remote(job.as_line(), str(log_file(logs, job)), self.slots.gpus, __version__): job
            for job in jobs
        }
        outcomes: dict[str, JobOutcome] = {}
        try:
            while len(outcomes) < len(jobs):
                waiting = [reference for reference, job in running.items() if job.name not in outcomes]
                ready, _ = self._ray.wait(waiting, timeout=1.0)
                for reference in ready:
                    outcome = self._outcome(reference, running[reference], logs)
                    outcomes[outcome.name] = outcome
                    say(_line(outcome, len(outcomes), len(jobs)))
                tick()
        except BaseException:
            self._cancel([reference for reference, job in running.items() if job.name not in outcomes])
            raise
        return [outcomes[job.name] for job in jobs]

    def _outcome(self, reference: Any, job: Job, logs: Path) -> JobOutcome:
        try:
            machine, code, tail = self._ray.get(reference)
        except JobKilledError as err:
            return JobOutcome(job.name, code=None, reason=f"{_first_line(err)}; log: {log_file(logs, job)}")
        except (
            self._ray.exceptions.RayTaskError
        ) as err:  # before the job began: no medimg3d there, no such folder
            return JobOutcome(job.name, code=1, reason=_last_line(str(err)))
        except self._ray.exceptions.RayError as err:
            reason = f"its machine or process died ({type(err).__name__}); log: {log_file(logs, job)}"
            return JobOutcome(job.name, code=None, reason=reason)
        reason = "" if code in (0, 3) else _failure(tail, code)
        return JobOutcome(job.name, machine, code, reason)

    def _cancel(self, references: Sequence[Any]) -> None:
        for reference in references:
            self._ray.cancel(reference)
        if references:
            self._ray.wait(list(references), num_returns=len(references), timeout=GRACE_S + 5)


@contextmanager
def ray_jobs(cluster: RayCluster) -> Iterator[RayJobs]:
    """Connect to a cluster, or start one on this machine, for the length of the block.

    A process that is connected already stays so. No statistics are sent, and a local cluster has no dashboard and
    listens on this machine alone.

    Raises:
        UsageError: There is no cluster at the address, or no machine of it has what a job asks for.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():
        yield RayJobs(ray, cluster)
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        if cluster.address == LOCAL:
            ray.init(
                "local",
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                _node_ip_address="127.0.0.1",
                **quiet,
            )
        else:
            _knock(cluster.address)
            ray.init(cluster.address, **quiet)
    except (OSError, ValueError, RuntimeError) as err:
        raise UsageError(
            f"No Ray cluster answers at {cluster.address} ({_first_line(err)}). "
            "Start one with `ray start --head`, or use --ray local."
        ) from err
    try:
        yield RayJobs(ray, cluster)
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Fail at once where nobody listens; Ray would wait for minutes.

    Raises:
        OSError: Nobody answers at ``HOST:PORT``.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


def fit_slots(machines: Sequence[Mapping[str, float]], cluster: RayCluster) -> Slots:
    """What a job gets on these machines.

    Args:
        machines: Resources of each machine (``CPU``, ``GPU``).
        cluster: What was asked for.

    Raises:
        UsageError: No machine has it.
    """
    has_gpus = any(machine.get("GPU", 0) >= 1 for machine in machines)
    gpus = int(has_gpus) if cluster.gpus is None else cluster.gpus
    cpus = cluster.cpus
    if cpus is None:
        used = [m for m in machines if m.get("CPU", 0) >= 1 and m.get("GPU", 0) >= gpus]
        shares = [int(m["CPU"]) // (int(m["GPU"]) // gpus if gpus else 1) for m in used]
        cpus = max(1, min(shares, default=1))
    count = sum(
        min(int(m.get("CPU", 0)) // cpus, int(m.get("GPU", 0)) // gpus if gpus else sys.maxsize)
        for m in machines
    )
    if not count:
        largest = max(((int(m.get("CPU", 0)), int(m.get("GPU", 0))) for m in machines), default=(0, 0))
        raise UsageError(
            f"A job asks for {cpus} CPUs and {gpus} GPUs, and no machine of the cluster has both (the largest: "
            f"{largest[0]} and {largest[1]}). Ask for less with --job-cpus and --job-gpus."
        )
    return Slots(cpus, gpus, count)


def log_file(logs: Path, job: Job) -> Path:
    """Where a job's output goes."""
    return logs / f"{re.sub(r'[^A-Za-z0-9_.=-]+', '_', job.name)}.log"


def _run_job(line: str, log: str, gpus: int, version: str) -> tuple[str, int, str]:
    """Run one job in a process of its own; this function runs on the machine that Ray chose.

    Returns:
        Machine, exit code, and the end of the output.

    Raises:
        RuntimeError: The machine has another medimg3d.
        JobKilledError: A signal ended the process.
    """
    machine = socket.gethostname()
    if version != __version__:
        raise RuntimeError(
            f"{machine} has medimg3d {__version__}, expected {version}; install the same there."
        )
    environment = os.environ | ({} if gpus else {"CUDA_VISIBLE_DEVICES": ""})
    with open(log, "ab") as output:
        output.write(f"{_TRY}{machine}, process {os.getpid()}\n".encode())
        output.flush()
        process = subprocess.Popen(
            [sys.executable, "-m", "medimg3d.workflows.job_process"],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
        code = _wait(process, line)
    if code < 0:
        raise JobKilledError(f"its process was ended by signal {-code} on {machine}")
    with open(log, "rb") as output:
        output.seek(max(0, os.path.getsize(log) - _TAIL_BYTES))
        return machine, code, output.read().decode(errors="replace")


def _wait(process: subprocess.Popen[bytes], line: str) -> int:
    """Hand the job over and wait for its end; where this process is cancelled or killed, the job ends too."""
    assert process.stdin is not None
    with process.stdin:  # closed at the end: see job_process
        try:
            process.stdin.write(line.encode())
            process.stdin.flush()
            while True:
                try:
                    return process.wait(_POLL_S)
                except subprocess.TimeoutExpired:
                    continue
        except BaseException:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                process.kill()
            raise


def _line(outcome: JobOutcome, number: int, total: int) -> str:
    fate = f"failed: {outcome.reason}" if outcome.reason else f"done on {outcome.machine}"
    return f"{outcome.name}: {fate} ({number} of {total})"


def _failure(tail: str, code: int) -> str:
    """The error's line of a command, else its last one."""
    lines = [line.strip() for line in tail.split(_TRY)[-1].splitlines()[1:] if line.strip()]
    errors = [line for line in lines if line.startswith("Error:")]
    return (errors or lines or [""])[-1].removeprefix("Error:").strip() or f"exit code {code}"


def _first_line(err: BaseException) -> str:
    cause = getattr(err, "cause", None)
    return (str(cause or err).strip().splitlines() or [type(err).__name__])[0]


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it failed"])[-1].strip()
