"""Films are of what is played."""

import numpy as np
import pytest

from actor.environment import episode_seed
from actor.policy import Policy
from actor.registry import make_environment
from actor.scene import Visible, film_battle
from actor.settings import EnvSettings
from actor.smax_env import STOP
from common.settings import AgentSettings


@pytest.fixture(scope="module")
def battle():
    environment = make_environment(EnvSettings(options={"episode_limit": 25}), copies=1, threads=1)
    policy = Policy(environment.spec, AgentSettings(hidden_size=8), seed=3)
    return environment, list(film_battle(environment, environment, policy, seed=5))


def test_the_film_is_the_episode_that_its_actions_make(battle):
    environment, shots = battle
    assert isinstance(environment, Visible)
    frame = environment.reset(np.ones(1, bool), np.array([episode_seed((5,), 0)], np.uint64))
    total = 0.0
    for step, shot in enumerate(shots[:-1]):
        np.testing.assert_array_equal(shot.avail_actions_NA, frame.avail_actions_KNA[0])
        assert (shot.step, shot.episode_return) == (step, total)
        best = np.where(shot.avail_actions_NA, shot.q_NA, -np.inf).argmax(axis=-1)
        np.testing.assert_array_equal(shot.actions_N, best)
        result = environment.step(shot.actions_N[None])
        frame, total = result.frame, total + float(result.reward_K[0])
        assert result.done_K[0] == (step == len(shots) - 2)
    last = shots[-1]
    assert last.actions_N is None and last.won == result.won_K[0] and last.episode_return == total


def test_a_scene_shows_what_the_state_says(battle):
    environment, shots = battle
    environment.reset(np.ones(1, bool), np.array([1], np.uint64))
    for _ in range(15):
        frame = environment.step(np.full((1, 3), STOP)).frame
    scene = environment.scene(0)
    alive_U, health_U = frame.state_KS[0, :30].reshape(6, 5)[:, :2].T
    np.testing.assert_allclose(scene.health_U, health_U * alive_U, rtol=1e-6)
    assert scene.n_allies == 3 and scene.types_U == ("marine",) * 6
    assert (scene.health_U[:3] < 1).any()
    assert len(environment.action_names) == STOP + 1
    moved = [not np.array_equal(shots[0].scene.positions_U2[0], shot.scene.positions_U2[0]) for shot in shots]
    assert any(moved)
