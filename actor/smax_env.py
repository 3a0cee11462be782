"""SMAX (JaxMARL) behind the environment protocol: the only file that imports JAX.

The package's step and reset are used below its automatic reset, which would lose the last frame. One
compiled call steps all copies and computes what they show.

Shapes: K copies, N agents (allies), U units (allies, then enemies), F features, O obs, S state, A actions.
"""

from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxmarl.environments.smax.heuristic_enemy_smax_env import HeuristicEnemySMAX
from jaxmarl.environments.smax.smax_env import Scenario, map_name_to_scenario

from actor.environment import EnvironmentStats, Frame, IntArray, SeedArray, StepResult
from actor.scene import Scene
from actor.smax import Sides
from common.types import BoolArray, EnvSpec, FloatArray

STOP = 4
"""Four moves come first, then stop, then one attack per enemy. Stop is all that a dead agent can do."""
REWARD_SCALE = 10.0
"""SMAX pays 1 for all damage and 1 for the victory; SMAC's scale is 20."""

View: TypeAlias = tuple[jax.Array, jax.Array, jax.Array]


class Battle(NamedTuple):
    """One copy's state inside JAX."""

    key: jax.Array
    simulation: Any
    last_actions_N: jax.Array
    """-1 before the first step."""


class Outcome(NamedTuple):
    """What one copy's step led to."""

    view: View
    reward: jax.Array
    done: jax.Array
    terminated: jax.Array
    won: jax.Array


class BattleRules:
    """Pure functions of one copy, to be vectorised and compiled."""

    def __init__(
        self, *, map_name: str, sides: Sides | None, episode_limit: int, state_last_action: bool
    ) -> None:
        scenario = _scenario(map_name, sides)
        self.smax = HeuristicEnemySMAX(scenario=scenario, max_steps=episode_limit)  # type: ignore[no-untyped-call]
        self.n_agents: int = self.smax.num_allies
        self.n_actions: int = self.smax.num_ally_actions
        self._episode_limit = episode_limit
        self._state_last_action = state_last_action
        types = np.unique(np.asarray(scenario.unit_types))
        # As in SMAC: a map with one type of unit needs no column for it.
        self._state_types = types if len(types) > 1 else types[:0]

    def begin(self, key: jax.Array) -> Battle:
        """A new battle; the key decides everything that chance decides in it."""
        key, reset_key = jax.random.split(key)
        _, simulation = self.smax.reset(reset_key)
        return _strong(Battle(key, simulation, jnp.full(self.n_agents, -1, jnp.int32)))

    def advance(self, battle: Battle, actions_N: jax.Array) -> tuple[Battle, Outcome]:
        """One step, and whether and how the battle ended with it."""
        key, step_key = jax.random.split(battle.key)
        actions = {agent: actions_N[i] for i, agent in enumerate(self.smax.agents)}
        _, simulation, reward, _, _ = self.smax.step_env(step_key, battle.simulation, actions)
        battle = _strong(Battle(key, simulation, actions_N))
        alive_U = simulation.state.unit_alive
        allies, enemies = alive_U[: self.n_agents].any(), alive_U[self.n_agents :].any()
        terminated = ~allies | ~enemies
        return battle, Outcome(
            view=self.view(battle),
            reward=(reward[self.smax.agents[0]] * REWARD_SCALE).astype(jnp.float32),
            # The package's own `done` comes one step after the limit, and hides which of the two it was.
            done=terminated | (simulation.state.step >= self._episode_limit),
            terminated=terminated,
            won=allies & ~enemies,
        )

    def view(self, battle: Battle) -> View:
        """obs [N, O], state [S], avail_actions [N, A]."""
        obs = self.smax.get_obs(battle.simulation)
        avail = self.smax.get_avail_actions(battle.simulation)
        return (
            jnp.stack([obs[agent] for agent in self.smax.agents]).astype(jnp.float32),
            self._state(battle),
            jnp.stack([avail[agent] for agent in self.smax.agents]).astype(jnp.bool_),
        )

    def _state(self, battle: Battle) -> jax.Array:
        """The global state, all in [-1, 1].

        SMAX's own world_state has positions up to 32 and cooldowns that fall without bound; nothing
        learns from it.
        """
        units, smax = battle.simulation.state, self.smax
        types_U = units.unit_types
        field = jnp.array([smax.map_width, smax.map_height])
        cooldown_U = units.unit_weapon_cooldowns / smax.unit_type_weapon_cooldowns[types_U]
        features_UF = jnp.concatenate(
            [
                jnp.ones_like(units.unit_health)[:, None],  # alive: the dead are zero altogether
                (units.unit_health / smax.unit_type_health[types_U])[:, None],
                units.unit_positions / field - 0.5,
                jnp.clip(cooldown_U, 0.0, 1.0)[:, None],
                types_U[:, None] == self._state_types,
            ],
            axis=-1,
        )
        state = jnp.where(units.unit_alive[:, None], features_UF, 0.0).reshape(-1)
        if self._state_last_action:
            last_NA = jax.nn.one_hot(battle.last_actions_N, self.n_actions)  # zeros for -1
            state = jnp.concatenate([state, last_NA.reshape(-1)])
        return state.astype(jnp.float32)


