"""TD targets against a slow per-episode writing of their definition."""

import numpy as np
import pytest
import torch

from common.payload import encode_episode
from learner.batching import decode_batch
from learner.targets import td_lambda_targets
from tests.episodes import SPEC, make_episode
from tests.learner.equations import lambda_returns

GAMMA = 0.9
LENGTHS_AND_ENDS = ((5, True), (9, False), (9, True), (1, False), (1, True), (20, False))


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
        reward, values = episodes[position].reward, next_value[steps].numpy()
        expected = lambda_returns(reward, ended, values, gamma=GAMMA, td_lambda=td_lambda)
        np.testing.assert_allclose(
            targets[steps].numpy(), expected, rtol=1e-5, atol=1e-5, err_msg=f"{position}"
        )
