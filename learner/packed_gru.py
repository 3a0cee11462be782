"""A GRU over a packed batch, with the same weights and results as torch.nn.GRU.

On the CPU torch's own packed GRU slices its input once per time step, and each slice's backward fills a
gradient as large as the whole input: its cost grows with the square of the episode's length. Here a
compiled loop (learner/kernels) takes a share of the sequences through all time steps, forward and back. On a
GPU torch's fused kernel is used.

Shapes: R rows in PackedSequence's layout, T times, X input, D hidden, G = 3 D gates in torch's order r, z, n.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from learner.kernels import sequences
from learner.kernels.blas import product_routine
from learner.kernels.layout import (
    flat,
    flat_output,
    gru_gradients,
    gru_weights,
    gru_weights_back,
    summed,
    zeros_like,
)
from learner.shares import Share, in_parallel, shares_of


def packed_gru(gru: nn.GRU, x_RX: Tensor, row_sizes_T: Tensor) -> Tensor:
    """Hidden states [R, D] after every row, from zero at each sequence's start. One layer, one direction."""
    if x_RX.is_cuda:
        packed, _ = gru(PackedSequence(x_RX, row_sizes_T))
        return packed.data  # type: ignore[no-any-return]
    assert gru.num_layers == 1 and not gru.bidirectional
    hidden: Tensor = _PackedGru.apply(x_RX, row_sizes_T, *gru.parameters())  # type: ignore[no-untyped-call]
    return hidden


class _PackedGru(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_RX: Tensor, row_sizes_T: Tensor, *weights: Tensor) -> Tensor:  # noqa: ANN401
        hidden_RD, *gates = (x_RX.new_empty(len(x_RX), weights[1].shape[1]) for _ in range(4))
        kernel_weights, sizes = gru_weights(weights), row_sizes_T.numpy()
        x, r_z_n, hidden = flat(x_RX), tuple(map(flat_output, gates)), flat_output(hidden_RD)
        blas = product_routine(x.dtype)

        def work(share: Share) -> None:
            sequences.unroll(blas, share, sizes, kernel_weights, x, r_z_n, hidden)

        in_parallel(work, shares_of(sizes))
        ctx.save_for_backward(x_RX, row_sizes_T, hidden_RD, *gates, *weights)
        return hidden_RD

    @staticmethod
    def backward(ctx: Any, grad_RD: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        x_RX, row_sizes_T, hidden_RD, *rest = ctx.saved_tensors
        gates, weights = rest[:3], rest[3:]
        to_x_RX = x_RX.new_empty(x_RX.shape if ctx.needs_input_grad[0] else 0)
        kernel_weights, back, sizes = gru_weights(weights), gru_weights_back(weights), row_sizes_T.numpy()
        x, r_z_n, hidden, to_hidden = flat(x_RX), tuple(map(flat, gates)), flat(hidden_RD), flat(grad_RD)
        to_x, blas, shares = flat_output(to_x_RX), product_routine(x.dtype), shares_of(sizes)
        gradients = {share: zeros_like(kernel_weights) for share in shares}

        def work(share: Share) -> None:
            sequences.walk_back(
                blas, share, sizes, kernel_weights, back, x, r_z_n, hidden, to_hidden, to_x, gradients[share]
            )

        in_parallel(work, shares)
        to_weights = gru_gradients(summed(gradients.values()), weights)
        return to_x_RX if ctx.needs_input_grad[0] else None, None, *to_weights
