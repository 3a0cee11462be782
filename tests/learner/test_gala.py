"""GALA is the paper's smoothing and sharpening, and its graph keeps the agents apart."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from learner.gala import GalaDecoder, GalaEncoder
from learner.graph import mix, mixed_linear, sharpening_smoothing_weights, sharpening_weights, smooth
from learner.vae import PriorVae


def _operators(nodes: int, weight: float):
    """(S, P) as Park et al. write them, for a complete graph with one edge weight."""
    adjacency = weight * (np.ones((nodes, nodes)) - np.eye(nodes))
    looped = adjacency + np.eye(nodes)
    d_smooth = np.diag(looped.sum(1) ** -0.5)
    d_sharp = np.diag((adjacency.sum(1) + 2.0) ** -0.5)
    return d_smooth @ looped @ d_smooth, d_sharp @ (2 * np.eye(nodes) - adjacency) @ d_sharp


@pytest.mark.parametrize("nodes", [1, 3, 8, 27])
def test_operators_are_those_of_the_weighted_complete_graph(nodes):
    x = np.random.default_rng(0).standard_normal((4, nodes, 5))
    smoothing, sharpening = _operators(nodes, 1.0 / nodes)
    torch.testing.assert_close(smooth(torch.from_numpy(x)), torch.from_numpy(smoothing @ x))
    sharp = mix(torch.from_numpy(x), *sharpening_weights(nodes))
    torch.testing.assert_close(sharp, torch.from_numpy(sharpening @ x))


@pytest.mark.parametrize("nodes", [3, 8, 27])
def test_a_layer_after_an_operator_is_both_of_them(nodes):
    torch.manual_seed(0)
    x, weight, bias = (torch.randn(*shape, dtype=torch.float64) for shape in ((4, nodes, 5), (6, 5), (6,)))
    inputs = [tensor.requires_grad_() for tensor in (x, weight, bias)]
    product = mixed_linear(x, weight, bias, sharpening_smoothing_weights(nodes))
    smoothing, sharpening = map(torch.from_numpy, _operators(nodes, 1.0 / nodes))
    one_by_one = F.linear(smoothing @ (sharpening @ x), weight, bias).flatten(0, 1)
    torch.testing.assert_close(product, one_by_one)
    to_product = torch.randn_like(product)
    ours = torch.autograd.grad((product * to_product).sum(), inputs)
    theirs = torch.autograd.grad((one_by_one * to_product).sum(), inputs)
    for own, reference in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own, reference)


def test_the_unweighted_graph_would_erase_the_nodes():
    """Why the weight is not 1: the trap itself, so that nobody takes it for a detail."""
    smoothing, _ = _operators(8, 1.0)
    assert np.linalg.matrix_rank(smoothing) == 1
    assert np.linalg.matrix_rank(_operators(8, 1.0 / 8)[0]) == 8


@pytest.mark.parametrize("nodes", [3, 8, 27])
def test_an_auto_encoder_tells_distinct_nodes_apart(nodes):
    torch.manual_seed(0)
    x = torch.randn(1, nodes, nodes)
    encoder, decoder = GalaEncoder((nodes,), 64, 32), GalaDecoder(32, 64, nodes)
    optimiser = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=1e-2)
    for _ in range(200):
        loss = (decoder(encoder(x)) - x).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    left = float(loss.detach()) / float((x - x.mean(dim=1, keepdim=True)).square().mean())
    assert left < 0.02, "a graph that erases its nodes leaves 0.7 and more"


def test_parameters_do_not_grow_with_the_team_but_the_priors_do():
    def count(module):
        return sum(p.numel() for p in module.parameters())

    # The modules take no number of nodes at all; one and the same instance serves both sizes.
    encoder, decoder = GalaEncoder((5, 9), 16, 8), GalaDecoder(4, 16, 9)
    for nodes in (3, 27):
        code = encoder(torch.zeros(2, nodes, 5), torch.zeros(2, nodes, 9))
        assert decoder(code[..., :4]).shape == (2, nodes, 9)
    assert count(PriorVae(27, 4, 16, 6)) > count(PriorVae(3, 4, 16, 6))


def test_parts_are_a_concatenation():
    encoder = GalaEncoder((2, 3), 16, 4)
    whole = GalaEncoder((5,), 16, 4)
    with torch.no_grad():
        whole.first[0].weight.copy_(torch.cat([part.weight for part in encoder.first], dim=1))
        whole.first[0].bias.copy_(encoder.first[0].bias)
        whole.last.load_state_dict(encoder.last.state_dict())
    a, b = torch.randn(6, 3, 2), torch.randn(6, 3, 3)
    torch.testing.assert_close(encoder(a, b), whole(torch.cat((a, b), dim=-1)))
