"""The agent network step by step and layer by layer is torch's layers, in value and in gradient."""

import pytest
import torch
from torch.nn.utils.rnn import PackedSequence

from common.agent import AgentNetwork
from learner.histories import histories, layer_by_layer, step_by_step
from tests.episodes import SPEC
from tests.learner.batches import AGENT, in_double, ragged_batch


def by_torch(network, batch):
    rows, agents, _ = batch.obs_RNO.shape
    embedded = network.embedded(batch.obs_RNO, batch.last_actions()).view(rows * agents, -1)
    hidden = network.gru(PackedSequence(embedded, batch.row_sizes_T * agents))[0].data
    return hidden.view(rows, agents, -1), network.q(hidden).view(rows, agents, -1)


@pytest.mark.parametrize("outputs", ["q", "hidden", "both"])
@pytest.mark.parametrize(
    ("unroll", "threads"), [(step_by_step, 1), (step_by_step, 2), (step_by_step, 3), (layer_by_layer, 1)]
)
def test_values_and_gradients_are_those_of_torchs_layers(monkeypatch, unroll, threads, outputs):
    """A GPU has layer_by_layer; it runs on the CPU's tensors too."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    torch.manual_seed(0)
    network, batch = AgentNetwork(SPEC, AGENT).double(), in_double(ragged_batch())
    ours = unroll(network, batch)
    hidden, q = by_torch(network, batch)
    torch.testing.assert_close(ours.hidden_RND, hidden)
    torch.testing.assert_close(ours.q_RNA, q)
    used = [outputs != "hidden", outputs != "q"]  # an output that is not used has no gradient at all

    def loss(*both):
        torch.manual_seed(1)
        return sum((x * torch.randn_like(x)).sum() for x, use in zip(both, used, strict=True) if use)

    parameters = [p for name, p in network.named_parameters() if used[0] or not name.startswith("head")]
    mine = torch.autograd.grad(loss(ours.q_RNA, ours.hidden_RND), parameters)
    theirs = torch.autograd.grad(loss(q, hidden), parameters)
    for own, reference in zip(mine, theirs, strict=True):
        torch.testing.assert_close(own, reference)


@pytest.mark.parametrize("threads", [1, 2])
def test_values_are_the_same_without_training(monkeypatch, threads):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    network, batch = AgentNetwork(SPEC, AGENT), ragged_batch()
    training = histories(network, batch)
    evaluation = histories(network.requires_grad_(False), batch)
    torch.testing.assert_close(evaluation.q_RNA, training.q_RNA, rtol=0, atol=0)
    torch.testing.assert_close(evaluation.hidden_RND, training.hidden_RND, rtol=0, atol=0)
