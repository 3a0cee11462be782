"""The agent network unrolled over a batch.

On the CPU a compiled loop (learner/kernels/agent.py) takes a share of the sequences through all layers, step
by step, forward and back. On a GPU each layer takes all rows at once.

Shapes: R rows and P steps of a packed batch (learner/batching.py), N agents, M = R * N agent rows; O obs,
D hidden, A actions, V rows of the table of one-hot codes.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.agent import AgentNetwork
from learner.batching import EpisodeBatch
from learner.kernels import agent
from learner.kernels.blas import product_routine
from learner.kernels.layout import (
    agent_gradients,
    agent_weights,
    agent_weights_back,
    flat,
    flat_output,
    summed,
    zeros_like,
)
from learner.packed_gru import packed_gru
from learner.shares import Share, in_parallel, shares_of


@dataclass(frozen=True, kw_only=True)
class Histories:
    """What the agent network makes of every row."""

    hidden_RND: Tensor
    q_RNA: Tensor
    """The head's outputs: Q-values, or a policy's logits."""


def histories(network: AgentNetwork, batch: EpisodeBatch) -> Histories:
    """Every episode from its start."""
    return layer_by_layer(network, batch) if batch.obs_RNO.is_cuda else step_by_step(network, batch)


def layer_by_layer(network: AgentNetwork, batch: EpisodeBatch) -> Histories:
    """As a GPU does it."""
    rows, agents, _ = batch.obs_RNO.shape
    embedded = network.embedded(batch.obs_RNO, batch.last_actions()).view(rows * agents, -1)
    hidden_RND = packed_gru(network.gru, embedded, batch.row_sizes_T * agents).view(rows, agents, -1)
    return Histories(hidden_RND=hidden_RND, q_RNA=network.q(hidden_RND))


def step_by_step(network: AgentNetwork, batch: EpisodeBatch) -> Histories:
    """As the CPU does it."""
    rows, agents, _ = batch.obs_RNO.shape
    hidden_MD, q_MA = _Unroll.apply(  # type: ignore[no-untyped-call]
        batch.obs_RNO.flatten(0, 1),
        network.code_rows(batch.last_actions()).flatten(),
        batch.row_sizes_T * agents,
        *network.embedding(),
        *network.gru.parameters(),
        *network.head.parameters(),
    )
    return Histories(hidden_RND=hidden_MD.view(rows, agents, -1), q_RNA=q_MA.view(rows, agents, -1))


def values_of(q_PNA: Tensor, actions_PN: Tensor) -> Tensor:
    """The values [P, N] of these actions."""
    return q_PNA.gather(-1, actions_PN.unsqueeze(-1)).squeeze(-1)


class _Unroll(torch.autograd.Function):
    """relu(table[code] + obs W^T) -> GRU -> head."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        obs_MO: Tensor,
        codes_M: Tensor,
        sizes_T: Tensor,
        *weights: Tensor,
    ) -> tuple[Tensor, Tensor]:
        training, size, actions = any(ctx.needs_input_grad), len(weights[0]), len(weights[-1])
        hidden_MD, q_MA = (obs_MO.new_empty(len(obs_MO), width) for width in (size, actions))
        saved = [torch.empty_like(hidden_MD) for _ in range(4)] if training else []
        kernel_weights, sizes, kept = agent_weights(weights), sizes_T.numpy(), tuple(map(flat_output, saved))
        obs, codes, hidden, q = flat(obs_MO), flat(codes_M), flat_output(hidden_MD), flat_output(q_MA)
        blas = product_routine(obs.dtype)

        def work(share: Share) -> None:
            one_step = tuple(np.empty((share[1] - share[0]) * size, obs.dtype) for _ in range(4))
            agent.unroll(blas, share, sizes, obs, codes, kernel_weights, kept or one_step, hidden, q)

        in_parallel(work, shares_of(sizes))
        ctx.set_materialize_grads(False)  # few losses look at both outputs
        ctx.save_for_backward(obs_MO, codes_M, sizes_T, hidden_MD, *saved, *weights)
        return hidden_MD, q_MA

    @staticmethod
    def backward(ctx: Any, to_hidden_MD: Tensor | None, to_q_MA: Tensor | None) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        obs_MO, codes_M, sizes_T, hidden_MD, *rest = ctx.saved_tensors
        saved, weights = tuple(map(flat, rest[:4])), rest[4:]
        kernel_weights, back, sizes = agent_weights(weights), agent_weights_back(weights), sizes_T.numpy()
        obs, codes, hidden = flat(obs_MO), flat(codes_M), flat(hidden_MD)
        nothing = obs_MO.new_empty(0)
        to_hidden, to_q = (flat(nothing if x is None else x) for x in (to_hidden_MD, to_q_MA))
        blas, shares = product_routine(obs.dtype), shares_of(sizes)
        gradients = {share: zeros_like(kernel_weights) for share in shares}

        def work(share: Share) -> None:
            agent.walk_back(
                *(blas, share, sizes, obs, codes, kernel_weights, back, saved, hidden, to_hidden, to_q),
                gradients[share],
            )

        in_parallel(work, shares)
        return None, None, None, *agent_gradients(summed(gradients.values()), weights)
