"""The play loop: K copies side by side, every step written into preallocated arrays, whole episodes out.

Shapes: K copies, T steps, N agents, O obs, S state, A actions, D hidden.
"""

import time
from dataclasses import dataclass, field

import numpy as np

from actor.environment import Environment, EnvironmentStats, Frame, IntArray, StepResult, episode_seed
from actor.policy import Policy
from common.labels import label
from common.types import Episode, EpisodeMeta


@dataclass(frozen=True, kw_only=True, slots=True)
class FinishedEpisode:
    """An episode that was played to its end."""

    start: int
    """How many episodes of this rollout had begun before it."""
    episode: Episode


@dataclass(frozen=True, kw_only=True, slots=True)
class RolloutStats:
    """What was played since the rollout was made."""

    env_steps: int
    episodes: int
    voided: int
    """Episodes dropped because their environment failed."""
    policy_s: float
    """Time spent in choosing actions."""
    environment_s: float
    """Time spent in environments, beginning of episodes included."""
    environment: EnvironmentStats = field(default_factory=EnvironmentStats)


class Rollout:
    """Plays without end. A copy whose episode is over begins the next one at the next step.

    An episode keeps the version of the weights it was begun with, however often they change meanwhile;
    the agents' hidden states just go on. The n-th episode to begin has the n-th seed of `seeds`; if its
    environment fails it is dropped and begun again.
    """

    def __init__(
        self, environment: Environment, policy: Policy, *, actor: str, session: str, seeds: tuple[int, ...]
    ) -> None:
        spec, copies = environment.spec, environment.copies
        slots, n = spec.episode_limit + 1, spec.n_agents
        self._environment, self._policy = environment, policy
        self._actor, self._session, self._seeds = actor, session, seeds

        self._obs = np.zeros((copies, slots, n, spec.obs_size), np.float32)
        self._state = np.zeros((copies, slots, spec.state_size), np.float32)
        self._avail_actions = np.zeros((copies, slots, n, spec.n_actions), np.bool_)
        self._actions = np.zeros((copies, slots, n), np.uint8)
        self._reward = np.zeros((copies, slots), np.float32)

        self._rows = np.arange(copies)
        self._length_K = np.zeros(copies, np.int64)
        self._playing_K = np.zeros(copies, np.bool_)
        self._repeat_K = np.zeros(copies, np.bool_)
        self._start_K = np.zeros(copies, np.int64)
        self._version_K = np.zeros(copies, np.int64)
        self._last_actions_KN: IntArray = np.full((copies, n), -1, np.int64)
        self._hidden_KND = policy.initial_hidden(copies)
        self._frame: Frame | None = None
        self._begun = self._env_steps = self._finished = self._voided = 0
        self._policy_s = self._environment_s = 0.0

    def step(self, *, epsilon: float) -> list[FinishedEpisode]:
        """Plays one step in every copy; returns the episodes that ended with it."""
        began = time.perf_counter()
        if self._frame is None or not self._playing_K.all():
            with label("beginning of episodes"):
                self._frame = self._begin()
        ready = time.perf_counter()
        with label("policy"):
            actions, self._hidden_KND = self._policy.act(
                self._frame, self._last_actions_KN, self._hidden_KND, epsilon=epsilon
            )
        chosen = time.perf_counter()
        with label("environment step"):
            result = self._environment.step(actions)
        self._policy_s += chosen - ready
        self._environment_s += (ready - began) + (time.perf_counter() - chosen)
        self._write_step(actions, result)
        self._frame, self._last_actions_KN = result.frame, actions
        self._playing_K = ~(result.done_K | result.void_K)
        self._repeat_K = result.void_K
        self._env_steps += int((~result.void_K).sum())
        self._voided += int(result.void_K.sum())
        ended = np.flatnonzero(result.done_K & ~result.void_K)
        return [self._emit(int(copy), result) for copy in ended]

    def stats(self) -> RolloutStats:
        """Totals of this rollout."""
        return RolloutStats(
            env_steps=self._env_steps,
            episodes=self._finished,
            voided=self._voided,
            policy_s=self._policy_s,
            environment_s=self._environment_s,
            environment=self._environment.stats(),
        )

    def _begin(self) -> Frame:
        """Begins an episode in every copy that plays none."""
        begin_K = ~self._playing_K
        new_K = begin_K & ~self._repeat_K
        self._start_K[new_K] = self._begun + np.arange(new_K.sum())
        self._begun += int(new_K.sum())
        seeds_K = np.array([episode_seed(self._seeds, int(start)) for start in self._start_K], np.uint64)
        frame = self._environment.reset(begin_K, seeds_K)
        self._length_K[begin_K] = 0
        self._version_K[begin_K] = self._policy.weights.version
        self._last_actions_KN = np.where(begin_K[:, None], -1, self._last_actions_KN)
        self._hidden_KND = self._policy.clear_hidden(self._hidden_KND, begin_K)
        self._write_frame(frame)
        return frame

    def _write_step(self, actions_KN: IntArray, result: StepResult) -> None:
        self._actions[self._rows, self._length_K] = actions_KN
        self._reward[self._rows, self._length_K] = result.reward_K
        self._length_K += 1
        self._write_frame(result.frame)

    def _write_frame(self, frame: Frame) -> None:
        self._obs[self._rows, self._length_K] = frame.obs_KNO
        self._state[self._rows, self._length_K] = frame.state_KS
        self._avail_actions[self._rows, self._length_K] = frame.avail_actions_KNA

    def _emit(self, copy: int, result: StepResult) -> FinishedEpisode:
        """Copies an episode out of the arrays, which the copy's next one overwrites."""
        self._finished += 1
        length = int(self._length_K[copy])
        reward = self._reward[copy, :length].copy()
        meta = EpisodeMeta(
            session=self._session,
            seq=self._finished,
            actor=self._actor,
            seed=int(self._environment.seeds_K[copy]),
            weights_version=int(self._version_K[copy]),
            length=length,
            episode_return=float(reward.sum(dtype=np.float64)),
            won=bool(result.won_K[copy]),
            terminated=bool(result.terminated_K[copy]),
        )
        episode = Episode(
            meta=meta,
            obs=self._obs[copy, : length + 1].copy(),
            state=self._state[copy, : length + 1].copy(),
            avail_actions=self._avail_actions[copy, : length + 1].copy(),
            actions=self._actions[copy, :length].copy(),
            reward=reward,
        )
        return FinishedEpisode(start=int(self._start_K[copy]), episode=episode)
