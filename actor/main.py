"""The actor process: plays with the newest weights and sends every whole episode to the replay service."""

import contextlib
import logging
import uuid
import zlib

import torch

from actor.environment import episode_seed
from actor.joining import join_run
from actor.metrics import actor_figures
from actor.play_log import PlayLog
from actor.policy import Policy
from actor.registry import check_environment, make_environment
from actor.replay_writer import ReplayWriter
from actor.rollout import Rollout
from actor.settings import ActorSettings, EnvSettings
from actor.weights_client import WeightsClient
from common import rpc as rpc_factory
from common.errors import BadInputError, FatalError
from common.exploration import epsilon_at
from common.lifecycle import StopSignal
from common.metrics import serving_metrics
from common.settings import NO_METRICS, AgentSettings, MetricsSettings, RpcSettings
from common.types import MAX_NAME_CHARACTERS, Counters

log = logging.getLogger(__name__)

STOP_CHECK_S = 0.5


def run_actor(
    *,
    name: str,
    env: EnvSettings,
    settings: ActorSettings,
    agent: AgentSettings,
    rpc: RpcSettings,
    seed: int,
    batch_size: int,
    stop: StopSignal,
    metrics: MetricsSettings = NO_METRICS,
) -> None:
    """Plays until the run is complete or `stop` is set; then returns with all finished episodes acknowledged.

    Lost are the episodes that are not over when `stop` is set, and finished ones that the service has not let
    in within `drain_timeout_s`: a warning counts these. Raises FatalError when it cannot go on, with the same
    losses; but if the service refuses our episodes, with all that was not acknowledged. BadInputError, before
    anything is asked of the service: no such environment, or a setting or `name` that cannot be.
    """
    if not 1 <= len(name) <= MAX_NAME_CHARACTERS:
        raise BadInputError(
            f'Set --name: it has 1 to {MAX_NAME_CHARACTERS} characters, and "{name}" has {len(name)}.'
        )
    check_environment(env)
    if settings.lockstep and settings.copies != 1:
        raise BadInputError(f"actor.lockstep needs actor.copies=1, not {settings.copies}.")
    torch.set_num_threads(settings.threads)
    with contextlib.ExitStack() as stack:
        environment = make_environment(env, copies=settings.copies, threads=settings.threads)
        stack.callback(environment.close)
        stop.call_when_set(environment.interrupt)
        channel = stack.enter_context(rpc_factory.channel(rpc))
        start = join_run(channel, environment.spec, rpc, stop=stop)
        weights = WeightsClient(channel, rpc, poll_s=settings.weights_poll_s, stop=stop)
        stack.callback(weights.close)
        writer = ReplayWriter(channel, settings, rpc, stop=stop)
        stack.callback(writer.close)
        # An actor that is started again plays other episodes than the first time.
        seeds = (seed, zlib.crc32(name.encode()), start.episodes)
        policy = Policy(
            environment.spec, agent, seed=episode_seed((*seeds, 1), 0), choice=agent.action_choice
        )
        session = uuid.uuid4().hex
        rollout = Rollout(environment, policy, actor=name, session=session, seeds=(*seeds, 0))
        play_log = PlayLog()
        stack.enter_context(
            serving_metrics(
                metrics,
                lambda: actor_figures(rollout.stats(), play_log.stats(), writer.stats(), weights.stats()),
            )
        )
        link = _Link(writer, weights, start=start, stop=stop, drain_timeout_s=settings.drain_timeout_s)
        if settings.lockstep:
            link.wait_for_learner(batch_size)
        else:
            if start.weights_version > 0:  # whoever joins a run late plays from the start as the others do
                weights.fetch()
            weights.start()
        log.info("%s plays %s %s in %d copies", name, env.name, env.map, environment.copies)
        try:
            _play(rollout, policy, link, settings, play_log, batch_size=batch_size)
        except Exception:
            with contextlib.suppress(FatalError):  # the writer's; what is raised came first, or is the same
                link.drain_in_time()
            raise
        link.drain()
        log.info("%s ends: session %s, %d episodes stored", name, session, writer.stats().stored)


class _Link:
    """What the play loop knows of the run, from both clients together."""

    def __init__(
        self,
        writer: ReplayWriter,
        weights: WeightsClient,
        *,
        start: Counters,
        stop: StopSignal,
        drain_timeout_s: float,
    ) -> None:
        self.writer, self.weights = writer, weights
        self._start, self._stop, self._drain_timeout_s = start, stop, drain_timeout_s

    @property
    def over(self) -> bool:
        """Whether play ends: the run is complete, or the process was asked to stop."""
        return self._stop.is_set() or self.writer.run_complete or self.counters.run_complete

    @property
    def counters(self) -> Counters:
        """The newest ones."""
        return max(self._start, self.writer.counters, self.weights.counters, key=_age)

    def wait_for_learner(self, batch_size: int) -> None:
        """Lockstep: waits until everything is stored and the learner has made its step for it.

        The learner makes one step per episode and publishes each, so step n belongs to episode n; the
        first batch is full with episode `batch_size`.
        """
        while not self.over and not self.writer.drain(STOP_CHECK_S):
            pass
        episodes = self.counters.episodes
        while not self.over and batch_size <= episodes and self.weights.newest.version < episodes:
            self.weights.fetch(min_version=episodes)

    def drain(self) -> None:
        """Waits for the last acknowledgements, but not for long once the process was asked to stop."""
        while not self._stop.is_set():
            if self.writer.drain(STOP_CHECK_S):
                return
        self.drain_in_time()

    def drain_in_time(self) -> None:
        """The same within the time that a process has to end; then counts what it gives up."""
        if not self.writer.drain(self._drain_timeout_s):
            log.warning("gave up %d episodes that were not acknowledged", self.writer.stats().held)


def _play(
    rollout: Rollout,
    policy: Policy,
    link: _Link,
    settings: ActorSettings,
    play_log: PlayLog,
    *,
    batch_size: int,
) -> None:
    while not link.over:
        link.weights.check()
        newest = link.weights.newest
        if newest is not policy.weights and newest.version > 0:
            policy.load(newest)
        counters = link.counters
        epsilon = epsilon_at(settings.exploration, counters.env_steps)
        for finished in rollout.step(epsilon=epsilon):
            play_log.add(finished.episode)
            link.writer.put(finished.episode)
            if settings.lockstep:
                link.wait_for_learner(batch_size)
        play_log.write_if_due(
            counters,
            version=policy.weights.version,
            epsilon=epsilon,
            held=link.writer.stats().held,
        )


def _age(counters: Counters) -> tuple[int, int, int]:
    return counters.env_steps, counters.weights_version, counters.samples
