"""The recurrences walked back by hand, the compiled one and that of a GPU, are the one autograd walks."""

import pytest
import torch

from learner import latent_recurrence
from learner.gala import GalaEncoder
from learner.latent_recurrence import unroll_encoder, unroll_latent

SIZES = [5, 5, 4, 2, 2, 1]
LATENT, OBS, HIDDEN = 4, 6, 9


def _setup(nodes):
    torch.manual_seed(0)
    encoder = GalaEncoder((LATENT, OBS), HIDDEN, 2 * LATENT).double()
    with torch.no_grad():
        encoder.last.bias[LATENT] = 9.0  # one log-variance beyond its range
    obs = torch.randn(sum(SIZES), nodes, OBS, dtype=torch.float64)
    noise = torch.randn(sum(SIZES), nodes, LATENT, dtype=torch.float64)
    return encoder, encoder.project(1, obs), noise


@pytest.mark.parametrize("nodes", [1, 3])
@pytest.mark.parametrize("recurrence", ["_CompiledRecurrence", "_Recurrence"])
def test_values_and_gradients_are_those_of_autograd(monkeypatch, recurrence, nodes):
    """A GPU has the second; it runs on the CPU's tensors too."""
    chosen = getattr(latent_recurrence, recurrence)
    monkeypatch.setattr(latent_recurrence, "_CompiledRecurrence", chosen)
    encoder, from_obs, noise = _setup(nodes)
    inputs = [from_obs, encoder.first[0].weight, encoder.first[0].bias, *encoder.last.parameters()]
    weights = [torch.randn(sum(SIZES), nodes, n, dtype=torch.float64) for n in (2 * LATENT, LATENT)]
    results, gradients = [], []
    for unroll in (unroll_latent, unroll_encoder):
        outputs = unroll(encoder, from_obs, noise, SIZES)
        loss = sum((x * w).sum() for x, w in zip(outputs, weights, strict=True))
        results.append(outputs)
        gradients.append(torch.autograd.grad(loss, inputs, retain_graph=True))
    for ours, reference in zip(results[0] + gradients[0], results[1] + gradients[1], strict=True):
        torch.testing.assert_close(ours, reference)
