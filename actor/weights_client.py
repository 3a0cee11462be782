"""The newest weights and counters, fetched beside play: a thread long-polls, play looks at `newest`."""

import threading
import time
from dataclasses import dataclass

import grpc

from common import rpc
from common.background import Background, cancel, retrying
from common.codec import counters_from_proto, weights_from_proto
from common.errors import FatalError
from common.lifecycle import StopSignal
from common.settings import RpcSettings
from common.types import Counters, Weights
from protos import replay_pb2 as pb
from protos.replay_pb2_grpc import ReplayStub

WAIT_MS = 2_000
"""Longest wait of one call. When no newer weights come it brings at least the counters this often."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightsStats:
    """What the client has fetched since it was made."""

    fetched: int
    """Times that newer weights came."""
    fetched_bytes: int
    version: int
    newest_version: int
    """That the learner had published at the last answer."""
    age_s: float
    """Since `version` came; since the client was made if none has come yet."""


class WeightsClient:
    """`newest` and `counters` are replaced whole, so the play loop reads them without waiting."""

    def __init__(
        self, channel: grpc.Channel, settings: RpcSettings, *, poll_s: float, stop: StopSignal
    ) -> None:
        self._stub = ReplayStub(channel)
        self._settings = settings
        self._poll_s = poll_s
        self.newest = Weights()
        """Version 0 until the learner has published."""
        self.counters = Counters()
        self._fetched = self._fetched_bytes = 0
        self._newest_since = time.monotonic()
        self._closing = threading.Event()
        self._lock = threading.Lock()  # between close() and the call that it cancels
        self._call: grpc.Future[pb.FetchWeightsResponse] | None = None
        self._retry = retrying(self._closing, "fetching weights", settings)
        self._thread: Background | None = None
        stop.call_when_set(self._interrupt)

    def start(self) -> None:
        """Keeps `newest` and `counters` fresh from now on."""
        self._thread = Background("weights-client", self._run, on_end=lambda: None)
        self._thread.start()

    def fetch(self, *, min_version: int = 0) -> bool:
        """Waits up to 2 s for newer weights, or for `min_version`; whether any came.

        Tries again while the service cannot be reached, until a stop. FatalError: it refuses to answer.
        """
        try:
            return bool(self._retry(self._fetch_once, min_version))
        except grpc.RpcError as error:
            raise FatalError(
                f"The replay service at {self._settings.address} refuses to send weights: "
                f"{rpc.describe(error)}."
            ) from error

    def check(self) -> None:
        """Raises what ended the thread, if anything did."""
        if self._thread is not None:
            self._thread.check()

    def stats(self) -> WeightsStats:
        """Figures since the start."""
        return WeightsStats(
            fetched=self._fetched,
            fetched_bytes=self._fetched_bytes,
            version=self.newest.version,
            newest_version=self.counters.weights_version,
            age_s=time.monotonic() - self._newest_since,
        )

    def close(self) -> None:
        """Ends the thread and the call that waits. May be called twice."""
        self._interrupt()
        if self._thread is not None:
            self._thread.join()

    def _interrupt(self) -> None:
        with self._lock:
            self._closing.set()
            if self._call is not None:
                cancel(self._call)

    def _run(self) -> None:
        while not self._closing.is_set():
            if self.fetch():
                self._closing.wait(self._poll_s)

    def _fetch_once(self, min_version: int) -> bool:
        request = pb.FetchWeightsRequest(
            have_session=self.newest.session,
            have_version=self.newest.version,
            min_version=min_version,
            wait_ms=WAIT_MS,
        )
        with self._lock:
            if self._closing.is_set():
                return False
            timeout_s = WAIT_MS / 1000 + self._settings.unary_timeout_s
            self._call = call = self._stub.FetchWeights.future(request, timeout=timeout_s)
        try:
            response = call.result()
        except grpc.FutureCancelledError:
            return False  # by close()
        self.counters = counters_from_proto(response.counters)
        if response.not_modified or not response.weights.data:
            return False
        self.newest = weights_from_proto(response.weights)
        self._newest_since = time.monotonic()
        self._fetched += 1
        self._fetched_bytes += len(self.newest.data)
        return True
