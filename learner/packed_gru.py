"""A GRU over a packed batch, with the same weights and results as torch.nn.GRU.

On the CPU torch's own packed GRU slices its input once per time step, and each slice's backward fills a
gradient as large as the whole input: its cost grows with the square of the episode's length. Here the
time loop has its own backward. What is parallel over time (the inputs' part of the gates, the gradients'
factors, the weights' gradients) is done for a block of time steps that fits the processor's cache. On a GPU
torch's fused kernel is used.

    r = sigmoid(x_r + h W_hr), z = sigmoid(x_z + h W_hz), n = tanh(x_n + r m), m = h W_hn, h' = n + z (h - n)

Shapes: R rows in PackedSequence's layout, T times, X input, D hidden, G = 3 D gates in torch's order r, z, n;
a block has K rows and any number of whole time steps.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
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
    def forward(ctx: Any, x_RX: Tensor, *weights_and_sizes: Any) -> Tensor:  # noqa: ANN401
        *weights, sizes = weights_and_sizes
        gru = GruForward(weights, sizes, training=any(ctx.needs_input_grad))
        hidden_RD = x_RX.new_empty(len(x_RX), gru.size)
        for times, rows in time_blocks(sizes):
            gru.advance(times, x_RX[rows], out=hidden_RD[rows])
        ctx.save_for_backward(x_RX, *weights, hidden_RD, *gru.gates)
        ctx.sizes = sizes
        return hidden_RD

    @staticmethod
    def backward(ctx: Any, grad_RD: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        x_RX, *weights, hidden_RD = ctx.saved_tensors[:6]
        gru = GruBackward(weights, hidden_RD, ctx.saved_tensors[6:], ctx.sizes)
        to_x_RX = torch.empty_like(x_RX) if ctx.needs_input_grad[0] else None
        for times, rows in reversed(list(time_blocks(ctx.sizes))):
            gru.walk_back(times, rows, x_RX[rows], grad_RD[rows].clone())
            if to_x_RX is not None:
                gru.input_gradient(out=to_x_RX[rows])
        return to_x_RX, *gru.gradients(), None


def time_blocks(sizes: Sequence[int]) -> Iterator[tuple[slice, slice]]:
    """(times, rows) of consecutive blocks of time steps, each of at most BLOCK_ROWS rows or one step.

    Half as many for a small batch: there a block's temporaries would be most of the memory.
    """
    most = max(BLOCK_ROWS // 2, min(BLOCK_ROWS, sum(sizes) // 8))
    first, start, end = 0, 0, 0
    for t, size in enumerate(sizes):
        if t > first and end + size - start > most:
            yield slice(first, t), slice(start, end)
            first, start = t, end
        end += size
    yield slice(first, len(sizes)), slice(start, end)


def largest_block(sizes: Sequence[int]) -> int:
    """Rows of the largest block."""
    return max(sum(sizes[times]) for times, _ in time_blocks(sizes))


class GruForward:
    """The recurrence, block by block from the first to the last."""

    def __init__(self, weights: Sequence[Tensor], sizes: Sequence[int], *, training: bool) -> None:
        """Of torch's weights in torch's order: the inputs', the hidden state's, and a bias of each."""
        weight_GX, weight_GD, bias_G, hidden_bias_G = weights
        self.size = size = weight_GD.shape[1]
        self._sizes, self._largest, self._training = sizes, largest_block(sizes), training
        self.gates: list[Tensor] = []
        """r and z side by side, then n: of every block for training, else of one block after the other."""
        self._x_to_rz, self._x_to_n = weight_GX.t().split((2 * size, size), dim=1)
        self._rz_bias, self._n_bias = bias_G[: 2 * size] + hidden_bias_G[: 2 * size], bias_G[2 * size :]
        self._to_rz, self._to_m = weight_GD.t().split((2 * size, size), dim=1)
        self._m_bias = hidden_bias_G[2 * size :]
        self._h, self._m = weight_GD.new_zeros(sizes[0], size), weight_GD.new_empty(sizes[0], size)

    def advance(self, times: slice, x_KX: Tensor, *, out: Tensor) -> None:
        """Writes the hidden states [K, D] after every row of a block into `out`."""
        size, sizes, h = self.size, self._sizes[times], self._h
        if self._training or not self.gates:
            self.gates.append(x_KX.new_empty(3 * size * (len(x_KX) if self._training else self._largest)))
        rz, n = _gates(self.gates[-1], len(x_KX), size)
        torch.addmm(self._rz_bias, x_KX, self._x_to_rz, out=rz)
        torch.addmm(self._n_bias, x_KX, self._x_to_n, out=n)
        views = (x.split(sizes) for x in (rz, rz[:, :size], rz[:, size:], n, out))
        for rz_t, r_t, z_t, n_t, out_t in zip(*views, strict=True):
            h, m = h[: len(n_t)], self._m[: len(n_t)]
            rz_t.addmm_(h, self._to_rz).sigmoid_()
            torch.addmm(self._m_bias, h, self._to_m, out=m)
            n_t.addcmul_(r_t, m).tanh_()
            h = torch.lerp(n_t, h, z_t, out=out_t)
        self._h = h


class GruBackward:
    """The way back, block by block from the last to the first."""

    def __init__(
        self, weights: Sequence[Tensor], hidden_RD: Tensor, gates: Sequence[Tensor], sizes: Sequence[int]
    ) -> None:
        weight_GX, self._weight_GD, _, hidden_bias_G = weights
        self._size = size = self._weight_GD.shape[1]
        self._hidden_RD, self._gates, self._sizes = hidden_RD, list(gates), sizes
        self._to_m, self._m_bias = self._weight_GD[2 * size :].t(), hidden_bias_G[2 * size :]
        # The factors' order is n, r, z, m: the first three reach the inputs, the last three the hidden state.
        self._input_order = _n_first(weight_GX, size)
        self._to_input, self._to_hidden = torch.zeros_like(weight_GX), torch.zeros_like(self._weight_GD)
        self._to_bias = hidden_RD.new_zeros(4 * size)
        self._carried = hidden_RD.new_zeros(0, size)
        self._scratch = hidden_RD.new_empty(largest_block(sizes) * 7 * size)
        self._factors = self._carried

    def walk_back(self, times: slice, rows: slice, x_KX: Tensor, totals_KD: Tensor) -> None:
        """Takes the gradients [K, D] of a block's hidden states; they are written over."""
        size, sizes = self._size, self._sizes[times]
        rz, n = _gates(self._gates.pop(), len(x_KX), size)
        before, factors = self._factors_of(times, rows, rz, n)
        views = (x.split(sizes) for x in (totals_KD, rz[:, size:], factors.view(-1, 4, size)))
        for total_t, z_t, factors_t in reversed(list(zip(*views, strict=True))):
            total_t[: len(self._carried)].add_(self._carried)
            factors_t.mul_(total_t.unsqueeze(1))
            flat_t = factors_t.view(-1, 4 * size)
            self._carried = torch.mul(total_t, z_t).addmm_(flat_t[:, size:], self._weight_GD)
        self._to_input.addmm_(factors[:, : 3 * size].t(), x_KX)
        self._to_hidden.addmm_(factors[:, size:].t(), before)
        self._to_bias += factors.sum(dim=0)
        self._factors = factors

    def input_gradient(self, *, out: Tensor) -> Tensor:
        """The gradient [K, X] of the inputs of the block that was walked back last."""
        return torch.mm(self._factors[:, : 3 * self._size], self._input_order, out=out)

    def gradients(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of the weights, in torch's order."""
        size = self._size
        to_bias = _n_last(self._to_bias[: 3 * size], size)
        return _n_last(self._to_input, size), self._to_hidden, to_bias, self._to_bias[size:]

    def _factors_of(self, times: slice, rows: slice, rz: Tensor, n: Tensor) -> tuple[Tensor, Tensor]:
        """The hidden state before every row, and dh'/d(what enters n, r, z, and m) side by side [K, 4 D]."""
        size, count = self._size, len(n)
        widths = (size, size, 4 * size)
        parts = self._scratch[: count * sum(widths)].split([count * width for width in widths])
        before, outer, factors = (x.view(count, -1) for x in parts)
        _put_before(before, self._hidden_RD, self._sizes, times, rows)
        r, z = rz.split(size, dim=1)
        to_n, to_r, to_z, to_m = factors.split(size, dim=1)
        torch.ops.aten.tanh_backward.grad_input(torch.sub(n.new_ones(()), z, out=outer), n, grad_input=to_n)
        torch.addmm(self._m_bias, before, self._to_m, out=outer)  # cheaper than to keep it
        torch.ops.aten.sigmoid_backward.grad_input(outer.mul_(to_n), r, grad_input=to_r)
        torch.ops.aten.sigmoid_backward.grad_input(torch.sub(before, n, out=outer), z, grad_input=to_z)
        torch.mul(to_n, r, out=to_m)
        return before, factors


def _gates(buffer: Tensor, rows: int, size: int) -> tuple[Tensor, Tensor]:
    """r and z side by side [rows, 2 D], and n [rows, D], each contiguous."""
    rz, n = buffer[: 3 * rows * size].split((2 * rows * size, rows * size))
    return rz.view(rows, 2 * size), n.view(rows, size)


def _put_before(out: Tensor, hidden_RD: Tensor, sizes: Sequence[int], times: slice, rows: slice) -> None:
    """Writes the hidden state before every row of a block; zero at time 0."""
    start = rows.start - (sizes[times.start - 1] if times.start > 0 else 0)
    parts = [hidden_RD.new_zeros(sizes[0], hidden_RD.shape[1])] if times.start == 0 else []
    for t in range(max(times.start, 1), times.stop):
        parts.append(hidden_RD[start : start + sizes[t]])
        start += sizes[t - 1]
    torch.cat(parts, out=out)


def _n_first(gates: Tensor, size: int) -> Tensor:
    """Gates r, z, n along the first dimension as n, r, z."""
    return torch.cat((gates[2 * size :], gates[: 2 * size]))


def _n_last(gates: Tensor, size: int) -> Tensor:
    """The way back."""
    return torch.cat((gates[size:], gates[:size]))
