"""Level-Based Foraging as the system plays it: what ends a game, what it pays, what is seen."""

import numpy as np
import pytest
from lbforaging.foraging.environment import Action

from actor.lbf import TASKS
from actor.lbf_env import UNSEEN
from actor.registry import make_environment
from actor.settings import EnvSettings

ALL = np.ones(4, bool)
SEEDS = np.arange(4, dtype=np.uint64)


def open_task(name, **options):
    return make_environment(EnvSettings(name="lbf", map=name, options=options), copies=4, threads=1)


@pytest.fixture
def lbf():
    return open_task("5x5-2p-1f-coop")


def gather(environment):
    """Walks by the true positions: each agent to a cell of its own beside the food, then both load."""
    actions = np.zeros((environment.copies, environment.spec.n_agents), np.int64)
    for k, game in enumerate(environment._games):
        if environment._over_K[k]:
            continue
        (food,) = np.argwhere(game.field)
        for agent, (player, side) in enumerate(zip(game.players, (-1, 1), strict=True)):
            actions[k, agent] = towards(player.position, (food[0], food[1] + side), environment, k, agent)
    return actions


def towards(position, goal, environment, k, agent):
    down, right = np.subtract(goal, position)
    if not (down or right):
        return Action.LOAD.value
    wanted = []
    if down:
        wanted.append((Action.SOUTH if down > 0 else Action.NORTH).value)
    if right:
        wanted.append((Action.EAST if right > 0 else Action.WEST).value)
    avail = environment._avail_KNA[k, agent]
    moves = [move for move in wanted if avail[move]] or [move for move in (1, 2, 3, 4) if avail[move]]
    return int(np.random.default_rng(environment._games[k].current_step + agent).choice(moves))


def test_a_game_whose_food_is_gathered_is_won_and_pays_twenty(lbf):
    lbf.reset(ALL, SEEDS)
    returns, won = np.zeros(4), np.zeros(4, bool)
    for _ in range(lbf.spec.episode_limit):
        result = lbf.step(gather(lbf))
        returns += result.reward_K
        won |= result.won_K
        np.testing.assert_array_equal(result.won_K, result.terminated_K)
        assert result.done_K[result.won_K].all()
    assert won.sum() >= 3, "the script walks badly"
    np.testing.assert_allclose(returns, np.where(won, 20, 0), atol=1e-4)


def test_food_that_needs_both_is_not_moved_by_one(lbf):
    """An agent alone at the food may load as often as it likes."""
    lbf.reset(ALL, SEEDS)
    for _ in range(lbf.spec.episode_limit):
        actions = gather(lbf)
        actions[:, 1] = Action.NONE.value
        result = lbf.step(actions)
        assert not result.reward_K.any()
    assert result.done_K.all() and not result.terminated_K.any()


def test_the_limit_is_an_option():
    environment = open_task("5x5-2p-1f-coop", episode_limit=3)
    environment.reset(ALL, SEEDS)
    still = np.zeros((4, 2), np.int64)
    assert [bool(environment.step(still).done_K.all()) for _ in range(3)] == [False, False, True]


def test_what_is_seen_is_scaled_and_the_state_is_all_of_it():
    environment = open_task("2s-8x8-2p-2f-coop")
    frame = environment.reset(ALL, SEEDS)
    seen = frame.obs_KNO[frame.obs_KNO != UNSEEN]
    assert seen.min() >= 0 and seen.max() <= 1
    assert (frame.obs_KNO == UNSEEN).any(), "two cells of sight on eight show everything"
    np.testing.assert_array_equal(frame.state_KS, frame.obs_KNO.reshape(4, -1))


def test_only_valid_actions_are_available(lbf):
    frame = lbf.reset(ALL, SEEDS)
    for k, game in enumerate(lbf._games):
        for agent, player in enumerate(game.players):
            row, column = player.position
            avail = frame.avail_actions_KNA[k, agent]
            assert avail[Action.LOAD.value] == (game.adjacent_food(row, column) > 0)
            assert not (row == 0 and avail[Action.NORTH.value])
            assert not (column == 4 and avail[Action.EAST.value])


@pytest.mark.parametrize("name", TASKS)
def test_every_task_is_of_the_size_that_its_name_says(name):
    environment = open_task(name)
    assert f"-{environment.spec.n_agents}p-" in f"-{name}-"
    environment.reset(ALL, SEEDS)
    assert f"-{max(np.count_nonzero(game.field) for game in environment._games)}f" in name
