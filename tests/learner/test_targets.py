"""TD targets against a slow per-episode writing of their definition."""

import numpy as np
import pytest
import torch

from common.codec import encode_episode
from learner.batching import decode_batch
from learner.targets import td_lambda_targets
from tests.episodes import SPEC, make_episode

GAMMA = 0.9
LENGTHS_AND_ENDS = ((5, True), (9, False), (9, True), (1, False), (1, True), (20, False))


def _returns(reward, terminated, next_value, td_lambda):
    """G_t = r_t + gamma [(1 - lambda) V_{t+1} + lambda G_{t+1}], G_L = V_L; nothing after a true end."""
    length = len(reward)
    g = np.zeros(length)
    for t in reversed(range(length)):
        if t == length - 1:
            future = 0.0 if terminated else next_value[t]
        else:
            future = (1 - td_lambda) * next_value[t] + td_lambda * g[t + 1]
        g[t] = reward[t] + GAMMA * future
    return g


@pytest.mark.parametrize("td_lambda", [0.0, 0.6, 1.0])
def test_every_episode_bootstraps_at_its_own_end(td_lambda):
    episodes = [
        make_episode(length=length, seq=i + 1, terminated=ended)
        for i, (length, ended) in enumerate(LENGTHS_AND_ENDS)
    ]
    batch = decode_batch([encode_episode(e) for e in episodes], SPEC)
    next_value = torch.randn(len(batch.reward_P), generator=torch.Generator().manual_seed(0)) * 10
    targets = td_lambda_targets(
        batch.reward_P,
        batch.terminated_P,
        next_value,
        batch.row_sizes_T,
        gamma=GAMMA,
        td_lambda=td_lambda,
    )
    order = np.argsort([-length for length, _ in LENGTHS_AND_ENDS], kind="stable")
    sizes = batch.row_sizes_T[1:]
    starts = (sizes.cumsum(0) - sizes).tolist()
    for rank, position in enumerate(order):
        length, ended = LENGTHS_AND_ENDS[position]
        steps = [starts[t] + rank for t in range(length)]
        expected = _returns(episodes[position].reward, ended, next_value[steps].numpy(), td_lambda)
        np.testing.assert_allclose(
            targets[steps].numpy(), expected, rtol=1e-5, atol=1e-5, err_msg=f"{position}"
        )
