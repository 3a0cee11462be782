"""Exploration and greed stay within the available actions; hidden states belong to their copies."""

import numpy as np
import pytest
import torch

from actor.environment import Frame
from actor.policy import Policy, greedy_actions, random_actions
from common.agent import AgentNetwork, pack_weights
from common.errors import FatalError
from common.exploration import ExplorationSettings, epsilon_at
from common.settings import AgentSettings
from common.types import Weights
from tests.episodes import SPEC

AGENT = AgentSettings(hidden_size=16)
K, N, A = 5, SPEC.n_agents, SPEC.n_actions


def random_frame(rng, copies=K):
    avail = rng.random((copies, N, A)) < 0.4
    avail[..., SPEC.fallback_action] |= ~avail.any(axis=-1)
    return Frame(
        obs_KNO=rng.standard_normal((copies, N, SPEC.obs_size)).astype(np.float32),
        state_KS=np.zeros((copies, SPEC.state_size), np.float32),
        avail_actions_KNA=avail,
    )


def nothing_before(copies=K):
    return np.full((copies, N), -1, np.int64)


def chosen_are_available(actions, frame):
    return np.take_along_axis(frame.avail_actions_KNA, actions[..., None], axis=-1).all()


@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0])
def test_unavailable_actions_are_never_chosen(epsilon, rng):
    policy = Policy(SPEC, AGENT, seed=1)
    hidden, last = policy.initial_hidden(K), nothing_before()
    for _ in range(100):
        frame = random_frame(rng)
        last, hidden = policy.act(frame, last, hidden, epsilon=epsilon)
        assert chosen_are_available(last, frame)


def test_weights_that_are_no_numbers_still_give_available_actions(rng):
    policy = Policy(SPEC, AGENT, seed=1)
    network = AgentNetwork(SPEC, AGENT)
    torch.nn.init.constant_(network.head.bias, float("nan"))
    policy.load(pack_weights(network, session="s", version=1))
    frame = random_frame(rng)
    actions, _ = policy.act(frame, nothing_before(), policy.initial_hidden(K), epsilon=0.0)
    assert chosen_are_available(actions, frame)


def test_greedy_takes_the_best_available_action():
    q = np.array([[[5.0, 1.0, -2.0], [-3.0, -1.0, -2.0]]], np.float32)
    avail = np.array([[[False, True, True], [True, False, True]]])
    np.testing.assert_array_equal(greedy_actions(q, avail), [[1, 2]])


def test_exploration_is_uniform_over_available_actions(rng):
    avail = np.zeros((20_000, 1, 6), bool)
    avail[..., [1, 2, 5]] = True
    counts = np.bincount(random_actions(avail, rng).ravel(), minlength=6)
    np.testing.assert_array_equal(counts[[0, 3, 4]], 0)
    # 20 000 draws: the standard error of a third of them is 67.
    assert (np.abs(counts[[1, 2, 5]] - 20_000 / 3) < 5 * 67).all()


def test_a_softmax_policy_draws_by_its_logits_among_what_is_available(rng):
    copies, logits = 20_000, np.array([1.0, 5.0, 0.0, -1.0])
    network = AgentNetwork(SPEC, AGENT)
    torch.nn.init.zeros_(network.head.weight)
    network.head.bias.data = torch.full((A,), 9.0)
    network.head.bias.data[:4] = torch.tensor(logits)
    frame = random_frame(rng, copies)
    frame.avail_actions_KNA[...] = False
    frame.avail_actions_KNA[..., [0, 2, 3]] = True
    policy = Policy(SPEC, AGENT, seed=2, choice="softmax")
    policy.load(pack_weights(network, session="s", version=1))
    epsilon = 0.3
    actions, _ = policy.act(frame, nothing_before(copies), policy.initial_hidden(copies), epsilon=epsilon)
    softmax = np.exp(logits[[0, 2, 3]]) / np.exp(logits[[0, 2, 3]]).sum()
    expected = (1 - epsilon) * softmax + epsilon / 3  # what COMA's learner takes it to be
    shares = np.bincount(actions.ravel(), minlength=A) / actions.size
    assert shares[[0, 2, 3]].sum() == 1.0
    assert (np.abs(shares[[0, 2, 3]] - expected) < 5 * 0.5 / np.sqrt(actions.size)).all()


def test_a_policy_for_tests_is_greedy_whatever_the_agent_learns_from(rng):
    settings = AGENT.model_copy(update={"action_choice": "softmax"})
    frame, policy = random_frame(rng), Policy(SPEC, settings, seed=2)
    start = nothing_before(), policy.initial_hidden(K)
    q, _ = policy.q_values(frame, *start)
    actions, _ = policy.act(frame, *start, epsilon=0.0)
    np.testing.assert_array_equal(actions, greedy_actions(q, frame.avail_actions_KNA))


