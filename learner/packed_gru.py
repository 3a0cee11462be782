"""A GRU over a packed batch, with the same weights and results as torch.nn.GRU.

On the CPU torch's own packed GRU slices its input once per time step, and each slice's backward fills a
gradient as large as the whole input: its cost grows with the square of the episode's length. Here the
time loop has its own backward. What is parallel over time (the inputs' part of the gates, the gradients'
factors, the weights' gradients) is done for a block of time steps that fits the processor's cache. On a GPU
torch's fused kernel is used.

    r = sigmoid(x_r + h W_hr), z = sigmoid(x_z + h W_hz), n = tanh(x_n + r m), m = h W_hn, h' = n + z (h - n)

Shapes: R rows in PackedSequence's layout, T times, X input, D hidden, G = 3 D gates in torch's order r, z, n.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

BLOCK_ROWS = 2048
"""Rows of a block, at least one time step: 2 MB of factors for 64 hidden units."""


def packed_gru(gru: nn.GRU, x_RX: Tensor, row_sizes_T: Tensor) -> Tensor:
    """Hidden states [R, D] after every row, from zero at each sequence's start. One layer, one direction."""
    if x_RX.is_cuda:
        packed, _ = gru(PackedSequence(x_RX, row_sizes_T))
        return packed.data  # type: ignore[no-any-return]
    assert gru.num_layers == 1 and not gru.bidirectional
    hidden: Tensor = _PackedGru.apply(x_RX, *gru.parameters(), row_sizes_T.tolist())  # type: ignore[no-untyped-call]
    return hidden


class _PackedGru(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        x_RX: Tensor,
        weight_GX: Tensor,
        weight_GD: Tensor,
        bias_G: Tensor,
        hidden_bias_G: Tensor,
        sizes: list[int],
    ) -> Tensor:
        size = weight_GD.shape[1]
        hidden_RD = x_RX.new_empty(len(x_RX), size)
        to_rz, to_m = weight_GD.t().split((2 * size, size), dim=1)
        h, saved = x_RX.new_zeros(sizes[0], size), []
        input_bias_G = torch.cat((bias_G[: 2 * size] + hidden_bias_G[: 2 * size], bias_G[2 * size :]))
        for times, rows in _blocks(sizes):
            x_block = x_RX[rows]
            rz = F.linear(x_block, weight_GX[: 2 * size], input_bias_G[: 2 * size])
            n = F.linear(x_block, weight_GX[2 * size :], input_bias_G[2 * size :])
            m = torch.empty_like(n)
            views = (x.split(sizes[times]) for x in (rz, rz[:, :size], rz[:, size:], n, m, hidden_RD[rows]))
            for rz_t, r_t, z_t, n_t, m_t, hidden_t in zip(*views, strict=True):
                h = h[: len(m_t)]
                rz_t.addmm_(h, to_rz).sigmoid_()
                torch.addmm(hidden_bias_G[2 * size :], h, to_m, out=m_t)
                n_t.addcmul_(r_t, m_t).tanh_()
                h = torch.lerp(n_t, h, z_t, out=hidden_t)
            saved += [rz, n, m]
        ctx.save_for_backward(x_RX, weight_GX, weight_GD, hidden_RD, *saved)
        ctx.sizes = sizes
        return hidden_RD

    @staticmethod
    def backward(ctx: Any, grad_RD: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        x_RX, weight_GX, weight_GD, hidden_RD, *saved = ctx.saved_tensors
        sizes, size = ctx.sizes, weight_GD.shape[1]
        # The factors' order is n, r, z, m: the first three reach the inputs, the last three the hidden state.
        input_order = _n_first(weight_GX, size)
        to_x_RX = torch.empty_like(x_RX) if ctx.needs_input_grad[0] else None
        to_input, to_hidden = torch.zeros_like(weight_GX), torch.zeros_like(weight_GD)
        to_bias = weight_GD.new_zeros(4 * size)
        carried = grad_RD.new_zeros(0, size)
        for block, (times, rows) in reversed(list(enumerate(_blocks(sizes)))):
            rz, n, m = saved[3 * block : 3 * block + 3]
            before = _before(hidden_RD, sizes, times, rows)
            factors = _factors(before, rz, n, m)
            totals = grad_RD[rows].clone()
            views = (x.split(sizes[times]) for x in (totals, rz[:, size:], factors.view(-1, 4, size)))
            for total_t, z_t, factors_t in reversed(list(zip(*views, strict=True))):
                total_t[: len(carried)].add_(carried)
                factors_t.mul_(total_t.unsqueeze(1))
                carried = torch.mul(total_t, z_t).addmm_(factors_t.view(-1, 4 * size)[:, size:], weight_GD)
            if to_x_RX is not None:
                torch.mm(factors[:, : 3 * size], input_order, out=to_x_RX[rows])
            to_input.addmm_(factors[:, : 3 * size].t(), x_RX[rows])
            to_hidden.addmm_(factors[:, size:].t(), before)
            to_bias += factors.sum(dim=0)
        return (
            to_x_RX,
            _n_last(to_input, size),
            to_hidden,
            _n_last(to_bias[: 3 * size], size),
            to_bias[size:],
            None,
        )


def _blocks(sizes: list[int]) -> Iterator[tuple[slice, slice]]:
    """(times, rows) of consecutive blocks of time steps, each of at most BLOCK_ROWS rows or one step."""
    first, start, end = 0, 0, 0
    for t, size in enumerate(sizes):
        if t > first and end + size - start > BLOCK_ROWS:
            yield slice(first, t), slice(start, end)
            first, start = t, end
        end += size
    yield slice(first, len(sizes)), slice(start, end)


def _before(hidden_RD: Tensor, sizes: list[int], times: slice, rows: slice) -> Tensor:
    """The hidden state before every row of a block; zero at time 0."""
    start = rows.start - (sizes[times.start - 1] if times.start > 0 else 0)
    parts = [hidden_RD.new_zeros(sizes[0], hidden_RD.shape[1])] if times.start == 0 else []
    for t in range(max(times.start, 1), times.stop):
        parts.append(hidden_RD[start : start + sizes[t]])
        start += sizes[t - 1]
    return torch.cat(parts)


def _factors(before: Tensor, rz: Tensor, n: Tensor, m: Tensor) -> Tensor:
    """dh'/d(what enters n, r, z, and m), side by side [rows, 4 D]."""
    size = n.shape[1]
    r, z = rz.split(size, dim=1)
    factors = n.new_empty(len(n), 4 * size)
    to_n, to_r, to_z, to_m = factors.split(size, dim=1)
    torch.ops.aten.tanh_backward.grad_input(1.0 - z, n, grad_input=to_n)
    torch.mul(to_n, r, out=to_m)
    torch.ops.aten.sigmoid_backward.grad_input(to_n * m, r, grad_input=to_r)
    torch.ops.aten.sigmoid_backward.grad_input(before - n, z, grad_input=to_z)
    return factors


def _n_first(gates: Tensor, size: int) -> Tensor:
    """Gates r, z, n along the first dimension as n, r, z."""
    return torch.cat((gates[2 * size :], gates[: 2 * size]))


def _n_last(gates: Tensor, size: int) -> Tensor:
    """The way back."""
    return torch.cat((gates[size:], gates[:size]))
