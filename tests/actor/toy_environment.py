"""An environment in a few lines of numpy. Chance and actions decide everything; it fails when told to."""

from types import MappingProxyType

import numpy as np

from actor.environment import EnvironmentKind, EnvironmentStats, Frame, StepResult
from common.settings import Settings
from common.types import EnvSpec

N, A, OBS, S = 2, 4, 5, 3
LIMIT = 12
DEATH = 4
"""From this step on agent 1 is dead."""


class ToyOptions(Settings):
    void_every: int = 0
    """Every so many begun episodes one fails at its second step."""


class Toy(EnvironmentKind):
    @staticmethod
    def maps():
        return MappingProxyType({"tiny": "two agents, at most twelve steps"})

    @staticmethod
    def check_options(settings):
        ToyOptions(**settings.options)

    @staticmethod
    def open(settings, *, copies, threads):
        return ToyEnvironment(copies=copies, void_every=ToyOptions(**settings.options).void_every)


class ToyEnvironment:
    spec = EnvSpec(
        env="toy",
        map="tiny",
        n_agents=N,
        n_actions=A,
        obs_size=OBS,
        state_size=S,
        episode_limit=LIMIT,
        fallback_action=2,
    )

    def __init__(self, *, copies, void_every=0):
        self.copies = copies
        self.seeds_K = np.zeros(copies, np.uint64)
        self.void_every = void_every
        self.seeds_begun = []
        self.closed = self.interrupted = False
        self._rngs = [np.random.default_rng(0)] * copies
        self._time = np.zeros(copies, int)
        self._fails = np.zeros(copies, bool)
        self._memory = np.zeros(copies)
        """Depends on all actions so far, and shows in obs and state."""
        self._frame = Frame(
            obs_KNO=np.zeros((copies, N, OBS), np.float32),
            state_KS=np.zeros((copies, S), np.float32),
            avail_actions_KNA=np.ones((copies, N, A), bool),
        )

    def reset(self, mask_K, seeds_K):
        self.seeds_K = np.where(mask_K, seeds_K, self.seeds_K)
        for k in np.flatnonzero(mask_K):
            self.seeds_begun.append(int(seeds_K[k]))
            self._rngs[k] = np.random.default_rng(seeds_K[k])
            self._time[k] = self._memory[k] = 0
            self._fails[k] = self.void_every and len(self.seeds_begun) % self.void_every == 0
        return self._draw(mask_K)

    def step(self, actions_KN):
        chosen = np.take_along_axis(self._frame.avail_actions_KNA, actions_KN[..., None], axis=-1)
        assert chosen.all(), "an unavailable action was chosen"
        self._time += 1
        self._memory = (self._memory * 0.5 + actions_KN @ [1.0, 0.25]) % 3
        luck = np.array([rng.random(2) for rng in self._rngs])
        terminated = luck[:, 0] < 0.1
        return StepResult(
            frame=self._draw(np.ones(self.copies, bool)),
            reward_K=(luck[:, 1] + self._memory / 3).astype(np.float32),
            done_K=terminated | (self._time >= LIMIT),
            terminated_K=terminated,
            won_K=terminated & (luck[:, 1] < 0.5),
            void_K=self._fails & (self._time == 2),
        )

    def stats(self):
        return EnvironmentStats()

    def interrupt(self):
        self.interrupted = True

    def close(self):
        self.closed = True

    def _draw(self, mask_K):
        obs, state, avail = (array.copy() for array in self._arrays())
        for k in np.flatnonzero(mask_K):
            obs[k] = self._rngs[k].random((N, OBS)) + self._memory[k]
            state[k] = self._rngs[k].random(S) - self._memory[k]
            avail[k] = self._rngs[k].random((N, A)) < 0.5
            avail[k, :, self.spec.fallback_action] = True
            if self._time[k] >= DEATH:
                obs[k, 1] = 0
                avail[k, 1] = np.arange(A) == self.spec.fallback_action
        self._frame = Frame(obs_KNO=obs, state_KS=state, avail_actions_KNA=avail)
        return self._frame

    def _arrays(self):
        return self._frame.obs_KNO, self._frame.state_KS, self._frame.avail_actions_KNA
