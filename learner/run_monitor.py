"""Watches the run beside training: its counters for the log, and evaluations as they come in."""

import logging
import threading

import grpc

from common import rpc
from common.background import Background
from common.codec import evaluation_from_proto
from common.lifecycle import StopSignal
from common.settings import RpcSettings
from learner.recorder import Recorder
from protos import replay_pb2 as pb
from protos.replay_pb2_grpc import ReplayStub

log = logging.getLogger(__name__)

POLL_S = 2.0
"""Between two looks. The service never blocks on them."""


class RunMonitor:
    """Asks the service for its status and its evaluations, and records each evaluation once."""

    def __init__(self, channel: grpc.Channel, settings: RpcSettings, recorder: Recorder) -> None:
        self._stub = ReplayStub(channel)
        self._timeout_s = min(settings.unary_timeout_s, POLL_S)
        self._recorder = recorder
        self._changed = threading.Condition()  # guards everything below
        self._closing = False
        self._hurry = False
        self._begun, self._answered = 0, 0
        """How many looks have begun, and the number of the newest that was answered."""
        self._status = pb.GetStatusResponse()
        self._thread = Background("run-monitor", self._run, on_end=self._wake)
        self._thread.start()

    @property
    def status(self) -> pb.GetStatusResponse:
        """The newest status; empty before the first. Raises what has ended the monitor, if anything did."""
        self._thread.check()
        return self._status

    def wait_until_evaluated(self, stop: StopSignal) -> bool:
        """Waits until every evaluation that is due has been reported and recorded; false if told to stop."""
        stop.call_when_set(self._wake)
        with self._changed:
            before = self._begun  # an answer to an earlier question may be out of date
            self._hurry = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: stop.is_set() or self._thread.ended or self._all_evaluated(before))
            evaluated = self._all_evaluated(before)
        self._thread.check()
        return evaluated

    def close(self) -> None:
        """Ends the watch. May be called twice."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()

    def _all_evaluated(self, before: int) -> bool:
        return self._answered > before and self._status.evaluations_pending == 0

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _run(self) -> None:
        reachable = True
        while self._next_look():
            try:
                self._look()
                reachable = True
            except grpc.RpcError as error:
                # Nothing depends on one look: the next one sees all of it.
                if reachable:
                    log.warning("reading the run's status: %s; trying again", rpc.describe(error))
                reachable = False

    def _next_look(self) -> bool:
        """Waits for its time; false when closed."""
        with self._changed:
            if self._begun > 0:
                self._changed.wait_for(lambda: self._closing or self._hurry, POLL_S)
            self._begun += 1
            self._hurry = False
            return not self._closing

    def _look(self) -> None:
        # The status first: what it calls reported is then among the evaluations.
        status = self._stub.GetStatus(pb.GetStatusRequest(), timeout=self._timeout_s)
        listed = self._stub.ListEvaluations(pb.ListEvaluationsRequest(), timeout=self._timeout_s)
        for message in listed.evaluations:
            self._recorder.record_evaluation(evaluation_from_proto(message))
        with self._changed:
            self._status = status
            self._answered = self._begun
            self._changed.notify_all()
