"""Keeps a set of child processes running: restarts what dies, and stops all in order.

Each child has its own process group, so that Ctrl-C in the terminal reaches the launcher alone and
so that whatever a killed child leaves behind (a Redis server) can be killed with it.
"""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from common.errors import EXIT_BAD_INPUT, EXIT_FAILURE, FatalError
from deploy import child
from deploy.settings import ENVIRONMENT_PREFIX, SupervisorSettings

_LOG_TAIL_LINES = 12
_LOG_TAIL_BYTES = 16 * 1024


class State(StrEnum):
    """What the supervisor knows of a process."""

    RUNNING = "running"
    WAITING = "restarting"
    STOPPING = "stopping"
    FINISHED = "finished"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class ProcessSpec:
    """One process to keep running."""

    name: str
    """Unique; its log is NAME.log."""
    command: tuple[str, ...]
    stop_order: int
    """Processes of a lower number are stopped before those of a higher one."""
    stop_timeout_s: float
    """From SIGTERM to SIGKILL."""
    others_wait: bool = False
    """The processes after it are started when it has finished."""
    is_done: Callable[[], Awaitable[bool]] | None = None
    """Asked after exit code 0: true if there is no more for it to do. None: it never ends by itself."""


class Process:
    """One supervised process: its present child, its state and its restarts."""

    def __init__(
        self, spec: ProcessSpec, settings: SupervisorSettings, log: Path, report: Callable[[str], None]
    ) -> None:
        self.spec = spec
        self.log = log
        self.state = State.RUNNING
        self.restarts = 0
        self.pid: int | None = None
        self.started_at = time.monotonic()
        self.must_not_fail = False
        """True: the first failure is final."""
        self._settings = settings
        self._report = report
        self._failures = 0
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Keeps the child running until it is done or stopped; FatalError when it is given up."""
        while not self._stop.is_set():
            code = await self._run_once()
            if self._stop.is_set():
                break
            if code == 0 and self.spec.is_done is not None and await self.spec.is_done():
                self.state = State.FINISHED
                return
            await self._wait_before_restart(code)
        self.state = State.STOPPED

    async def stop(self, task: asyncio.Task[None]) -> None:
        """SIGTERM, then SIGKILL when the time is over; returns when `task`, which runs `run`, has ended."""
        self._stop.set()
        if self.pid is not None:
            self.state = State.STOPPING
            _signal(os.kill, self.pid, signal.SIGTERM)
        done, _ = await asyncio.wait([task], timeout=self.spec.stop_timeout_s)
        if not done:
            self._report(f"{self.spec.name} did not end within {self.spec.stop_timeout_s:g} s and was killed")
            self.kill()
            await asyncio.wait([task])

    def kill(self) -> None:
        """SIGKILL to the child and everything that it started."""
        if self.pid is not None:
            _signal(os.killpg, self.pid, signal.SIGKILL)

    async def _run_once(self) -> int:
        with self.log.open("ab") as log:
            log.write(f"--- {time.strftime('%F %T')} start {self.restarts + 1}\n".encode())
            log.flush()
            running = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", child.__file__, str(os.getpid()), *self.spec.command),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=asyncio.subprocess.STDOUT,
                env=child_environment(),
                process_group=0,
            )
        self.pid, self.started_at, self.state = running.pid, time.monotonic(), State.RUNNING
        if self._stop.is_set():
            _signal(os.kill, running.pid, signal.SIGTERM)
        code = await running.wait()
        self.kill()
        self.pid = None
        return code

    async def _wait_before_restart(self, code: int) -> None:
        lived_s = time.monotonic() - self.started_at
        self._failures = 1 if lived_s >= self._settings.healthy_after_s else self._failures + 1
        limit = 1 if self.must_not_fail else self._settings.max_failures
        if code == EXIT_BAD_INPUT or self._failures >= limit:
            self.state = State.FAILED
            raise FatalError(
                self._why_given_up(code), code=EXIT_BAD_INPUT if code == EXIT_BAD_INPUT else EXIT_FAILURE
            )
        longest = self._settings.restart_delay_max_s
        delay_s = min(longest, self._settings.restart_delay_s * 2 ** (self._failures - 1))
        self.state = State.WAITING
        self._report(f"{self.spec.name} ended ({describe_exit(code)}); it is started again in {delay_s:g} s")
        try:
            await asyncio.wait_for(self._stop.wait(), delay_s)
        except TimeoutError:
            self.restarts += 1

    def _why_given_up(self, code: int) -> str:
        lines = log_tail(self.log)
        times = "" if self._failures == 1 else f" {self._failures} times in a row"
        if lines and lines[-1].startswith("vdfd: "):
            return f"{self.spec.name} failed{times}: {lines[-1].removeprefix('vdfd: ')}"
        tail = "".join(f"\n  {line}" for line in lines)
        return (
            f"{self.spec.name} failed{times} ({describe_exit(code)}); the end of {self.log} says why:{tail}"
        )


class Supervisor:
    """All processes of a local cluster."""

    def __init__(self, settings: SupervisorSettings, logs: Path, report: Callable[[str], None]) -> None:
        self._settings = settings
        self._logs = logs
        self._report = report
        self._tasks: dict[Process, asyncio.Task[None]] = {}

    @property
    def processes(self) -> list[Process]:
        """In the order in which they were started."""
        return list(self._tasks)

    @property
    def restarts(self) -> int:
        """Of all processes together."""
        return sum(process.restarts for process in self._tasks)

    def start(self, spec: ProcessSpec, *, must_not_fail: bool = False) -> Process:
        """Starts a process and keeps it running; with `must_not_fail` its first failure is final."""
        process = Process(spec, self._settings, self._logs / f"{spec.name}.log", self._report)
        process.must_not_fail = must_not_fail
        self._tasks[process] = asyncio.create_task(process.run(), name=spec.name)
        return process

    def task_of(self, process: Process) -> asyncio.Task[None]:
        """The task that keeps a process running; it ends with the process."""
        return self._tasks[process]

    def raise_if_given_up(self) -> None:
        """Raises the FatalError of a process that failed too often."""
        for task in self._tasks.values():
            if task.done():
                task.result()

    def all_finished(self) -> bool:
        """Whether every process that can be done is."""
        ending = [process for process in self._tasks if process.spec.is_done is not None]
        return bool(ending) and all(process.state is State.FINISHED for process in ending)

    async def stop(self) -> None:
        """Stops what runs, in the order of `stop_order`; can be called twice."""
        for order in sorted({process.spec.stop_order for process in self._tasks}):
            stopping = [
                process.stop(task)
                for process, task in self._tasks.items()
                if process.spec.stop_order == order and not task.done()
            ]
            await asyncio.gather(*stopping)

    def kill(self) -> None:
        """SIGKILL to everything, at once."""
        for process in self._tasks:
            process.kill()


def child_environment() -> dict[str, str]:
    """This process's environment without the configuration in it: children get theirs as a file."""
    return {name: value for name, value in os.environ.items() if not name.startswith(ENVIRONMENT_PREFIX)}


def describe_exit(code: int) -> str:
    """An exit code in words."""
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def log_tail(log: Path) -> list[str]:
    """The last lines of a log."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _LOG_TAIL_BYTES))
        return file.read().decode(errors="replace").splitlines()[-_LOG_TAIL_LINES:]


def _signal(send: Callable[[int, int], None], pid: int, number: int) -> None:
    try:
        send(pid, number)
    except ProcessLookupError:
        return  # it ended by itself in the meantime