class SmaxEnvironment:
    """K battles of one map, stepped together. See actor.environment.Environment."""

    action_names = ("north", "east", "south", "west", "stop")

    def __init__(
        self,
        *,
        map_name: str,
        sides: Sides | None,
        episode_limit: int,
        state_last_action: bool,
        copies: int,
    ) -> None:
        rules = BattleRules(
            map_name=map_name, sides=sides, episode_limit=episode_limit, state_last_action=state_last_action
        )
        self.copies = copies
        self._smax = rules.smax
        self.seeds_K: SeedArray = np.zeros(copies, np.uint64)
        self._step = jax.jit(jax.vmap(rules.advance))
        self._reset = jax.jit(jax.vmap(lambda *row: _begin_where(rules, *row)))
        keys = jax.ShapeDtypeStruct((copies, 2), jnp.uint32)  # type: ignore[no-untyped-call]
        shapes = jax.eval_shape(jax.vmap(rules.begin), keys)
        self._battles = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        obs, state, avail = jax.eval_shape(jax.vmap(rules.view), shapes)
        self.spec = EnvSpec(
            env="smax",
            map=map_name,
            n_agents=rules.n_agents,
            n_actions=avail.shape[-1],
            obs_size=obs.shape[-1],
            state_size=state.shape[-1],
            episode_limit=episode_limit,
            fallback_action=STOP,
        )

    def reset(self, mask_K: BoolArray, seeds_K: SeedArray) -> Frame:
        """Begins new battles in the copies of `mask_K`."""
        self.seeds_K = np.where(mask_K, seeds_K, self.seeds_K)
        # The two halves of a seed are a key of JAX's generator.
        keys_K2 = np.ascontiguousarray(seeds_K, np.uint64).view(np.uint32).reshape(self.copies, 2)
        self._battles, view = self._reset(self._battles, keys_K2, np.asarray(mask_K, np.bool_))
        return _frame(*jax.device_get(view))

    def step(self, actions_KN: IntArray) -> StepResult:
        """Plays one step of every battle."""
        self._battles, outcome = self._step(self._battles, actions_KN.astype(np.int32))
        host = jax.device_get(outcome)
        return StepResult(
            frame=_frame(*host.view),
            reward_K=host.reward,
            done_K=host.done,
            terminated_K=host.terminated,
            won_K=host.won,
            void_K=np.zeros(self.copies, np.bool_),  # a simulation does not fail
        )

    def scene(self, copy: int) -> Scene:
        """The present moment of a copy."""
        units = jax.tree.map(lambda leaf: np.asarray(leaf[copy]), self._battles.simulation.state)
        smax = self._smax
        full_health_U = np.asarray(smax.unit_type_health)[units.unit_types]
        return Scene(
            n_allies=smax.num_allies,
            positions_U2=units.unit_positions,
            health_U=np.where(units.unit_alive, units.unit_health / full_health_U, 0.0),
            types_U=tuple(smax.unit_type_names[number] for number in units.unit_types),
        )

    def stats(self) -> EnvironmentStats:
        """There are no clients."""
        return EnvironmentStats()

    def interrupt(self) -> None:
        """No step takes long."""

    def close(self) -> None:
        """Nothing is held but memory."""


def _scenario(map_name: str, sides: Sides | None) -> Scenario:
    if sides is None:
        return map_name_to_scenario(map_name)  # type: ignore[no-untyped-call, no-any-return]
    return Scenario(
        unit_types=jnp.array(sides.allies + sides.enemies, jnp.uint8),
        num_allies=len(sides.allies),
        num_enemies=len(sides.enemies),
        smacv2_position_generation=False,
        smacv2_unit_type_generation=False,
    )


def _begin_where(rules: BattleRules, battle: Battle, key: jax.Array, begin: jax.Array) -> tuple[Battle, View]:
    fresh = rules.begin(key)
    battle = _strong(jax.tree.map(lambda new, old: jnp.where(begin, new, old), fresh, battle))
    return battle, rules.view(battle)


def _strong(battle: Battle) -> Battle:
    """Drops JAX's weak types; a step whose input types differ from its output's would compile twice."""
    strong: Battle = jax.tree.map(lambda leaf: jax.lax.convert_element_type(leaf, leaf.dtype), battle)
    return strong


def _frame(obs_KNO: FloatArray, state_KS: FloatArray, avail_actions_KNA: BoolArray) -> Frame:
    return Frame(obs_KNO=obs_KNO, state_KS=state_KS, avail_actions_KNA=avail_actions_KNA)
