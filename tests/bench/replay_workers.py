"""A system under measurement as a program: its processes start once, and work when a line of JSON says so.

Request, one line: {"kind": "insert" | "sample" | "both", "writers": 4, "mode": "steps", "seconds": 3}.
Answer, one line:  {"inserts_s": ..., "batches_s": ..., "cores": {"service": ..., "writers": ..., ...}}.
The program ends with its standard input. Needs nothing but the standard library and psutil.
"""

import json
import multiprocessing as mp
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol

import psutil

BATCH = 32
FILL_EPISODES = 256
EPISODES_PER_WRITER = 8
MAX_WRITERS = 4
SETTLE_S = 0.7
REST_S = 0.3
READY_TIMEOUT_S = 120.0
IDLE, QUIT = -1, -2

SPAWN = mp.get_context("spawn")


class Work(Protocol):
    """What one process does again and again."""

    def step(self, mode: int) -> None:
        """Inserts or takes something; may wait for room."""

    def done(self) -> int:
        """Inserts acknowledged, or batches in hand, since the start."""


class Worker:
    """A process that works while it is told to. `mode` is a number that only its work understands."""

    def __init__(self, make: Callable[..., Work], *args: object) -> None:
        self._mode, self._done = SPAWN.RawValue("i", IDLE), SPAWN.RawValue("q", 0)
        self._changed, self._ready = SPAWN.Condition(), SPAWN.Event()
        self._process = SPAWN.Process(target=self._work, args=(make, args), daemon=True)

    @property
    def done(self) -> int:
        """See Work."""
        return int(self._done.value)

    @property
    def pid(self) -> int:
        """Of the process."""
        assert self._process.pid is not None
        return self._process.pid

    def start(self) -> None:
        """Begins to get ready."""
        self._process.start()

    def await_ready(self) -> None:
        """Returns when its first step can begin."""
        if not self._ready.wait(READY_TIMEOUT_S):
            raise RuntimeError("a worker did not get ready")

    def tell(self, mode: int) -> None:
        """Has it work in that mode, rest (IDLE) or end (QUIT)."""
        with self._changed:
            self._mode.value = mode
            self._changed.notify_all()

    def end(self) -> None:
        """Ends the process."""
        self.tell(QUIT)
        self._process.join(5)
        self._process.kill()

    def _work(self, make: Callable[..., Work], args: tuple[object, ...]) -> None:
        work = make(*args)
        self._ready.set()
        while True:
            if self._mode.value == IDLE:
                with self._changed:
                    self._changed.wait_for(lambda: self._mode.value != IDLE)
            if self._mode.value == QUIT:
                return
            work.step(self._mode.value)
            self._done.value = work.done()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_process"}


def cpu_seconds(pids: list[int]) -> float:
    """Processor time of these processes so far."""
    return sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids)


def machine_busy_seconds() -> float:
    """Processor time of everything on this machine so far."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0))


def measure(
    workers: dict[str, tuple[list[Worker], int]], services: dict[str, list[int]], seconds: float
) -> dict[str, Any]:
    """Has "writers" and "samplers" work in their modes; what they and the service did in `seconds`."""
    for group, mode in workers.values():
        for worker in group:
            worker.tell(mode)
    time.sleep(SETTLE_S)
    pids = services | {name: [w.pid for w in group] for name, (group, _) in workers.items()}

    def snapshot() -> tuple[float, dict[str, int], dict[str, float]]:
        done = {name: sum(worker.done for worker in group) for name, (group, _) in workers.items()}
        cpu = {name: cpu_seconds(ids) for name, ids in pids.items()}
        return time.perf_counter(), done, cpu | {"machine": machine_busy_seconds()}

    began, done, cpu = snapshot()
    time.sleep(seconds)
    ended, done_then, cpu_then = snapshot()
    for group, _ in workers.values():
        for worker in group:
            worker.tell(IDLE)
    time.sleep(REST_S)
    took = ended - began
    rates = {name: (done_then[name] - done[name]) / took for name in done}
    cores = {name: round((cpu_then[name] - cpu[name]) / took, 2) for name in cpu}
    machine = cores.pop("machine")
    return {
        "inserts_s": rates["writers"],
        "batches_s": rates["samplers"],
        "cores": cores,
        "machine_cores": machine,
    }


def answer_requests(
    choose: Callable[[dict[str, Any]], dict[str, tuple[list[Worker], int]]], services: dict[str, list[int]]
) -> None:
    """Says that it is ready, then measures what each line asks for."""
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(measure(choose(request), services, request["seconds"])), flush=True)
