"""What a person would see of a battle, for films of it.

Shapes: U units (allies, then enemies), N agents (the allies), A actions.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from actor.environment import Environment, IntArray, episode_seed
from actor.policy import Policy, greedy_actions
from common.types import BoolArray, FloatArray


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """One moment of one battle. Positions are in units of the map, y upwards."""

    n_allies: int
    positions_U2: FloatArray
    health_U: FloatArray
    """Share of the full health; 0: dead."""
    types_U: tuple[str, ...]


@runtime_checkable
class Visible(Protocol):
    """An environment that can be watched."""

    action_names: tuple[str, ...]
    """Without targets: the last actions attack one enemy each, in the order of the units."""

    def scene(self, copy: int) -> Scene:
        """The present moment of a copy."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shot:
    """A moment and what the agents make of it."""

    scene: Scene
    q_NA: FloatArray
    avail_actions_NA: BoolArray
    actions_N: IntArray | None
    """None: the battle is over."""
    step: int
    episode_return: float
    won: bool


def film_battle(environment: Environment, view: Visible, policy: Policy, *, seed: int) -> Iterator[Shot]:
    """One greedy episode in the only copy of `environment`, moment by moment, its last one included."""
    frame = environment.reset(np.ones(1, bool), np.array([episode_seed((seed,), 0)], np.uint64))
    last_actions_KN = np.full((1, environment.spec.n_agents), -1, np.int64)
    hidden, total, over, won = policy.initial_hidden(1), 0.0, False, False
    for step in range(environment.spec.episode_limit + 1):
        q_KNA, hidden = policy.q_values(frame, last_actions_KN, hidden)
        actions_KN = greedy_actions(q_KNA, frame.avail_actions_KNA)
        yield Shot(
            scene=view.scene(0),
            q_NA=q_KNA[0],
            avail_actions_NA=frame.avail_actions_KNA[0],
            actions_N=None if over else actions_KN[0],
            step=step,
            episode_return=total,
            won=won,
        )
        if over:
            return
        result = environment.step(actions_KN)
        frame, last_actions_KN = result.frame, actions_KN
        total += float(result.reward_K[0])
        over, won = bool(result.done_K[0]), bool(result.won_K[0])
