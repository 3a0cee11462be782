"""The local cluster: starts the processes of a run, watches them, shows them, and ends them in order.

    replay service -> (learner, actors, evaluator) -> all steps played, trained on and evaluated -> summary

Everything happens in one asyncio loop on the main thread; that matters because the kernel kills a child
when the *thread* that started it ends (see child.py).
"""

import asyncio
import contextlib
import os
import signal
import time
from collections import deque
from collections.abc import Awaitable

import grpc.aio

from common import rpc
from common.lifecycle import EXIT_KILLED_TWICE
from deploy.commands import process_specs
from deploy.run_dir import RunDir
from deploy.run_status import RunStatus
from deploy.settings import Config
from deploy.snapshot import Snapshot
from deploy.supervisor import Supervisor
from deploy.view import View

_EVENTS_SHOWN = 4
_ELAPSED_INTERVAL_S = 5.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Cluster:
    """One run, from its start or from where it was stopped, to its end or to the next stop."""

    def __init__(self, config: Config, run_dir: RunDir, view: View, *, address: str) -> None:
        self._config = config
        self._run_dir = run_dir
        self._view = view
        self._rpc = config.rpc.model_copy(update={"address": address})
        self._events: deque[str] = deque(maxlen=_EVENTS_SHOWN)
        self._supervisor = Supervisor(config.supervisor, run_dir.logs, self._note)
        self._stop = asyncio.Event()
        self._elapsed_saved_at = float("-inf")

    async def run(self) -> Snapshot | None:
        """The run's last state; None if the run was stopped before its end.

        Raises FatalError, with everything stopped, when a process had to be given up.
        """
        self._take_signals()
        async with rpc.aio_channel(self._rpc) as channel:
            status = RunStatus(channel, self._config, self._run_dir, self._run_dir.elapsed())
            last = None
            try:
                await self._start(status, channel)
                while not (self._stop.is_set() or self._supervisor.all_finished()):
                    await self._look(status, "training" if status.counters.env_steps else "starting")
                last = await self._last_look(status)
            finally:
                await self._end(status, "stopping" if last is None else "finished")
        return last

    async def _start(self, status: RunStatus, channel: grpc.aio.Channel) -> None:
        replay_spec, *others = process_specs(self._config, self._run_dir, status, address=self._rpc.address)
        replay = self._supervisor.start(replay_spec, must_not_fail=True)
        await self._wait_for(channel.channel_ready(), self._supervisor.task_of(replay))
        self._supervisor.raise_if_given_up()
        replay.must_not_fail = False
        for spec in others:
            if self._stop.is_set():
                return
            started = self._supervisor.task_of(self._supervisor.start(spec))
            while spec.others_wait and not (started.done() or self._stop.is_set()):
                await self._look(status, f"waiting for {spec.name}")

    async def _look(self, status: RunStatus, phase: str) -> Snapshot:
        """Shows the present state; returns after the interval, or as soon as a stop is asked for."""
        self._supervisor.raise_if_given_up()
        await status.refresh()
        snapshot = self._show(status, phase)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), self._config.supervisor.status_interval_s)
        return snapshot

    async def _last_look(self, status: RunStatus) -> Snapshot | None:
        """The state after all has been done; None after a stop."""
        while not self._stop.is_set():
            self._supervisor.raise_if_given_up()
            if await status.refresh():
                return self._show(status, "finished")
            # The service is being restarted: what it knows is in its storage.
            await self._look(status, "finishing")
        return None

    async def _end(self, status: RunStatus, phase: str) -> None:
        stopping = asyncio.ensure_future(self._supervisor.stop())
        while not stopping.done():
            self._show(status, phase)
            await asyncio.wait([stopping], timeout=self._config.supervisor.status_interval_s)
        stopping.result()
        self._save_elapsed(status)
        self._view.close()

    def _show(self, status: RunStatus, phase: str) -> Snapshot:
        snapshot = status.snapshot(phase, self._supervisor.processes, self._events)
        self._view.show(snapshot)
        if time.monotonic() - self._elapsed_saved_at > _ELAPSED_INTERVAL_S:
            self._save_elapsed(status)
        return snapshot

    def _save_elapsed(self, status: RunStatus) -> None:
        self._elapsed_saved_at = time.monotonic()
        self._run_dir.save_elapsed(status.elapsed(self._supervisor.processes))

    def _note(self, event: str) -> None:
        dated = f"{time.strftime('%T')} {event}"
        self._events.append(dated)
        self._view.note(event)
        with (self._run_dir.logs / "cluster.log").open("a", encoding="utf-8") as log:
            log.write(f"{dated}\n")

    async def _wait_for(self, ready: Awaitable[None], process: "asyncio.Task[None]") -> None:
        """Returns when it is ready, when the process has ended, or when a stop is asked for."""
        waits = [asyncio.ensure_future(ready), asyncio.create_task(self._wait_for_stop())]
        await asyncio.wait([*waits, process], return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()

    async def _wait_for_stop(self) -> None:
        await self._stop.wait()

    def _take_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._on_first_signal)

    def _on_first_signal(self) -> None:
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            # Not through the loop any more: the second one has to work whatever the loop is doing.
            loop.remove_signal_handler(number)
            signal.signal(number, lambda _number, _frame: self._on_second_signal())
        self._stop.set()
        self._note("stopping: everything is saved; another Ctrl-C ends at once")

    def _on_second_signal(self) -> None:
        self._supervisor.kill()
        self._view.close()
        os._exit(EXIT_KILLED_TWICE)
