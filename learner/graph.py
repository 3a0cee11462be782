"""Laplacian smoothing and sharpening of node features (Park et al. 2019; paper section 4).

    S = Dt^-1/2 (A + I) Dt^-1/2, Dt = deg(A + I),      P = Dh^-1/2 (2I - A) Dh^-1/2, Dh = deg(A) + 2I

The nodes are the agents. The graph is complete with edge weight 1/N (ours). With weight 1, A + I would
be all ones: one layer of smoothing would give every node the same vector, and no decoder could tell the
agents apart again. With 1/N every degree is the same, and both operators reduce to a mix of a node's own
features and the sum over nodes, which for small graphs costs no N x N product.

Shapes: any leading ones, N nodes, F and G features.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

BATCHED_PRODUCT_SIZE = 400
"""From this many multiplications a graph on, torch's batched product beats the sum over nodes."""

PRODUCT_NODES = 8
"""From this many nodes on, a layer after an operator is faster without the operator's output."""


def smoothing_weights(nodes: int) -> tuple[float, float]:
    """What S gives a node's own features, and the sum over all nodes."""
    if nodes == 1:  # the sum is the node: I, and not as all of the sum, since others divide by the first
        return 1.0, 0.0
    degree = 2.0 - 1.0 / nodes
    return (1.0 - 1.0 / nodes) / degree, 1.0 / (nodes * degree)


def sharpening_weights(nodes: int) -> tuple[float, float]:
    """What P gives a node's own features, and the sum over all nodes."""
    degree = 3.0 - 1.0 / nodes
    return (2.0 + 1.0 / nodes) / degree, -1.0 / (nodes * degree)


def sharpening_smoothing_weights(nodes: int) -> tuple[float, float]:
    """Those of S P: an operator of the same form."""
    (own, shared), (own_p, shared_p) = smoothing_weights(nodes), sharpening_weights(nodes)
    return own * own_p, own * shared_p + shared * own_p + nodes * shared * shared_p


def smooth(x_NF: Tensor) -> Tensor:
    """S X on the complete graph with edge weight 1/N."""
    mixed: Tensor = _Mix.apply(x_NF, *smoothing_weights(x_NF.shape[-2]))  # type: ignore[no-untyped-call]
    return mixed


def mixed_linear(x_NF: Tensor, weight_GF: Tensor, bias_G: Tensor, operator: tuple[float, float]) -> Tensor:
    """(own x + shared (sum of x over nodes)) W^T + b, [.. * N, G]; (own, shared) are the operator."""
    if x_NF.shape[-2] < PRODUCT_NODES:
        mixed = _Mix.apply(x_NF, *operator)  # type: ignore[no-untyped-call]
        return F.linear(mixed.flatten(0, -2), weight_GF, bias_G)
    product: Tensor = _MixedLinear.apply(x_NF, weight_GF, bias_G, *operator)  # type: ignore[no-untyped-call]
    return product


class _Mix(torch.autograd.Function):
    """own * x + shared * (sum of x over nodes). Symmetric, so its backward is itself."""

    @staticmethod
    def forward(ctx: Any, x_NF: Tensor, own: float, shared: float) -> Tensor:  # noqa: ANN401
        ctx.weights = own, shared
        return mix(x_NF, own, shared)

    @staticmethod
    def backward(ctx: Any, grad_NF: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        return mix(grad_NF, *ctx.weights), None, None


class _MixedLinear(torch.autograd.Function):
    """The sum over nodes is multiplied once per graph, and is to the nodes' own product what a bias is."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        x_NF: Tensor,
        weight_GF: Tensor,
        bias_G: Tensor,
        own: float,
        shared: float,
    ) -> Tensor:
        total_F = x_NF.sum(dim=-2)
        ctx.save_for_backward(x_NF, total_F, weight_GF)
        ctx.operator = own, shared
        return _product(x_NF, total_F, weight_GF, bias_G, own, shared)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        x_NF, total_F, weight_GF = ctx.saved_tensors
        own, shared = ctx.operator
        grad_NG = grad.view(*x_NF.shape[:-1], -1)
        total_G = grad_NG.sum(dim=-2)
        to_x = None
        if ctx.needs_input_grad[0]:
            nothing_F = weight_GF.new_zeros(weight_GF.shape[1])
            to_x = _product(grad_NG, total_G, weight_GF.t(), nothing_F, own, shared).view(x_NF.shape)
        flat_total_G = total_G.flatten(0, -2)
        to_weight = torch.mm(flat_total_G.t(), total_F.flatten(0, -2)).mul_(shared)
        to_weight.addmm_(grad.t(), x_NF.flatten(0, -2), alpha=own)
        return to_x, to_weight, flat_total_G.sum(dim=0), None, None


def _product(
    x_NF: Tensor, total_F: Tensor, weight_GF: Tensor, bias_G: Tensor, own: float, shared: float
) -> Tensor:
    of_graph_G = torch.addmm(bias_G, total_F.flatten(0, -2), weight_GF.t(), alpha=shared)
    flat = x_NF.flatten(0, -2)
    product = flat.new_empty(len(flat), len(weight_GF))
    product.view(len(of_graph_G), -1, len(weight_GF)).copy_(of_graph_G.unsqueeze(1))
    return product.addmm_(flat, weight_GF.t(), alpha=own)


def mix(x_NF: Tensor, own: float, shared: float) -> Tensor:
    """own * x + shared * (sum of x over nodes), by the faster of two ways; without autograd."""
    nodes, features = x_NF.shape[-2:]
    if nodes * nodes * features < BATCHED_PRODUCT_SIZE:
        return torch.add(x_NF.sum(dim=-2, keepdim=True).mul_(shared), x_NF, alpha=own)
    matrix_NN = x_NF.new_full((nodes, nodes), shared)
    matrix_NN.diagonal().add_(own)
    flat = x_NF.reshape(-1, nodes, features)
    mixed = torch.empty_like(flat)
    torch.bmm(matrix_NN.expand(len(flat), -1, -1), flat, out=mixed)
    return mixed.unflatten(0, x_NF.shape[:-2]) if x_NF.dim() != 3 else mixed
