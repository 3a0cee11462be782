"""Greedy test episodes: the evaluator process, and the evaluation of given weights without a service."""

import contextlib
from collections.abc import Callable

import numpy as np
import torch

from actor.environment import Environment
from actor.evaluation_points import EvaluationPoints
from actor.joining import join_run
from actor.metrics import evaluator_figures
from actor.policy import Policy
from actor.registry import make_environment
from actor.rollout import Rollout
from actor.settings import ActorSettings, EnvSettings
from common import rpc as rpc_factory
from common.codec import weights_from_proto
from common.lifecycle import StopSignal
from common.metrics import serving_metrics
from common.settings import NO_METRICS, AgentSettings, MetricsSettings, RpcSettings
from common.types import EpisodeMeta, Evaluation, Weights

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
        if stop is not None:
            stop.call_when_set(environment.interrupt)
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
    metrics: MetricsSettings = NO_METRICS,
) -> None:
    """Plays every evaluation that falls due until the run is complete and none is left.

    An evaluation that is not over when `stop` is set is dropped; the service gives it out again.
    """
    torch.set_num_threads(settings.threads)
    with contextlib.ExitStack() as stack:
        environment = make_environment(env, copies=settings.copies, threads=settings.threads)
        stack.callback(environment.close)
        stop.call_when_set(environment.interrupt)
        channel = stack.enter_context(rpc_factory.channel(rpc))
        join_run(channel, environment.spec, rpc, stop=stop)
        points = EvaluationPoints(channel, rpc, name=name, stop=stop)
        stack.enter_context(serving_metrics(metrics, lambda: evaluator_figures(points.stats())))
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
