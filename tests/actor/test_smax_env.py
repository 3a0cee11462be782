"""SMAX as the system plays it: what ends a battle, what it pays, what the state shows."""

import re
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from jaxmarl.environments.smax.smax_env import MAP_NAME_TO_SCENARIO

from actor.registry import make_environment
from actor.settings import EnvSettings
from actor.smac import MAPS as SMAC_MAPS
from actor.smax import MAPS, _quiet
from actor.smax_env import STOP, BattleRules

ALL = np.ones(4, bool)
UNITS, UNIT_FEATURES = 6, 5
EAST = 1
ALIVE, HEALTH, X, Y, COOLDOWN = range(UNIT_FEATURES)


def units(state_KS):
    """The unit part of the state, [K, U, F]: three allies, then three enemies."""
    return state_KS[:, : UNITS * UNIT_FEATURES].reshape(-1, UNITS, UNIT_FEATURES)


def change(smax, **fields):
    """Puts the running battles into another situation."""
    simulation = smax._battles.simulation
    inner = simulation.state.replace(**fields)
    smax._battles = smax._battles._replace(simulation=simulation.replace(state=inner))


def stop_all(smax):
    return smax.step(np.full((4, 3), STOP))


def health(allies, enemies):
    return jnp.tile(jnp.array([allies] * 3 + [enemies] * 3, jnp.float32), (4, 1))


@pytest.mark.parametrize(
    ("allies", "enemies", "terminated", "won"),
    [
        pytest.param(45, 0, True, True, id="victory"),
        pytest.param(0, 45, True, False, id="defeat"),
        pytest.param(0, 0, True, False, id="draw"),
        pytest.param(45, 45, False, False, id="neither"),
    ],
)
def test_who_is_alive_decides_the_battle(smax, allies, enemies, terminated, won):
    smax.reset(ALL, np.arange(4, dtype=np.uint64))
    change(smax, unit_health=health(allies, enemies))
    result = stop_all(smax)
    assert (result.terminated_K == terminated).all()
    assert (result.won_K == won).all()
    assert (result.done_K == terminated).all()


def test_the_time_limit_ends_an_episode_without_terminating_it(smax):
    smax.reset(ALL, np.arange(4, dtype=np.uint64))
    change(smax, step=jnp.full(4, smax.spec.episode_limit - 2, jnp.int32))
    assert not stop_all(smax).done_K.any()
    result = stop_all(smax)
    assert result.done_K.all()
    assert not (result.terminated_K | result.won_K).any()


def test_a_victory_in_the_last_step_is_a_victory(smax):
    smax.reset(ALL, np.arange(4, dtype=np.uint64))
    change(smax, unit_health=health(45, 0), step=jnp.full(4, smax.spec.episode_limit - 1, jnp.int32))
    result = stop_all(smax)
    assert (result.done_K & result.terminated_K & result.won_K).all()


def focus_fire(frame):
    """Who can shoots at the weakest; who cannot comes nearer once somebody can. Wins two battles in three."""
    in_reach = frame.avail_actions_KNA[..., STOP + 1 :]
    weakness = 2 - units(frame.state_KS)[:, None, 3:, HEALTH]
    target = STOP + 1 + np.where(in_reach, weakness, -1).argmax(axis=-1)
    otherwise = np.where(in_reach.any(axis=(1, 2)), EAST, STOP)[:, None]
    return np.where(in_reach.any(axis=-1), target, otherwise)


@pytest.fixture
def battles(smax):
    """Eight scripted battles: (won, return, last obs, last state, last avail_actions)."""
    played = []
    for seeds in np.arange(8, dtype=np.uint64).reshape(2, 4):
        frame = smax.reset(ALL, seeds)
        returns, over = np.zeros(4), np.zeros(4, bool)
        for _ in range(smax.spec.episode_limit):
            result = smax.step(focus_fire(frame))
            frame = result.frame
            returns += np.where(over, 0, result.reward_K)
            for copy in np.flatnonzero(result.done_K & ~over):
                assert result.terminated_K[copy]
                last = (frame.obs_KNO[copy], frame.state_KS[copy], frame.avail_actions_KNA[copy])
                played.append((bool(result.won_K[copy]), returns[copy], *last))
            over |= result.done_K
    return played


