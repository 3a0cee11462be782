"""The squared error of a linear layer's output, without that output.

The widest tensors of the world model would be the reconstructed obs: as large as the batch itself, once
each for the output, the difference, its square and two gradients. Here a block of rows is reconstructed,
compared, and turned into what the backward pass needs (the gradients of its input and of the weights) while
it is in the cache.

Shapes: any leading ones (R of them together), H hidden, F features.
"""

from typing import Any

import torch
from torch import Tensor

BLOCK_ROWS = 1024
"""Rows of a block on the CPU. A GPU takes all of them at once."""


def linear_mse(hidden_RH: Tensor, weight_FH: Tensor, bias_F: Tensor, target_RF: Tensor) -> Tensor:
    """mean((hidden weight^T + bias - target)^2); the target is data and gets no gradient."""
    assert hidden_RH.shape[:-1] == target_RF.shape[:-1] and not target_RF.requires_grad
    flat = (hidden_RH.flatten(0, -2), weight_FH, bias_F, target_RF.flatten(0, -2))
    loss: Tensor = _LinearMse.apply(*flat)  # type: ignore[no-untyped-call]
    return loss


class _LinearMse(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        hidden_RH: Tensor,
        weight_FH: Tensor,
        bias_F: Tensor,
        target_RF: Tensor,
    ) -> Tensor:
        with_gradients = any(ctx.needs_input_grad)
        to_weight, to_bias, to_hidden = torch.zeros_like(weight_FH), torch.zeros_like(bias_F), []
        total = hidden_RH.new_zeros(())
        rows = len(hidden_RH) if hidden_RH.is_cuda else BLOCK_ROWS
        for hidden, target in zip(hidden_RH.split(rows), target_RF.split(rows), strict=True):
            difference = torch.addmm(bias_F, hidden, weight_FH.t()).sub_(target)
            total += torch.linalg.vector_norm(difference).square()
            if with_gradients:
                to_hidden.append(difference @ weight_FH)
                to_weight.addmm_(difference.t(), hidden)
                to_bias += difference.sum(dim=0)
        if with_gradients:
            ctx.save_for_backward(torch.cat(to_hidden), to_weight, to_bias)
        ctx.scale = 2.0 / target_RF.numel()
        return total / target_RF.numel()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        return *(part * (ctx.scale * grad) for part in ctx.saved_tensors), None
