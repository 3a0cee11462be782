"""Sends new priorities to the replay service beside training.

What training leaves here waits on its device; the thread that sends it waits for the device instead. All that
has come meanwhile goes in one message, in which the newest batch wins.
"""

import threading
from collections import deque
from dataclasses import dataclass

import grpc
from torch import Tensor

from common import rpc
from common.background import Background, cancel, retrying
from common.errors import FatalError
from common.settings import RpcSettings
from protos import replay_pb2 as pb
from protos.replay_pb2_grpc import ReplayStub

MAX_WAITING_BATCHES = 64
"""While the service cannot be reached the oldest are forgotten: their episodes keep their priority."""
MAX_EPISODES = 8192
"""In one message."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PriorityStats:
    """What the updater has done since it was made."""

    sent: int
    """Episodes whose priorities the service has acknowledged."""
    forgotten: int
    """Batches that were given up because too many waited."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Batch:
    number: int
    indices_B: tuple[int, ...]
    priorities_B: Tensor


class PriorityUpdater:
    """update() never waits."""

    def __init__(self, channel: grpc.Channel, settings: RpcSettings, *, table: str) -> None:
        self._stub = ReplayStub(channel)
        self._settings = settings
        self._table = table
        self._closing = threading.Event()
        self._changed = threading.Condition()  # guards everything below
        self._waiting: deque[_Batch] = deque()
        self._call: grpc.Future[pb.UpdatePrioritiesResponse] | None = None
        self._sent = self._forgotten = 0
        self._thread = Background("priority-updater", self._run, on_end=self._wake)
        self._thread.start()

    def update(self, batch: int, indices_B: tuple[int, ...], priorities_B: Tensor) -> None:
        """Takes the priorities of batch number `batch`. Raises FatalError if the service refuses them."""
        self._thread.check()
        with self._changed:
            self._waiting.append(_Batch(number=batch, indices_B=indices_B, priorities_B=priorities_B))
            if len(self._waiting) > MAX_WAITING_BATCHES:
                self._waiting.popleft()
                self._forgotten += 1
            self._changed.notify_all()

    def stats(self) -> PriorityStats:
        """Figures since the start."""
        with self._changed:
            return PriorityStats(sent=self._sent, forgotten=self._forgotten)

    def close(self) -> None:
        """Gives up what has not been sent. May be called twice."""
        with self._changed:
            self._closing.set()
            self._changed.notify_all()
            call = self._call
        if call is not None:
            cancel(call)
        self._thread.join()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _run(self) -> None:
        retry = retrying(self._closing, "sending priorities", self._settings)
        try:
            while batches := self._take():
                request = self._request(batches)
                retry(self._send, request)
        except grpc.RpcError as error:
            address, why = self._settings.address, rpc.describe(error)
            raise FatalError(f"the replay service at {address} refuses priorities: {why}") from error

    def _take(self) -> list[_Batch]:
        """All that waits and fits into one message, as soon as anything does; nothing after close()."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing.is_set())
            taken: list[_Batch] = []
            while self._waiting and not self._closing.is_set():
                episodes = sum(len(batch.indices_B) for batch in (*taken, self._waiting[0]))
                if taken and episodes > MAX_EPISODES:
                    break
                taken.append(self._waiting.popleft())
            return taken

    def _request(self, batches: list[_Batch]) -> pb.UpdatePrioritiesRequest:
        priorities: dict[int, float] = {}
        for batch in batches:
            priorities.update(zip(batch.indices_B, batch.priorities_B.tolist(), strict=True))
        return pb.UpdatePrioritiesRequest(
            table=self._table,
            batch=batches[-1].number,
            indices=priorities.keys(),
            priorities=priorities.values(),
        )

    def _send(self, request: pb.UpdatePrioritiesRequest) -> None:
        with self._changed:
            if self._closing.is_set():
                return
            timeout = self._settings.unary_timeout_s
            self._call = call = self._stub.UpdatePriorities.future(request, timeout=timeout)
        try:
            call.result()
        except grpc.FutureCancelledError:
            return  # by close()
        with self._changed:
            self._sent += len(request.indices)
