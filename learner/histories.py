"""The agent network unrolled over a batch.

On the CPU a block of time steps goes through all layers while it is in the processor's cache, forward and
back. On a GPU each layer takes all rows at once.

Shapes: R rows and P steps of a packed batch (learner/batching.py), N agents, M = R * N agent rows, of which a
block has K; O obs, D hidden, A actions, V rows of the table of one-hot codes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from common.agent import AgentNetwork
from learner.batching import EpisodeBatch
from learner.packed_gru import GruBackward, GruForward, largest_block, packed_gru, time_blocks


@dataclass(frozen=True, kw_only=True)
class Histories:
    """What the agent network makes of every row."""

    hidden_RND: Tensor
    q_RNA: Tensor
    """The head's outputs: Q-values, or a policy's logits."""


def histories(network: AgentNetwork, batch: EpisodeBatch) -> Histories:
    """Every episode from its start."""
    rows, agents, _ = batch.obs_RNO.shape
    last_actions, sizes = batch.last_actions(), batch.row_sizes_T * agents
    if batch.obs_RNO.is_cuda:
        embedded = network.embedded(batch.obs_RNO, last_actions).view(rows * agents, -1)
        hidden_RND = packed_gru(network.gru, embedded, sizes).view(rows, agents, -1)
        return Histories(hidden_RND=hidden_RND, q_RNA=network.q(hidden_RND))
    hidden_MD, q_MA = _Unroll.apply(  # type: ignore[no-untyped-call]
        batch.obs_RNO.flatten(0, 1),
        network.code_rows(last_actions).flatten(),
        sizes.tolist(),
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
        sizes: Sequence[int],
        from_obs_DO: Tensor,
        table_VD: Tensor,
        *gru_and_head: Tensor,
    ) -> tuple[Tensor, Tensor]:
        *gru_weights, head_AD, head_bias_A = gru_and_head
        training, embedded = any(ctx.needs_input_grad), []
        gru = GruForward(gru_weights, sizes, training=training)
        hidden_MD, q_MA = (obs_MO.new_empty(len(obs_MO), width) for width in (gru.size, len(head_AD)))
        for times, rows in time_blocks(sizes):
            x_KD = torch.index_select(table_VD, 0, codes_M[rows])
            x_KD.addmm_(obs_MO[rows], from_obs_DO.t()).relu_()
            gru.advance(times, x_KD, out=hidden_MD[rows])
            torch.addmm(head_bias_A, hidden_MD[rows], head_AD.t(), out=q_MA[rows])
            if training:
                embedded.append(x_KD)
        ctx.set_materialize_grads(False)  # few losses look at both outputs
        ctx.save_for_backward(
            obs_MO, codes_M, table_VD, head_AD, hidden_MD, *gru_weights, *embedded, *gru.gates
        )
        ctx.sizes = sizes
        return hidden_MD, q_MA

    @staticmethod
    def backward(ctx: Any, to_hidden_MD: Tensor | None, to_q_MA: Tensor | None) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        obs_MO, codes_M, table_VD, head_AD, hidden_MD, *saved = ctx.saved_tensors
        if to_q_MA is None:
            to_q_MA = hidden_MD.new_zeros(len(hidden_MD), len(head_AD))
        blocks = list(time_blocks(ctx.sizes))
        embedded, gates = saved[4 : 4 + len(blocks)], saved[4 + len(blocks) :]
        gru = GruBackward(saved[:4], hidden_MD, gates, ctx.sizes)
        to_from_obs, to_table = (
            obs_MO.new_zeros(table_VD.shape[1], obs_MO.shape[1]),
            torch.zeros_like(table_VD),
        )
        to_head, to_head_bias = torch.zeros_like(head_AD), head_AD.new_zeros(len(head_AD))
        gradient = hidden_MD.new_empty(largest_block(ctx.sizes), hidden_MD.shape[1])
        for (times, rows), x_KD in reversed(list(zip(blocks, embedded, strict=True))):
            gradient_KD, to_q_KA = gradient[: len(x_KD)], to_q_MA[rows]
            torch.mm(to_q_KA, head_AD, out=gradient_KD)
            if to_hidden_MD is not None:
                gradient_KD += to_hidden_MD[rows]
            gru.walk_back(times, rows, x_KD, gradient_KD)
            gru.input_gradient(out=gradient_KD)
            torch.ops.aten.threshold_backward.grad_input(gradient_KD, x_KD, 0, grad_input=gradient_KD)
            to_from_obs.addmm_(gradient_KD.t(), obs_MO[rows])
            to_table += _table_gradient(gradient_KD, codes_M[rows], len(table_VD))
            to_head.addmm_(to_q_KA.t(), hidden_MD[rows])
            to_head_bias += to_q_KA.sum(dim=0)
        return None, None, None, to_from_obs, to_table, *gru.gradients(), to_head, to_head_bias


def _table_gradient(gradient_KD: Tensor, codes_K: Tensor, table_rows: int) -> Tensor:
    """Sums of the gradients of the rows that looked a code up [V, D]."""
    return torch.ops.aten.embedding_dense_backward(gradient_KD, codes_K, table_rows, -1, False)  # type: ignore[no-any-return]
