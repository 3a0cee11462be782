"""Groups of parameters: each is clipped by its own norm and has its own optimiser."""

import pytest
import torch
from torch import nn

from learner.optimiser import Optimiser, ParameterGroup
from learner.settings import OptimiserSettings

RMSPROP = OptimiserSettings(name="rmsprop", learning_rate=0.01, max_grad_norm=1.0)
ADAM = OptimiserSettings(name="adam", learning_rate=0.1, max_grad_norm=5.0)


def _parameters():
    return nn.Parameter(torch.tensor([1.0, 2.0])), nn.Parameter(torch.tensor([3.0]))


def _loss(x, y):
    return 100.0 * (x**2).sum() + (y**2).sum()


def test_each_group_moves_as_if_it_were_alone():
    x, y = _parameters()
    together = Optimiser({"x": ParameterGroup([x], RMSPROP), "y": ParameterGroup([y], ADAM)})
    x_alone, y_alone = _parameters()
    rmsprop = torch.optim.RMSprop([x_alone], lr=0.01, alpha=RMSPROP.rmsprop_alpha, eps=RMSPROP.rmsprop_eps)
    adam = torch.optim.Adam([y_alone], lr=0.1)
    for _ in range(3):
        norms = together.step(_loss(x, y))
        for parameter, optimiser, limit in ((x_alone, rmsprop, 1.0), (y_alone, adam, 5.0)):
            optimiser.zero_grad()
            _loss(x_alone, y_alone).backward(inputs=[parameter])
            norm = nn.utils.clip_grad_norm_([parameter], limit)
            torch.testing.assert_close(norms["x" if parameter is x_alone else "y"], norm)
            optimiser.step()
        torch.testing.assert_close(x, x_alone)
        torch.testing.assert_close(y, y_alone)


def test_the_state_of_other_groups_is_refused():
    x, y = _parameters()
    one = Optimiser({"x": ParameterGroup([x], RMSPROP)})
    two = Optimiser({"x": ParameterGroup([x], RMSPROP), "y": ParameterGroup([y], ADAM)})
    two.step(_loss(x, y))
    with pytest.raises(KeyError, match="y"):
        one.load_state_dict(two.state_dict())
