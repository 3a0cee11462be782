"""QMIX's mixing network in blocks of rows, with its own backward.

    [a, b, d, e] = W0 s + c0,   w1 = |W1 relu(a) + c1|,   w2 = |W2 relu(b) + c2|
    hidden = elu(q w1 + d),     Q_tot = hidden w2 + W3 relu(e) + c3

w1 has N * E numbers a row and is the widest thing in the mixer. A block of rows goes through all of it while
it is in the processor's cache, and but for the first layer is computed again on the way back. That layer's
output alone is kept.

Shapes: P rows, of which a block has K; N agents, S condition, E embedding, H hypernetwork, F = 2 H + 2 E.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

BLOCK_ROWS = 512
"""About, of a block on the CPU: w1 has 0.2 MB for 3 agents, 1.8 MB for 27. A GPU takes all rows at once."""


def mixed_value(q_PN: Tensor, condition_PS: Tensor, layers: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Q_tot [P]. The layers are W0 [F, S], W1 [N * E, H], W2 [E, H] and W3 [1, E], each with its bias."""
    assert len(q_PN) == len(condition_PS)
    parameters = [parameter for layer in layers for parameter in layer]
    q_tot_P: Tensor = _MixedValue.apply(q_PN, condition_PS, *parameters)  # type: ignore[no-untyped-call]
    return q_tot_P


class _MixedValue(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q_PN: Tensor, condition_PS: Tensor, *parameters: Tensor) -> Tensor:  # noqa: ANN401
        weight, bias = parameters[:2]
        training, firsts = any(ctx.needs_input_grad), []
        q_tot_P = q_PN.new_empty(len(q_PN))
        for rows in _blocks(q_PN):
            first_KF = torch.addmm(bias, condition_PS[rows], weight.t())
            block = _Block.of(q_PN[rows], first_KF, parameters)
            torch.sum(block.hidden_KE * block.w2_KE.abs(), dim=-1, out=q_tot_P[rows])
            q_tot_P[rows] += torch.addmm(parameters[7], block.e_KE, parameters[6].t()).squeeze(-1)
            if training:
                firsts.append(first_KF)
        ctx.save_for_backward(q_PN, condition_PS, *parameters, *firsts)
        return q_tot_P

    @staticmethod
    def backward(ctx: Any, to_q_tot_P: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        q_PN, condition_PS, *parameters = ctx.saved_tensors[:10]
        to_q_PN, to_parameters = torch.empty_like(q_PN), [torch.zeros_like(p) for p in parameters]
        to_condition_PS = torch.empty_like(condition_PS) if ctx.needs_input_grad[1] else None
        for rows, first_KF in zip(_blocks(q_PN), ctx.saved_tensors[10:], strict=True):
            block = _Block.of(q_PN[rows], first_KF, parameters)
            to_q_PN[rows], *to_last, to_d = block.walk_back(q_PN[rows], to_q_tot_P[rows].unsqueeze(-1))
            inputs = (block.a_KH, block.b_KH, block.e_KE)
            to_a, to_b, to_e = (
                torch.ops.aten.threshold_backward(to_out @ weight, x, 0)
                for to_out, weight, x in zip(to_last, parameters[2::2], inputs, strict=True)
            )
            to_first = torch.cat((to_a, to_b, to_d, to_e), dim=-1)
            for i, (to_out, x) in enumerate(
                zip((to_first, *to_last), (condition_PS[rows], *inputs), strict=True)
            ):
                to_parameters[2 * i].addmm_(to_out.t(), x)
                to_parameters[2 * i + 1] += to_out.sum(dim=0)
            if to_condition_PS is not None:
                torch.mm(to_first, parameters[0], out=to_condition_PS[rows])
        return to_q_PN, to_condition_PS, *to_parameters


def _blocks(q_PN: Tensor) -> Iterator[slice]:
    rows = len(q_PN)
    count = 1 if q_PN.is_cuda else max(1, round(rows / BLOCK_ROWS))
    size = math.ceil(rows / count)
    return (slice(start, start + size) for start in range(0, rows, size))


class _Block(NamedTuple):
    """What a block of rows goes through: relu of a, b and e; w1 and w2 still with their signs."""

    a_KH: Tensor
    b_KH: Tensor
    e_KE: Tensor
    w1_KNE: Tensor
    w2_KE: Tensor
    hidden_KE: Tensor

    @classmethod
    def of(cls, q_KN: Tensor, first_KF: Tensor, parameters: Sequence[Tensor]) -> "_Block":
        w1, c1, w2, c2 = parameters[2:6]
        embed, width = w2.shape
        a, b, d, e = first_KF.split((width, width, embed, embed), dim=-1)
        a, b, e = torch.relu(a), torch.relu(b), torch.relu(e)
        w1_KNE = torch.addmm(c1, a, w1.t()).view(*q_KN.shape, embed)
        hidden = w1_KNE.abs().mul_(q_KN.unsqueeze(-1)).sum(dim=1).add_(d)
        return cls(a, b, e, w1_KNE, torch.addmm(c2, b, w2.t()), F.elu_(hidden))

    def walk_back(self, q_KN: Tensor, to_q_tot_K1: Tensor) -> tuple[Tensor, ...]:
        """Gradients of q, of the three last layers' outputs and of d; w1 and w2 are written over."""
        # elu's derivative is 1 above 0, and its result + 1 below.
        slope = self.hidden_KE.clamp(max=0.0).add_(1.0)
        to_d = self.w2_KE.abs().mul_(to_q_tot_K1).mul_(slope)
        to_w2 = self.w2_KE.sgn_().mul_(self.hidden_KE).mul_(to_q_tot_K1)
        w1 = self.w1_KNE.abs()
        to_q = torch.bmm(w1, to_d.unsqueeze(-1)).squeeze(-1)
        to_w1 = torch.mul(q_KN.unsqueeze(-1), to_d.unsqueeze(1), out=w1).mul_(self.w1_KNE.sgn_())
        return to_q, to_w1.flatten(1), to_w2, to_q_tot_K1, to_d
