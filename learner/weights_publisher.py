"""Sends weights to the replay service beside training. Only the newest wait; newer ones replace them."""

import logging
import threading
from dataclasses import dataclass

import grpc

from common import rpc
from common.background import Background, cancel, retrying
from common.codec import weights_to_proto
from common.errors import FatalError
from common.settings import RpcSettings
from common.types import Weights
from protos import replay_pb2 as pb
from protos.replay_pb2_grpc import ReplayStub

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PublisherStats:
    """What the publisher has done since it was made."""

    published: int
    """Versions that the service has acknowledged."""
    superseded: int
    """Versions that newer ones replaced before they were sent."""
    version: int
    """The newest acknowledged version."""


class WeightsPublisher:
    """publish() never waits for the network; flush() does."""

    def __init__(self, channel: grpc.Channel, settings: RpcSettings) -> None:
        self._stub = ReplayStub(channel)
        self._settings = settings
        self._closing = threading.Event()
        self._changed = threading.Condition()  # guards everything below
        self._newest: Weights | None = None
        self._acknowledged: Weights | None = None
        self._call: grpc.Future[pb.PublishWeightsResponse] | None = None
        self._published, self._superseded = 0, 0
        self._thread = Background("weights-publisher", self._run, on_end=self._wake)
        self._thread.start()

    def publish(self, weights: Weights) -> None:
        """Makes these the weights to send. Raises FatalError if the service has refused earlier ones."""
        self._thread.check()
        with self._changed:
            self._superseded += self._pending()
            self._newest = weights
            self._changed.notify_all()

    def flush(self, timeout_s: float) -> bool:
        """Waits until the service has the newest weights; false when the time is over before that."""
        with self._changed:
            self._changed.wait_for(lambda: not self._pending() or self._thread.ended, timeout_s)
            flushed = not self._pending()
        self._thread.check()
        return flushed

    def stats(self) -> PublisherStats:
        """Figures since the start."""
        with self._changed:
            version = self._acknowledged.version if self._acknowledged is not None else 0
            return PublisherStats(published=self._published, superseded=self._superseded, version=version)

    def close(self) -> None:
        """Gives up what has not been sent. May be called twice."""
        with self._changed:
            self._closing.set()
            self._changed.notify_all()
            call = self._call
        if call is not None:
            cancel(call)
        self._thread.join()

    def _pending(self) -> bool:
        return self._newest is not self._acknowledged

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _run(self) -> None:
        retry = retrying(self._closing, "publishing weights", self._settings)
        try:
            while not self._closing.is_set():
                retry(self._send_newest)
        except grpc.RpcError as error:
            address, why = self._settings.address, rpc.describe(error)
            raise FatalError(f"the replay service at {address} refuses the weights: {why}") from error

    def _send_newest(self) -> None:
        """Waits for weights and sends them; after a failure the newest of that moment are sent."""
        with self._changed:
            self._changed.wait_for(lambda: self._pending() or self._closing.is_set())
            weights = self._newest
            if weights is None or self._closing.is_set():
                return
            request = pb.PublishWeightsRequest(weights=weights_to_proto(weights))
            timeout = self._settings.unary_timeout_s
            self._call = call = self._stub.PublishWeights.future(request, timeout=timeout)
        try:
            call.result()
        except grpc.FutureCancelledError:
            return  # by close()
        with self._changed:
            self._acknowledged = weights
            self._published += 1
            self._changed.notify_all()
