"""Level-Based Foraging behind the environment protocol: the only file that imports lbforaging.

The package has one game per object, so K objects are stepped in a loop. Its classes are used without
gymnasium's wrappers, which would join victory and time limit into one flag.

Shapes: K copies, N agents, O obs, S state, A actions.
"""

import numpy as np
from lbforaging.foraging.environment import Action, ForagingEnv

from actor.environment import EnvironmentStats, Frame, IntArray, SeedArray, StepResult
from actor.lbf import LbfTask
from common.types import BoolArray, EnvSpec, FloatArray

REWARD_SCALE = 20.0
"""The package pays 1 for all the food; the learner's settings are for battles, which pay 20."""
UNSEEN = -1.0
"""In place of the position of what an agent does not see."""


class LbfEnvironment:
    """K games of one task, stepped together. See actor.environment.Environment.

    An episode is won, and terminated, when all food has been gathered. The state is all observations, one
    after the other, as in most published results: with a short sight it knows only what some agent sees.
    """

    def __init__(self, *, map_name: str, task: LbfTask, episode_limit: int, copies: int) -> None:
        self.copies = copies
        self.seeds_K: SeedArray = np.zeros(copies, np.uint64)
        self._games = [_game(task, episode_limit) for _ in range(copies)]
        self._obs_high_O = self._games[0].observation_space[0].high
        obs_size = len(self._obs_high_O)
        self.spec = EnvSpec(
            env="lbf",
            map=map_name,
            n_agents=task.agents,
            n_actions=len(Action),
            obs_size=obs_size,
            state_size=task.agents * obs_size,
            episode_limit=episode_limit,
            fallback_action=Action.NONE.value,
        )
        self._obs_KNO: FloatArray = np.zeros((copies, task.agents, obs_size), np.float32)
        self._avail_KNA: BoolArray = np.ones((copies, task.agents, len(Action)), np.bool_)
        self._over_K: BoolArray = np.ones(copies, np.bool_)
        """Games that are finished, or never begun; they are not stepped."""

    def reset(self, mask_K: BoolArray, seeds_K: SeedArray) -> Frame:
        """Begins new games in the copies of `mask_K`."""
        self.seeds_K = np.where(mask_K, seeds_K, self.seeds_K)
        for k in np.flatnonzero(mask_K).tolist():
            for player in self._games[k].players:
                # Otherwise the package puts nobody where somebody stood at the end of the last game.
                player.position = None
            obs, _ = self._games[k].reset(seed=int(seeds_K[k]))
            self._look(k, obs)
            self._over_K[k] = False
        return self._frame()

    def step(self, actions_KN: IntArray) -> StepResult:
        """Plays one step of every game that is not over."""
        reward_K = np.zeros(self.copies, np.float32)
        done_K, cleared_K = self._over_K.copy(), np.zeros(self.copies, np.bool_)
        for k in np.flatnonzero(~self._over_K).tolist():
            obs, rewards, done_K[k], _, _ = self._games[k].step(actions_KN[k].tolist())
            reward_K[k] = sum(rewards) * REWARD_SCALE
            cleared_K[k] = not self._games[k].field.any()
            self._look(k, obs)
        self._over_K = done_K.copy()
        return StepResult(
            frame=self._frame(),
            reward_K=reward_K,
            done_K=done_K,
            terminated_K=cleared_K,
            won_K=cleared_K.copy(),
            void_K=np.zeros(self.copies, np.bool_),  # a simulation does not fail
        )

    def stats(self) -> EnvironmentStats:
        """There are no clients."""
        return EnvironmentStats()

    def interrupt(self) -> None:
        """No step takes long."""

    def close(self) -> None:
        """Nothing is held but memory."""

    def _look(self, k: int, obs: tuple[FloatArray, ...]) -> None:
        """Takes up what the agents of one copy see, scaled to [0, 1], and what they can do."""
        obs_NO = np.stack(obs)
        self._obs_KNO[k] = np.where(obs_NO < 0, UNSEEN, obs_NO / self._obs_high_O)
        game = self._games[k]
        for agent, player in enumerate(game.players):
            # The package replaces any other action by NONE.
            self._avail_KNA[k, agent] = [action in game._valid_actions[player] for action in Action]

    def _frame(self) -> Frame:
        obs_KNO = self._obs_KNO.copy()
        return Frame(
            obs_KNO=obs_KNO,
            state_KS=obs_KNO.reshape(self.copies, -1),
            avail_actions_KNA=self._avail_KNA.copy(),
        )


def _game(task: LbfTask, episode_limit: int) -> ForagingEnv:
    """With the package's own settings of the tasks that it registers."""
    return ForagingEnv(
        players=task.agents,
        min_player_level=1,
        max_player_level=2,
        min_food_level=1,
        max_food_level=None,
        field_size=(task.size, task.size),
        max_num_food=task.food,
        sight=task.size if task.sight is None else task.sight,
        max_episode_steps=episode_limit,
        force_coop=task.coop,
    )
