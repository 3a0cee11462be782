"""Temporal-difference targets over packed steps.

Shapes: R rows, P steps, B episodes, T slots of the longest episode.
"""

import torch
from torch import Tensor


def td_targets(reward_P: Tensor, terminated_P: Tensor, next_value_P: Tensor, gamma: float) -> Tensor:
    """y_t = r_t + gamma (1 - terminated_t) V_{t+1} (paper, "Components of the Learning Objective").

    A step at which the time limit cut the episode is not terminated: it bootstraps.
    """
    assert reward_P.shape == terminated_P.shape == next_value_P.shape
    return reward_P + gamma * (1.0 - terminated_P) * next_value_P


def td_lambda_targets(
    reward_P: Tensor,
    terminated_P: Tensor,
    next_value_P: Tensor,
    row_sizes_T: Tensor,
    *,
    gamma: float,
    td_lambda: float,
) -> Tensor:
    """G_t = r_t + gamma (1 - terminated_t) [(1 - lambda) V_{t+1} + lambda G_{t+1}], G_L = V_L.

    Every episode bootstraps at its own last step, however long the others of its batch are.
    """
    if td_lambda == 0.0:
        return td_targets(reward_P, terminated_P, next_value_P, gamma)
    assert reward_P.shape == terminated_P.shape == next_value_P.shape
    sizes = row_sizes_T[1:].tolist()
    discount_P = gamma * (1.0 - terminated_P)
    one_step = torch.addcmul(reward_P, discount_P, next_value_P, value=1.0 - td_lambda).split(sizes)
    carried = (td_lambda * discount_P).split(sizes)
    value = next_value_P.split(sizes)
    returns = [value[-1]]
    for t in reversed(range(len(sizes))):
        later = returns[-1]
        # Episodes that end at this step are the last ones of its block: they have no G_{t+1}, but V_{t+1}.
        later = torch.cat((later[: sizes[t]], value[t][len(later) :]))
        returns.append(torch.addcmul(one_step[t], carried[t], later))
    return torch.cat(returns[:0:-1])
