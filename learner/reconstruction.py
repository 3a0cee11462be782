"""The error of a GALA decoder, and its gradients, in one pass over blocks of rows.

The widest tensors of the world model would be the decoders': for all rows at once each layer's output and
gradient is as large as the batch. Nothing but the error is wanted from them. So a block of rows is decoded,
compared, and carried back to its code while it is in the processor's cache; only the code's gradient is kept.

Shapes: R rows, N nodes, Z code, H hidden, F features, of which the first K belong to a latent.
"""

from typing import Any

import torch
from torch import Tensor

from learner.graph import mix, sharpening_weights

BLOCK_NODES = 8192
"""R * N of a block on the CPU: 2 MB for 64 features. A GPU takes all rows at once."""


def decoder_error(
    code_RNZ: Tensor,
    parameters: tuple[Tensor, Tensor, Tensor, Tensor],
    data_RNF: Tensor,
    latent_RNK: Tensor | None,
) -> Tensor:
    """mean((P relu(P X W1 + b1) W2 + b2 - [latent, data])^2) over all features.

    `parameters` are W1 [H, Z], b1, W2 [F, H], b2. The code, the parameters and the latent get gradients.
    """
    assert code_RNZ.shape[:-1] == data_RNF.shape[:-1] and not data_RNF.requires_grad
    if latent_RNK is None:
        latent_RNK = code_RNZ.new_empty(*code_RNZ.shape[:-1], 0)
    error: Tensor = _DecoderError.apply(code_RNZ, *parameters, latent_RNK, data_RNF)  # type: ignore[no-untyped-call]
    return error


class _DecoderError(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        code_RNZ: Tensor,
        first_HZ: Tensor,
        first_bias_H: Tensor,
        last_FH: Tensor,
        last_bias_F: Tensor,
        latent_RNK: Tensor,
        data_RNF: Tensor,
    ) -> Tensor:
        rows, nodes, code_size = code_RNZ.shape
        weights, hidden_size, latent_size = sharpening_weights(nodes), len(first_HZ), latent_RNK.shape[-1]
        to_code, to_latent = torch.empty_like(code_RNZ), torch.empty_like(latent_RNK)
        to_parameters = [torch.zeros_like(p) for p in (first_HZ, first_bias_H, last_FH, last_bias_F)]
        total = code_RNZ.new_zeros(())
        block = rows if code_RNZ.is_cuda else max(1, BLOCK_NODES // nodes)
        for start in range(0, rows, block):
            part = slice(start, start + block)
            code = mix(code_RNZ[part], *weights).view(-1, code_size)
            hidden = torch.addmm(first_bias_H, code, first_HZ.t()).relu_()
            sharp = mix(hidden.view(-1, nodes, hidden_size), *weights).view(-1, hidden_size)
            difference = torch.addmm(last_bias_F, sharp, last_FH.t())
            difference[:, :latent_size].sub_(latent_RNK[part].flatten(0, 1))
            difference[:, latent_size:].sub_(data_RNF[part].flatten(0, 1))
            total += torch.linalg.vector_norm(difference).square()
            if not any(ctx.needs_input_grad):
                continue
            to_latent[part].flatten(0, 1).copy_(difference[:, :latent_size]).neg_()
            to_hidden = mix((difference @ last_FH).view(-1, nodes, hidden_size), *weights).view(
                -1, hidden_size
            )
            to_hidden = torch.ops.aten.threshold_backward(to_hidden, hidden, 0)
            to_code[part] = mix((to_hidden @ first_HZ).view(-1, nodes, code_size), *weights)
            to_parameters[0].addmm_(to_hidden.t(), code)
            to_parameters[1] += to_hidden.sum(dim=0)
            to_parameters[2].addmm_(difference.t(), sharp)
            to_parameters[3] += difference.sum(dim=0)
        count = latent_RNK.numel() + data_RNF.numel()
        ctx.save_for_backward(to_code, *to_parameters, to_latent)
        ctx.scale = 2.0 / count
        return total / count

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        return *(part * (ctx.scale * grad) for part in ctx.saved_tensors), None
