"""COMA learns a game of coordination from its own play, and its last actions are drawn from its policy."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from common.exploration import ExplorationSettings
from common.payload import encode_episode
from common.settings import AgentSettings
from learner.algorithms.coma import counterfactual_advantage
from learner.algorithms.registry import build_algorithm
from learner.batching import decode_batch
from learner.settings import ComaSettings, LearnerSettings, OptimiserSettings
from tests.episodes import SPEC, make_episode
from tests.learner.batches import LENGTHS, build, ragged_batch

GAME = dataclasses.replace(SPEC, n_agents=2, n_actions=3, obs_size=1, state_size=1, fallback_action=0)
PAYOFF = np.array([[8.0, -12.0, -12.0], [-12.0, 0.0, 0.0], [-12.0, 0.0, 6.0]])
"""Claus and Boutilier's climbing game in small: a single agent that leaves the best pair is punished."""


def _episodes(policy_NA, rng):
    """Eight games of one step, both agents drawing from their policies."""
    for seq in range(1, 9):
        actions = np.array([[rng.choice(3, p=p / p.sum()) for p in policy_NA]], np.uint8)
        game = make_episode(GAME, length=1, seq=seq)
        yield dataclasses.replace(
            game,
            meta=dataclasses.replace(game.meta, episode_return=float(PAYOFF[*actions[0]])),
            obs=np.ones_like(game.obs),
            state=np.ones_like(game.state),
            avail_actions=np.ones_like(game.avail_actions),
            actions=actions,
            reward=np.array([PAYOFF[*actions[0]]], np.float32),
        )


def test_it_learns_to_coordinate():
    settings = LearnerSettings(
        algorithm="coma",
        coma=ComaSettings(critic_hidden_size=16, critic_learning_rate=1e-2),
        optimiser=OptimiserSettings(learning_rate=1e-2),
    )
    algorithm = build_algorithm(
        GAME,
        AgentSettings(hidden_size=8, action_choice="softmax"),
        settings,
        exploration=ExplorationSettings(epsilon_start=0.5, epsilon_finish=0.02, epsilon_anneal_steps=600),
        device=torch.device("cpu"),
        seed=0,
    )
    rng, policy_NA, returns = np.random.default_rng(0), np.full((2, 3), 1 / 3), []
    for _ in range(120):
        games = list(_episodes(policy_NA, rng))
        batch = decode_batch([encode_episode(game) for game in games], GAME)
        algorithm.train_step(batch)
        policy_NA = algorithm.policy(batch)[0].detach().double().numpy()
        returns.append(np.mean([game.meta.episode_return for game in games]))
    assert np.mean(returns[:20]) < 0.0
    assert np.mean(returns[-20:]) > 5.0  # one of the two pairs that no agent leaves alone with profit


def test_the_advantage_of_an_agent_is_what_its_own_action_added():
    policy, q = torch.tensor([[[0.5, 0.25, 0.25]]]), torch.tensor([[[4.0, 8.0, 0.0]]])
    advantage = counterfactual_advantage(policy, q, torch.tensor([[1]]))
    assert advantage.tolist() == [[4.0]]
    of_each = [float(counterfactual_advantage(policy, q, torch.tensor([[u]]))) for u in range(3)]
    assert np.dot(policy[0, 0].numpy(), of_each) == pytest.approx(
        0.0
    )  # the baseline does not change the mean


def test_unavailable_actions_have_no_probability_and_are_not_drawn():
    algorithm, batch = build("coma"), ragged_batch()
    policy = algorithm.policy(batch)
    assert (policy[~batch.avail_actions_RNA] == 0).all()
    torch.testing.assert_close(policy.sum(dim=-1), torch.ones(policy.shape[:2]))
    for _ in range(20):
        actions = algorithm.joint_actions(batch, policy)
        assert batch.avail_actions_RNA.gather(-1, actions.unsqueeze(-1)).all()
        torch.testing.assert_close(actions[batch.step_rows_P], batch.actions_PN)


def test_the_last_actions_are_drawn_as_likely_as_the_policy_has_them():
    algorithm, batch = build("coma"), ragged_batch()
    policy = algorithm.policy(batch).detach()
    draws = 4000
    counts = torch.zeros(len(LENGTHS), SPEC.n_agents, SPEC.n_actions)
    for _ in range(draws):
        drawn = algorithm.joint_actions(batch, policy)[batch.last_rows_B]
        counts += F.one_hot(drawn, SPEC.n_actions)
    expected = policy[batch.last_rows_B]
    error = (counts / draws - expected) / (expected * (1 - expected) / draws).sqrt().clamp(min=1e-6)
    assert error.abs().max() < 4.5  # standard deviations, of 105 shares
