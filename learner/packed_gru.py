"""A GRU over a packed batch, with the same weights and results as torch.nn.GRU.

On the CPU torch's own packed GRU slices its input once per time step, and each slice's backward fills a
gradient as large as the whole input: its cost grows with the square of the episode's length. Here the
time loop has its own backward. It keeps the gates, walks back once, and leaves the weight gradients to
one matrix product over all rows. On a GPU torch's fused kernel is used.

    r = sigmoid(x_r + h W_hr), z = sigmoid(x_z + h W_hz), n = tanh(x_n + r (h W_hn)), h' = n + z (h - n)

Shapes: R rows in PackedSequence's layout, T times, X input, D hidden, G = 3 D gates in torch's order r, z, n.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence


def packed_gru(gru: nn.GRU, x_RX: Tensor, row_sizes_T: Tensor) -> Tensor:
    """Hidden states [R, D] after every row, from zero at each sequence's start. One layer, one direction."""
    if x_RX.is_cuda:
        packed, _ = gru(PackedSequence(x_RX, row_sizes_T))
        return packed.data  # type: ignore[no-any-return]
    assert gru.num_layers == 1 and not gru.bidirectional
    weight_ih, weight_hh, bias_ih, bias_hh = gru.parameters()  # torch's order
    gates_RG = F.linear(x_RX, weight_ih, bias_ih)
    hidden: Tensor = _PackedGru.apply(gates_RG, weight_hh, bias_hh, row_sizes_T.tolist())  # type: ignore[no-untyped-call]
    return hidden


class _PackedGru(torch.autograd.Function):
    """The recurrent part: gates_RG holds what the input adds to every gate."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        gates_RG: Tensor,
        weight_GD: Tensor,
        bias_G: Tensor,
        sizes: list[int],
    ) -> Tensor:
        size = weight_GD.shape[1]
        rows = len(gates_RG)
        hidden, before, rz = (gates_RG.new_empty(rows, width) for width in (size, size, 2 * size))
        candidate, recurrent = torch.empty_like(hidden), torch.empty_like(hidden)
        h = gates_RG.new_zeros(sizes[0], size)
        weight_DG, start = weight_GD.t().contiguous(), 0
        for count in sizes:
            block = slice(start, start + count)
            h = before[block].copy_(h[:count])
            gates_t, rz_t, n_t = gates_RG[block], rz[block], candidate[block]
            from_h = torch.addmm(bias_G, h, weight_DG)
            torch.add(gates_t[:, : 2 * size], from_h[:, : 2 * size], out=rz_t).sigmoid_()
            recurrent_t = recurrent[block].copy_(from_h[:, 2 * size :])
            torch.addcmul(gates_t[:, 2 * size :], rz_t[:, :size], recurrent_t, out=n_t).tanh_()
            h = torch.lerp(n_t, h, rz_t[:, size:], out=hidden[block])
            start += count
        ctx.save_for_backward(weight_GD, before, rz, candidate, recurrent)
        ctx.sizes = sizes
        return hidden

    @staticmethod
    def backward(ctx: Any, grad_RD: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:  # noqa: ANN401
        weight_GD, before, rz, candidate, recurrent = ctx.saved_tensors
        rows, size = grad_RD.shape
        to_n, local = _local_gradients(before, rz, candidate, recurrent)
        total, to_hidden = torch.empty_like(grad_RD), torch.empty_like(local)
        carried, start = grad_RD.new_zeros(0, size), rows
        for count in reversed(ctx.sizes):
            block = slice(start - count, start)
            grad = total[block].copy_(grad_RD[block])
            grad[: len(carried)] += carried
            gates = torch.mul(local[block], grad.unsqueeze(1), out=to_hidden[block])
            carried = torch.addcmul(gates.view(count, -1) @ weight_GD, grad, rz[block, size:])
            start -= count
        to_hidden_RG = to_hidden.view(rows, -1)
        to_input_RG = torch.cat((to_hidden_RG[:, : 2 * size], to_n * total), dim=1)
        return to_input_RG, to_hidden_RG.t() @ before, to_hidden_RG.sum(dim=0), None


def _local_gradients(
    before: Tensor, rz: Tensor, candidate: Tensor, recurrent: Tensor
) -> tuple[Tensor, Tensor]:
    """dh'/d(what enters tanh) [R, D], and dh'/d(recurrent parts of r, z, n) [R, 3, D]; all times at once."""
    r, z = rz.chunk(2, dim=1)
    to_n = (1.0 - z) * (1.0 - candidate.square())
    to_r = to_n * recurrent * r * (1.0 - r)
    to_z = (before - candidate) * z * (1.0 - z)
    return to_n, torch.stack((to_r, to_z, to_n * r), dim=1)
