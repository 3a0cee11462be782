"""Trains the runs of an experiment, each by a `vdfd train` of its own, some at once.

All that is known is in the run directories, so the runner has nothing to save: killed at any moment and
started again, it skips what is done and goes on with what was begun. Its children die with it (child.py).
"""

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from common.lifecycle import EXIT_KILLED_TWICE
from deploy import child
from deploy.experiments.plan import PlannedRun, Progress
from deploy.experiments.progress import ProgressWatch, Status
from deploy.experiments.view import View
from deploy.formatting import duration
from deploy.supervisor import child_environment, describe_exit, log_tail

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# Every process of a run has the threads that its settings give it; libraries would take all cores for each.
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class Runner:
    """One start of an experiment, to its end or to the next stop."""

    def __init__(
        self, runs: Sequence[PlannedRun], logs: Path, view: View, *, jobs: int, interval_s: float
    ) -> None:
        self.failed: dict[str, str] = {}
        """Runs that could not be trained to their end, with the reason."""
        self.stopped = False
        self._runs = runs
        self._logs = logs
        self._view = view
        self._jobs = jobs
        self._interval_s = interval_s
        self._waiting = deque(run for run in runs if run.progress() is not Progress.DONE)
        self._running: dict[str, asyncio.subprocess.Process] = {}
        self._watch = ProgressWatch(runs)
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Returns when no run is left to begin and none is going on."""
        self._take_signals()
        self._logs.mkdir(parents=True, exist_ok=True)
        if finished := len(self._runs) - len(self._waiting):
            self._view.note(f"{finished} of {len(self._runs)} runs are done already")
        workers = [asyncio.create_task(self._work()) for _ in range(self._jobs)]
        try:
            while not all(worker.done() for worker in workers):
                self._view.show(self.status())
                await asyncio.wait(workers, timeout=self._interval_s)
            for worker in workers:
                worker.result()
        finally:
            self._view.show(self.status())
            self._view.close()

    def status(self) -> Status:
        """How far all of it is."""
        return self._watch.status(running=self._running, failed=self.failed)

    async def _work(self) -> None:
        while self._waiting and not self._stop.is_set():
            await self._train(self._waiting.popleft())

    async def _train(self, run: PlannedRun) -> None:
        begun_at, resumed = time.monotonic(), run.progress() is Progress.STARTED
        self._view.note(f"{run.name} {'goes on' if resumed else 'begins'}")
        log = self._logs / f"{run.name}.log"
        code = await self._run_child(run, _command(run), log)
        took = duration(time.monotonic() - begun_at)
        if run.progress() is Progress.DONE:
            self._view.note(f"{run.name} done in {took}")
        elif self._stop.is_set():
            self._view.note(f"{run.name} stopped; it goes on when the experiment is started again")
        else:
            self.failed[run.name] = f"{_reason(log, code)} (log: {log})"
            self._view.note(f"{run.name} failed after {took}: {self.failed[run.name]}")

    async def _run_child(self, run: PlannedRun, command: tuple[str, ...], log: Path) -> int:
        with log.open("ab") as output:
            output.write(f"--- {time.strftime('%F %T')} {' '.join(command)}\n".encode())
            output.flush()
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", child.__file__, str(os.getpid()), *command),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
                env=_ONE_THREAD | child_environment(),
                process_group=0,  # Ctrl-C in the terminal reaches the runner alone, which passes it on once
            )
        self._running[run.name] = process
        if self._stop.is_set():
            _interrupt(process)
        try:
            return await process.wait()
        finally:
            del self._running[run.name]

    def _take_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._on_signal)

    def _on_signal(self) -> None:
        """The first one asks all runs to save and end; the second one ends at once."""
        if self._stop.is_set():
            self._view.close()
            os._exit(EXIT_KILLED_TWICE)  # the kernel kills the runs
        self.stopped = True
        self._stop.set()
        self._view.note("stopping: every run is saved; another Ctrl-C ends at once")
        for process in self._running.values():
            _interrupt(process)


def _command(run: PlannedRun) -> tuple[str, ...]:
    train = (sys.executable, "-P", "-m", "deploy.cli", "train")
    if run.progress() is Progress.NEW:
        if run.left_by_early_death():
            shutil.rmtree(run.files.root)
        return (*train, *run.arguments)
    return (*train, "--resume", str(run.files.root), "--steps", str(run.env_steps))


def _reason(log: Path, code: int) -> str:
    said = [line for line in log_tail(log) if line.startswith("vdfd: ")]
    return said[-1].removeprefix("vdfd: ") if said else describe_exit(code)


def _interrupt(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):  # it ended by itself in the meantime
        process.send_signal(signal.SIGINT)
