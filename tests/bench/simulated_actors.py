"""Actors that play recorded episodes at a game's pace, with the real clients for episodes and weights."""

import dataclasses
import random
import threading
from contextlib import ExitStack

from actor.policy import Policy
from actor.profile import play_episodes
from actor.registry import make_environment
from actor.replay_writer import ReplayWriter
from actor.rollout import Rollout
from actor.settings import ActorSettings, EnvSettings
from actor.weights_client import WeightsClient
from common import rpc
from common.lifecycle import StopSignal
from common.settings import AgentSettings, RpcSettings
from common.types import EnvSpec, Episode


def record(map_name: str, count: int) -> tuple[EnvSpec, list[Episode]]:
    """Episodes of SMAX with random actions, one at least of each copy."""
    environment = make_environment(EnvSettings(name="smax", map=map_name), copies=16, threads=1)
    policy = Policy(environment.spec, AgentSettings(), seed=1)
    rollout = Rollout(environment, policy, actor="recorder", session="recorder", seeds=(1,))
    return environment.spec, play_episodes(rollout, count)


class SimulatedActor:
    """Puts an episode as often as a game would end; while the queue is full it waits, as a real one does."""

    def __init__(self, number: int, episodes: list[Episode], settings: RpcSettings, period_s: float) -> None:
        self.name = f"simulated-{number}"
        self.offered = 0
        self._episodes, self._period_s = episodes, period_s
        self._rng = random.Random(number)
        self._stop = StopSignal()
        self._channel = rpc.channel(settings)
        actor = ActorSettings()
        self.writer = ReplayWriter(self._channel, actor, settings, stop=self._stop)
        self._weights = WeightsClient(self._channel, settings, poll_s=actor.weights_poll_s, stop=self._stop)
        self._weights.start()
        self._thread = threading.Thread(target=self._play, name=self.name, daemon=True)

    def start(self) -> None:
        """Plays from now on; the first episode is anywhere in its middle."""
        self._thread.start()

    def put(self) -> None:
        """Sends one recorded episode as its next."""
        self.offered += 1
        episode = self._rng.choice(self._episodes)
        meta = dataclasses.replace(
            episode.meta,
            session=self.name,
            seq=self.offered,
            actor=self.name,
            weights_version=self._weights.newest.version,
        )
        self.writer.put(dataclasses.replace(episode, meta=meta))

    def fetched_bytes(self) -> int:
        """Weights that have come."""
        return self._weights.stats().fetched_bytes

    def ask_to_end(self) -> None:
        """Does not wait for it."""
        self._stop.set()

    def close(self) -> None:
        """Waits for the end."""
        self._thread.join()
        with ExitStack() as stack:
            stack.callback(self._channel.close)
            stack.callback(self.writer.close)
            stack.callback(self._weights.close)

    def _play(self) -> None:
        left_s = self._rng.uniform(0, self._period_s)
        while not self._stop.wait(left_s):
            self.put()
            left_s = self._rng.uniform(0.8, 1.2) * self._period_s
