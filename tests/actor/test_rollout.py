"""Episodes come out exactly as they were played, whatever the copies beside them do."""

import numpy as np
import pytest
import torch

from actor.environment import episode_seed
from actor.policy import Policy, greedy_actions
from actor.rollout import Rollout
from common import payload
from common.agent import AgentNetwork, pack_weights
from common.settings import AgentSettings
from tests.actor.toy_environment import DEATH, LIMIT, ToyEnvironment

AGENT = AgentSettings(hidden_size=16)
SEEDS = (5, 6)


def rollout_of(environment, policy=None):
    policy = policy or Policy(environment.spec, AGENT, seed=0)
    return Rollout(environment, policy, actor="actor-0", session="session", seeds=SEEDS)


def play(rollout, *, episodes, epsilon=1.0):
    finished = []
    while len(finished) < episodes:
        finished += rollout.step(epsilon=epsilon)
    return finished


def replay_slowly(environment, episode):
    """Plays the recorded actions step by step from the episode's seed; compares everything."""
    copies, length = environment.copies, episode.meta.length
    everywhere = np.ones(copies, bool)
    frame = environment.reset(everywhere, np.full(copies, episode.meta.seed, np.uint64))
    for t in range(length):
        check_slot(episode, t, frame)
        result = environment.step(np.tile(episode.actions[t].astype(np.int64), (copies, 1)))
        frame = result.frame
        assert result.reward_K[0] == episode.reward[t]
        assert result.done_K[0] == (t == length - 1)
    check_slot(episode, length, frame)
    assert result.won_K[0] == episode.meta.won
    assert result.terminated_K[0] == episode.meta.terminated


def check_slot(episode, t, frame):
    np.testing.assert_array_equal(episode.obs[t], frame.obs_KNO[0])
    np.testing.assert_array_equal(episode.state[t], frame.state_KS[0])
    np.testing.assert_array_equal(episode.avail_actions[t], frame.avail_actions_KNA[0])


def test_episodes_equal_a_slow_replay(environment):
    """On every environment: arrays, the terminal slot, seed and outcome."""
    finished = play(rollout_of(environment), episodes=6)
    for done in finished[-3:]:  # these were begun while other copies were in the middle of theirs
        replay_slowly(environment, done.episode)


def test_the_service_accepts_them(environment):
    for done in play(rollout_of(environment), episodes=4):
        assert payload.find_faults([payload.encode_episode(done.episode)], environment.spec) == [None]


def test_numbers_seeds_and_totals():
    rollout = rollout_of(ToyEnvironment(copies=3))
    finished = play(rollout, episodes=30)
    assert [done.episode.meta.seq for done in finished] == list(range(1, len(finished) + 1))
    for done in finished:
        meta = done.episode.meta
        assert meta.seed == episode_seed(SEEDS, done.start)
        assert (meta.actor, meta.session) == ("actor-0", "session")
        assert meta.episode_return == pytest.approx(done.episode.reward.sum())
        assert meta.terminated or meta.length == LIMIT
    starts = {done.start for done in finished}
    assert len(starts) == len(finished)
    assert starts >= set(range(len(finished) - 3))
    stats = rollout.stats()
    assert (stats.episodes, stats.voided) == (len(finished), 0)
    played = sum(done.episode.meta.length for done in finished)
    assert played <= stats.env_steps <= played + 3 * LIMIT
    assert {done.episode.meta.won for done in finished} == {True, False}


def test_an_episode_keeps_its_tensors_when_the_copy_plays_on():
    rollout = rollout_of(ToyEnvironment(copies=2))
    first = play(rollout, episodes=1)[0].episode
    kept = [array.copy() for array in (first.obs, first.state, first.avail_actions, first.actions)]
    play(rollout, episodes=10)
    for array, copy in zip((first.obs, first.state, first.avail_actions, first.actions), kept, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_the_dead_take_the_only_action_they_have():
    for done in play(rollout_of(ToyEnvironment(copies=3)), episodes=10):
        assert (done.episode.actions[DEATH:, 1] == ToyEnvironment.spec.fallback_action).all()


def test_greedy_actions_follow_the_episodes_own_history():
    """A slow unroll over each episode from zeros: hidden state and last action begin anew with it."""
    environment = ToyEnvironment(copies=3)
    policy, network = Policy(environment.spec, AGENT, seed=0), AgentNetwork(environment.spec, AGENT)
    policy.load(pack_weights(network, session="s", version=1))
    for done in play(rollout_of(environment, policy), episodes=8, epsilon=0.0):
        episode = done.episode
        before = np.concatenate([np.full((1, 2), -1), episode.actions[:-1].astype(np.int64)])
        obs, last = torch.tensor(episode.obs[:-1]), torch.tensor(before)
        with torch.no_grad():
            q = network.q(network.unroll(obs[:, None], last[:, None], network.initial_hidden(1)))[
                :, 0
            ].numpy()
        np.testing.assert_array_equal(episode.actions, greedy_actions(q, episode.avail_actions[:-1]))


def test_an_episode_carries_the_version_it_was_begun_with():
    environment = ToyEnvironment(copies=3)
    policy = Policy(environment.spec, AGENT, seed=0)
    rollout = rollout_of(environment, policy)
    network = AgentNetwork(environment.spec, AGENT)
    finished = []
    for version in range(1, 60):
        finished += [(done, version - 1) for done in rollout.step(epsilon=1.0)]
        policy.load(pack_weights(network, session="s", version=version))
    assert len(finished) > 10
    for done, version_at_end in finished:
        assert done.episode.meta.weights_version == version_at_end - done.episode.meta.length + 1


def test_an_episode_whose_environment_fails_is_dropped_and_begun_again():
    environment = ToyEnvironment(copies=3, void_every=4)
    rollout = rollout_of(environment)
    finished = play(rollout, episodes=20)
    stats = rollout.stats()
    assert stats.voided >= 4
    assert len(environment.seeds_begun) - stats.voided - stats.episodes in (
        0,
        1,
        2,
        3,
    )  # those still being played
    assert {done.start for done in finished} >= set(range(17))
    for done in finished:
        assert done.episode.meta.seed == episode_seed(SEEDS, done.start)
        replay_slowly(ToyEnvironment(copies=1), done.episode)


def test_seed_streams_are_independent():
    streams = [(1,), (2,), (1, 0), (1, 1), (0, 1), (2**40, 1)]
    seeds = {episode_seed(stream, number) for stream in streams for number in range(50)}
    assert len(seeds) == 50 * len(streams)
    assert max(seeds) > 2**63
