"""Greedy test episodes: the evaluator process, and the evaluation of given weights without a service."""

import contextlib
import logging
import threading
from collections.abc import Callable
from typing import TypeVar

import grpc
import numpy as np
import torch

from actor.environment import Environment
from actor.joining import join_run
from actor.policy import Policy
from actor.registry import make_environment
from actor.rollout import Rollout
from actor.settings import ActorSettings, EnvSettings
from common import rpc as rpc_factory
from common.background import retrying
from common.codec import evaluation_to_proto, weights_from_proto
from common.errors import FatalError
from common.lifecycle import StopSignal
from common.settings import AgentSettings, RpcSettings
from common.types import EpisodeMeta, Evaluation, Weights
from protos import replay_pb2 as pb
from protos.replay_pb2_grpc import ReplayStub

log = logging.getLogger(__name__)

CLAIM_WAIT_MS = 2_000

T = TypeVar("T")

Progress = Callable[[list[EpisodeMeta]], None]
"""Called with all episodes that are over, whenever some more are."""


def evaluate_weights(
    *,
    env: EnvSettings,
    settings: ActorSettings,
    agent: AgentSettings,
    weights: Weights,
    episodes: int,
    seed: int,
    env_steps: int = 0,
    progress: Progress = lambda _metas: None,
    stop: StopSignal | None = None,
) -> Evaluation | None:
    """Plays `episodes` greedy episodes with `weights`; None if `stop` was set before they were over.

    Equal seeds give equal battles. `env_steps` is only handed through. Raises FatalError if the weights do
    not fit the environment and the agent settings, BadInputError if there is no such environment.
    """
    torch.set_num_threads(settings.threads)
    copies = min(settings.copies, episodes)
    with contextlib.closing(make_environment(env, copies=copies, threads=settings.threads)) as environment:
        policy = Policy(environment.spec, agent, seed=seed)
        policy.load(weights)
        metas = play_greedy(
            environment, policy, episodes=episodes, seeds=(seed, env_steps), progress=progress, stop=stop
        )
    return summarise(metas, env_steps=env_steps, version=weights.version) if metas else None


def run_evaluator(
    *,
    name: str,
    env: EnvSettings,
    settings: ActorSettings,
    agent: AgentSettings,
    rpc: RpcSettings,
    seed: int,
    stop: StopSignal,
) -> None:
    """Plays every evaluation that falls due until the run is complete and none is left.

    An evaluation that is not over when `stop` is set is dropped; the service gives it out again.
    """
    torch.set_num_threads(settings.threads)
    with contextlib.ExitStack() as stack:
        environment = make_environment(env, copies=settings.copies, threads=settings.threads)
        stack.callback(environment.close)
        channel = stack.enter_context(rpc_factory.channel(rpc))
        join_run(channel, environment.spec, rpc, stop=stop)
        points = EvaluationPoints(channel, rpc, name=name, stop=stop)
        policy = Policy(environment.spec, agent, seed=seed)
        while (claim := points.claim()) is not None:
            policy.load(weights_from_proto(claim.weights))
            metas = play_greedy(
                environment, policy, episodes=claim.episodes, seeds=(seed, claim.env_steps), stop=stop
            )
            if metas:
                points.report(summarise(metas, env_steps=claim.env_steps, version=policy.weights.version))


def play_greedy(
    environment: Environment,
    policy: Policy,
    *,
    episodes: int,
    seeds: tuple[int, ...],
    progress: Progress = lambda _metas: None,
    stop: StopSignal | None = None,
) -> list[EpisodeMeta]:
    """The first `episodes` episodes that were begun, in all copies together; none if `stop` was set.

    It is these and not the first that ended: counting those would favour short episodes.
    """
    rollout = Rollout(environment, policy, actor="evaluator", session="evaluation", seeds=seeds)
    metas = list[EpisodeMeta]()
    while len(metas) < episodes:
        if stop is not None and stop.is_set():
            return []
        over = [done.episode.meta for done in rollout.step(epsilon=0.0) if done.start < episodes]
        if over:
            metas.extend(over)
            progress(metas)
    return metas


def summarise(metas: list[EpisodeMeta], *, env_steps: int, version: int) -> Evaluation:
    """Counts and means of test episodes."""
    return Evaluation(
        env_steps=env_steps,
        weights_version=version,
        episodes=len(metas),
        wins=sum(meta.won for meta in metas),
        mean_return=float(np.mean([meta.episode_return for meta in metas])),
        mean_length=float(np.mean([meta.length for meta in metas])),
    )


class EvaluationPoints:
    """The evaluations that the service hands out."""

    def __init__(self, channel: grpc.Channel, settings: RpcSettings, *, name: str, stop: StopSignal) -> None:
        self._stub = ReplayStub(channel)
        self._settings = settings
        self._name = name
        self._closing = threading.Event()
        self._retry = retrying(self._closing, "asking for evaluations")
        stop.call_when_set(self._closing.set)

    def claim(self) -> pb.ClaimEvaluationResponse | None:
        """Waits for the next one; None when the run is complete and all are reported, or at a stop."""
        while not self._closing.is_set():
            claim = self._call(self._claim_once)
            if claim is None or claim.due:
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
        self._call(lambda: self._stub.ReportEvaluation(request, timeout=timeout_s))

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
