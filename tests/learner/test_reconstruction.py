"""The fused error of a decoder and the composed static branch are the plain ones."""

import pytest
import torch
from torch.nn import functional as F

from learner import reconstruction
from learner.gala import GalaDecoder
from learner.world_model import WorldModel
from tests.episodes import SPEC
from tests.learner.batches import AGENT, WORLD_MODEL


@pytest.mark.parametrize("latent_size", [0, 2])
@pytest.mark.parametrize("block_nodes", [1, 7, 1000])
def test_value_and_gradients_are_those_of_the_plain_form(monkeypatch, block_nodes, latent_size):
    monkeypatch.setattr(reconstruction, "BLOCK_NODES", block_nodes)
    torch.manual_seed(0)
    decoder = GalaDecoder(4, 6, latent_size + 5).double()
    code = torch.randn(5, 3, 4, dtype=torch.float64, requires_grad=True)
    latent = torch.randn(5, 3, latent_size, dtype=torch.float64, requires_grad=True)
    data = torch.randn(5, 3, 5, dtype=torch.float64)
    ours = decoder.error(code, data, latent)
    plain = F.mse_loss(decoder(code), torch.cat((latent, data), dim=-1))
    torch.testing.assert_close(ours, plain)
    inputs = [code, latent, *decoder.parameters()]
    for mine, reference in zip(
        torch.autograd.grad(3.0 * ours, inputs), torch.autograd.grad(3.0 * plain, inputs), strict=True
    ):
        torch.testing.assert_close(mine, reference)


def test_data_that_needs_a_gradient_is_refused():
    with pytest.raises(AssertionError):
        GalaDecoder(4, 6, 5).error(torch.zeros(2, 3, 4), torch.zeros(2, 3, 5, requires_grad=True))


@pytest.mark.parametrize("posterior", ["gala", "vae"])
def test_an_imagined_obs_enters_the_static_encoder_without_being_computed(posterior):
    torch.manual_seed(0)
    settings = WORLD_MODEL.model_copy(update={"posterior": posterior})
    model = WorldModel(SPEC, AGENT.hidden_size, settings).double()
    v = torch.randn(7, SPEC.n_agents, settings.latent_size, dtype=torch.float64)
    by_way_of_obs = model.st_encoder.project(0, model.decode_af(v)[1])
    torch.testing.assert_close(model.project_decoded(v), by_way_of_obs)
    parameters = list(model.st_encoder.first.parameters()) + list(model.af_decoder.parameters())
    for mine, reference in zip(
        torch.autograd.grad(model.project_decoded(v).square().sum(), parameters),
        torch.autograd.grad(by_way_of_obs.square().sum(), parameters),
        strict=True,
    ):
        torch.testing.assert_close(mine, reference)
