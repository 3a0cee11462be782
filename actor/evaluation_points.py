"""The evaluations that the replay service hands out: claimed, reported, counted."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import grpc

from common import rpc as rpc_factory
from common.background import retrying
from common.codec import evaluation_to_proto
from common.errors import FatalError
from common.lifecycle import StopSignal
from common.settings import RpcSettings
from common.types import Evaluation
from protos import replay_pb2 as pb
from protos.replay_pb2_grpc import ReplayStub

log = logging.getLogger(__name__)

CLAIM_WAIT_MS = 2_000

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluatorStats:
    """What an evaluator has done since it was started."""

    claimed: int
    reported: int
    episodes: int
    """Of the reported evaluations."""
    waited_s: float
    """Time without an evaluation to play."""


class EvaluationPoints:
    """The evaluations that the service hands out."""

    def __init__(self, channel: grpc.Channel, settings: RpcSettings, *, name: str, stop: StopSignal) -> None:
        self._stub = ReplayStub(channel)
        self._settings = settings
        self._name = name
        self._closing = threading.Event()
        self._retry = retrying(self._closing, "asking for evaluations", settings)
        self._claimed = self._reported = self._episodes = 0
        self._waited_s = 0.0
        stop.call_when_set(self._closing.set)

    def stats(self) -> EvaluatorStats:
        """Figures since the start."""
        return EvaluatorStats(
            claimed=self._claimed,
            reported=self._reported,
            episodes=self._episodes,
            waited_s=self._waited_s,
        )

    def claim(self) -> pb.ClaimEvaluationResponse | None:
        """Waits for the next one; None when the run is complete and all are reported, or at a stop."""
        while not self._closing.is_set():
            began = time.monotonic()
            claim = self._call(self._claim_once)
            self._waited_s += time.monotonic() - began
            if claim is None or claim.due:
                self._claimed += claim is not None
                return claim
            if claim.run_complete:
                return None
        return None

    def report(self, evaluation: Evaluation) -> None:
        """Sends a result; sending it again is harmless."""
        log.info(
            "at %d env steps: won %d of %d, return %.2f",
            evaluation.env_steps,
            evaluation.wins,
            evaluation.episodes,
            evaluation.mean_return,
        )
        request = pb.ReportEvaluationRequest(evaluation=evaluation_to_proto(evaluation))
        timeout_s = self._settings.unary_timeout_s
        if self._call(lambda: self._stub.ReportEvaluation(request, timeout=timeout_s)) is not None:
            self._reported += 1
            self._episodes += evaluation.episodes

    def _claim_once(self) -> pb.ClaimEvaluationResponse:
        request = pb.ClaimEvaluationRequest(evaluator=self._name, wait_ms=CLAIM_WAIT_MS)
        timeout_s = CLAIM_WAIT_MS / 1000 + self._settings.unary_timeout_s
        return self._stub.ClaimEvaluation(request, timeout=timeout_s)

    def _call(self, call: Callable[[], T]) -> T | None:
        try:
            return self._retry(call)
        except grpc.RpcError as error:
            raise FatalError(
                f"The replay service at {self._settings.address} refuses to hand out evaluations: "
                f"{rpc_factory.describe(error)}."
            ) from error
