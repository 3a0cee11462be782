"""The fused reconstruction error and the composed static branch are the plain ones."""

import pytest
import torch
from torch.nn import functional as F

from learner import reconstruction
from learner.reconstruction import linear_mse
from learner.world_model import WorldModel
from tests.episodes import SPEC
from tests.learner.batches import AGENT, WORLD_MODEL


@pytest.mark.parametrize("block_rows", [4, 7, 1000])
def test_value_and_gradients_are_those_of_the_plain_form(monkeypatch, block_rows):
    monkeypatch.setattr(reconstruction, "BLOCK_ROWS", block_rows)
    torch.manual_seed(0)
    hidden = torch.randn(5, 3, 6, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(4, dtype=torch.float64, requires_grad=True)
    target = torch.randn(5, 3, 4, dtype=torch.float64)
    inputs = (hidden, weight, bias)
    ours, plain = linear_mse(*inputs, target), F.mse_loss(F.linear(*inputs), target)
    torch.testing.assert_close(ours, plain)
    for mine, reference in zip(
        torch.autograd.grad(3.0 * ours, inputs), torch.autograd.grad(3.0 * plain, inputs), strict=True
    ):
        torch.testing.assert_close(mine, reference)


def test_a_target_that_needs_a_gradient_is_refused():
    target = torch.zeros(2, 4, requires_grad=True)
    with pytest.raises(AssertionError):
        linear_mse(torch.zeros(2, 6), torch.zeros(4, 6), torch.zeros(4), target)


@pytest.mark.parametrize("posterior", ["gala", "vae"])
def test_the_static_code_of_an_imagined_obs_needs_no_obs(posterior):
    torch.manual_seed(0)
    settings = WORLD_MODEL.model_copy(update={"posterior": posterior})
    model = WorldModel(SPEC, AGENT.hidden_size, settings).double()
    v = torch.randn(7, SPEC.n_agents, settings.latent_size, dtype=torch.float64)
    by_way_of_obs = model.st_encoder(model.decode_af(v)[1])
    torch.testing.assert_close(model.static_of_decoded(v), by_way_of_obs)
    parameters = list(model.st_encoder.parameters()) + list(model.af_decoder.parameters())
    for mine, reference in zip(
        torch.autograd.grad(model.static_of_decoded(v).square().sum(), parameters),
        torch.autograd.grad(by_way_of_obs.square().sum(), parameters),
        strict=True,
    ):
        torch.testing.assert_close(mine, reference)
