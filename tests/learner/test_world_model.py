"""What the world model's losses reach and refuse. Their values are checked in test_equations.py."""

import pytest
import torch

from learner.world_model import WorldModel
from tests.episodes import SPEC
from tests.learner.batches import AGENT, WORLD_MODEL, ragged_batch


def _hidden_rows(batch):
    """Hidden states as data: any function of (episode, time) will do, and this one is easy to look up."""
    torch.manual_seed(5)
    return torch.randn(*batch.obs_RNO.shape[:2], AGENT.hidden_size)


@pytest.mark.parametrize("changes", [{}, {"posterior": "vae"}, {"kl_balance": None}])
def test_every_parameter_gets_a_gradient_from_the_losses_alone(changes):
    torch.manual_seed(0)
    model = WorldModel(SPEC, AGENT.hidden_size, WORLD_MODEL.model_copy(update=changes))
    batch = ragged_batch()
    losses, _ = model.losses(batch, _hidden_rows(batch), torch.Generator())
    torch.stack(list(losses.values())).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_hidden_states_must_be_data():
    model = WorldModel(SPEC, AGENT.hidden_size, WORLD_MODEL)
    batch = ragged_batch()
    with pytest.raises(AssertionError):
        model.losses(batch, _hidden_rows(batch).requires_grad_(), torch.Generator())


def test_without_a_prior_there_is_no_transition():
    model = WorldModel(SPEC, AGENT.hidden_size, WORLD_MODEL.model_copy(update={"prior": False}))
    assert model.ac_prior is None and model.af_prior is None
    batch = ragged_batch()
    losses, _ = model.losses(batch, _hidden_rows(batch), torch.Generator())
    assert all(torch.isfinite(loss) for loss in losses.values())