def test_real_battles_pay_about_twenty_when_won_and_show_their_last_frame(battles):
    assert len(battles) == 8
    assert {won for won, *_ in battles} == {True, False}
    for won, episode_return, obs, state, avail in battles:
        alive = units(state[None])[0, :, ALIVE]
        assert alive[:3].any() == won
        assert alive[3:].any() != won
        if won:
            assert episode_return == pytest.approx(20, abs=1e-3)
        else:
            assert 0 < episode_return < 10
        for agent in np.flatnonzero(alive[:3] == 0):
            np.testing.assert_array_equal(obs[agent], 0)
            np.testing.assert_array_equal(np.flatnonzero(avail[agent]), [STOP])


def test_the_state_is_scaled(smax):
    """Raw world_state stops learning dead: positions to 32, cooldowns that fall for ever."""
    frame = smax.reset(ALL, np.arange(4, dtype=np.uint64))
    assert (np.abs(units(frame.state_KS)[..., [X, Y]]) < 0.5).all()
    assert (units(frame.state_KS)[..., [ALIVE, HEALTH]] == 1).all()
    shot = False
    for _ in range(20):
        frame = smax.step(focus_fire(frame)).frame
        assert np.abs(frame.state_KS).max() <= 1
        features = units(frame.state_KS)
        assert (features[features[..., ALIVE] == 0] == 0).all()
        shot |= (features[..., COOLDOWN] > 0).any()
    assert shot


def test_the_state_ends_with_the_last_actions(smax):
    frame = smax.reset(ALL, np.arange(4, dtype=np.uint64))
    last = UNITS * UNIT_FEATURES
    np.testing.assert_array_equal(frame.state_KS[:, last:], 0)
    actions = np.array([[0, 1, 2], [3, 4, 0], [1, 1, 1], [4, 4, 4]])
    frame = smax.step(actions).frame
    np.testing.assert_array_equal(frame.state_KS[:, last:].reshape(4, 3, 8), np.eye(8)[actions])


def test_a_step_is_compiled_once(smax):
    frame = smax.reset(ALL, np.arange(4, dtype=np.uint64))
    for _ in range(3):
        frame = smax.step(focus_fire(frame)).frame
        frame = smax.reset(np.array([True, False, False, False]), np.arange(4, dtype=np.uint64))
    assert smax._step._cache_size() == 1
    assert smax._reset._cache_size() == 1


def test_what_the_package_prints_and_rebinds_when_imported_is_undone(capfd):
    before = sys.stdout
    with _quiet():
        print("greeting", file=sys.__stdout__)
        sys.stdout = sys.__stdout__
    assert sys.stdout is before
    print("heard")
    assert capfd.readouterr().out == "heard\n"


def test_maps_are_those_of_the_simulator_with_fixed_units_and_more_of_smac():
    brought = {name for name in MAP_NAME_TO_SCENARIO if not name.startswith("smacv2")}
    assert {name for name, entry in MAPS.items() if entry.sides is None} == brought


@pytest.mark.parametrize("name", MAPS)
def test_a_map_is_the_battle_that_smac_has_under_its_name(name):
    smac = SMAC_MAPS[name]
    assert MAPS[name].episode_limit == smac.episode_limit
    assert MAPS[name].description.removesuffix(", without the corridor") == smac.description
    rules = BattleRules(
        map_name=name, sides=MAPS[name].sides, episode_limit=smac.episode_limit, state_last_action=False
    )
    allies, _, enemies = smac.description.partition(" against ")
    told = [units_in(allies), units_in(allies if enemies == "the same" else enemies)]
    names = [rules.smax.unit_type_names[unit] for unit in np.asarray(rules.smax.scenario)]
    assert [names[: rules.n_agents], names[rules.n_agents :]] == told


def units_in(side):
    """ "2 stalkers, 1 zealot" -> stalker, stalker, zealot."""
    return [unit for count, unit in re.findall(r"(\d+) (\w+?)s?\b", side) for _ in range(int(count))]


def test_a_battle_of_smac_that_the_simulator_lacks_can_be_played():
    environment = make_environment(EnvSettings(map="2m_vs_1z"), copies=1, threads=1)
    assert (environment.spec.n_agents, environment.spec.n_actions) == (2, 5 + 1)
    frame = environment.reset(ALL[:1], np.zeros(1, np.uint64))
    result = environment.step(np.full((1, 2), STOP))
    assert not np.array_equal(result.frame.state_KS, frame.state_KS)


def test_types_of_units_stand_in_the_state_where_a_map_has_several():
    options = {"state_last_action": False}
    environment = make_environment(EnvSettings(map="2s3z", options=options), copies=1, threads=1)
    assert environment.spec.state_size == 10 * (UNIT_FEATURES + 2)
    rules = BattleRules(map_name="2s3z", sides=None, episode_limit=120, state_last_action=False)
    assert list(rules._state_types) == [2, 3]