def test_epsilon_is_the_share_of_explored_actions(rng):
    frame = random_frame(rng, copies=4_000)
    policy = Policy(SPEC, AGENT, seed=3)
    hidden, last = policy.initial_hidden(4_000), nothing_before(4_000)
    greedy, _ = policy.act(frame, last, hidden, epsilon=0.0)
    mixed, _ = policy.act(frame, last, hidden, epsilon=0.25)
    options = frame.avail_actions_KNA.sum(axis=-1)
    expected = 0.25 * (1 - 1 / options).mean()
    assert abs((mixed != greedy).mean() - expected) < 5 * 0.5 / np.sqrt(greedy.size)


def test_copies_do_not_touch_each_other_and_hidden_states_carry_on(rng):
    """All copies in one call equal each copy alone, over several steps."""
    together = Policy(SPEC, AGENT, seed=5)
    frames = [random_frame(rng) for _ in range(4)]
    hidden, last, actions = together.initial_hidden(K), nothing_before(), []
    for frame in frames:
        last, hidden = together.act(frame, last, hidden, epsilon=0.0)
        actions.append(last)
    for k in range(K):
        hidden_k, last_k = together.initial_hidden(1), nothing_before(1)
        for frame, all_actions in zip(frames, actions, strict=True):
            alone = Frame(
                obs_KNO=frame.obs_KNO[k : k + 1],
                state_KS=frame.state_KS[k : k + 1],
                avail_actions_KNA=frame.avail_actions_KNA[k : k + 1],
            )
            last_k, hidden_k = together.act(alone, last_k, hidden_k, epsilon=0.0)
            np.testing.assert_array_equal(last_k[0], all_actions[k])
        torch.testing.assert_close(hidden_k[0], hidden[k])


def test_the_network_sees_obs_last_action_and_agent(rng):
    policy = Policy(SPEC, AGENT, seed=6)
    network = AgentNetwork(SPEC, AGENT)
    policy.load(pack_weights(network, session="s", version=1))
    frame = random_frame(rng)
    last = rng.integers(-1, A, (K, N))
    actions, hidden = policy.act(frame, last, policy.initial_hidden(K), epsilon=0.0)
    last_action = np.eye(A + 1, dtype=np.float32)[last][..., :A]  # row -1 is empty once its column is cut off
    agent = np.broadcast_to(np.eye(N, dtype=np.float32), (K, N, N))
    inputs = torch.tensor(np.concatenate([frame.obs_KNO, last_action, agent], axis=-1))
    embedded = torch.relu(network.embed(inputs)).view(1, K * N, -1)
    expected = network.gru(embedded)[0].view(K, N, -1)
    torch.testing.assert_close(hidden, expected)
    q = network.q(expected).detach().numpy()
    np.testing.assert_array_equal(actions, greedy_actions(q, frame.avail_actions_KNA))


def test_clear_hidden_zeroes_the_copies_that_begin():
    policy = Policy(SPEC, AGENT, seed=1)
    hidden = torch.ones(K, N, AGENT.hidden_size)
    mask = np.array([True, False, False, True, False])
    cleared = policy.clear_hidden(hidden, mask)
    np.testing.assert_array_equal(cleared[:, 0, 0], ~mask)


def test_equal_seeds_play_alike_and_others_do_not(rng):
    frame = random_frame(rng)
    first, same, other = (
        Policy(SPEC, AGENT, seed=seed).act(frame, nothing_before(), torch.zeros(K, N, 16), epsilon=1.0)[0]
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, same)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(
    "weights",
    [
        pack_weights(AgentNetwork(SPEC, AgentSettings(hidden_size=8)), session="s", version=7),
        Weights(session="s", version=7, data=b"no tensors"),
    ],
)
def test_weights_of_another_network_are_told(weights):
    policy = Policy(SPEC, AGENT, seed=1)
    with pytest.raises(FatalError, match="version 7 do not fit"):
        policy.load(weights)
    assert policy.weights.version == 0


@pytest.mark.parametrize(
    ("env_steps", "epsilon"), [(0, 1.0), (25_000, 0.525), (50_000, 0.05), (50_001, 0.05), (10**9, 0.05)]
)
def test_epsilon_falls_linearly_in_the_global_steps(env_steps, epsilon):
    assert epsilon_at(ExplorationSettings(), env_steps) == pytest.approx(epsilon)
