"""Laplacian smoothing and sharpening of node features (Park et al. 2019; paper section 4).

    S = Dt^-1/2 (A + I) Dt^-1/2, Dt = deg(A + I),      P = Dh^-1/2 (2I - A) Dh^-1/2, Dh = deg(A) + 2I

The nodes are the agents. The graph is complete with edge weight 1/N (ours). With weight 1, A + I would
be all ones: one layer of smoothing would give every node the same vector, and no decoder could tell the
agents apart again. With 1/N every degree is the same, and both operators reduce to a mix of a node's own
features and the sum over nodes, which for small graphs costs no N x N product.

Shapes: any leading ones, N nodes, F features.
"""

from typing import Any

import torch
from torch import Tensor

BATCHED_PRODUCT_SIZE = 400
"""From this many multiplications a graph on, torch's batched product beats the sum over nodes."""


def smoothing_weights(nodes: int) -> tuple[float, float]:
    """What S gives a node's own features, and the sum over all nodes."""
    degree = 2.0 - 1.0 / nodes
    return (1.0 - 1.0 / nodes) / degree, 1.0 / (nodes * degree)


def sharpening_weights(nodes: int) -> tuple[float, float]:
    """What P gives a node's own features, and the sum over all nodes."""
    degree = 3.0 - 1.0 / nodes
    return (2.0 + 1.0 / nodes) / degree, -1.0 / (nodes * degree)


def smooth(x_NF: Tensor) -> Tensor:
    """S X on the complete graph with edge weight 1/N."""
    mixed: Tensor = _Mix.apply(x_NF, *smoothing_weights(x_NF.shape[-2]))  # type: ignore[no-untyped-call]
    return mixed


def sharpen(x_NF: Tensor) -> Tensor:
    """P X on the complete graph with edge weight 1/N."""
    mixed: Tensor = _Mix.apply(x_NF, *sharpening_weights(x_NF.shape[-2]))  # type: ignore[no-untyped-call]
    return mixed


def sharpen_and_smooth(x_NF: Tensor) -> Tensor:
    """S P X, as one operator of the same form."""
    nodes = x_NF.shape[-2]
    (own, shared), (own_p, shared_p) = smoothing_weights(nodes), sharpening_weights(nodes)
    both = own * own_p, own * shared_p + shared * own_p + nodes * shared * shared_p
    mixed: Tensor = _Mix.apply(x_NF, *both)  # type: ignore[no-untyped-call]
    return mixed


class _Mix(torch.autograd.Function):
    """own * x + shared * (sum of x over nodes). Symmetric, so its backward is itself."""

    @staticmethod
    def forward(ctx: Any, x_NF: Tensor, own: float, shared: float) -> Tensor:  # noqa: ANN401
        ctx.weights = own, shared
        return mix(x_NF, own, shared)

    @staticmethod
    def backward(ctx: Any, grad_NF: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        return mix(grad_NF, *ctx.weights), None, None


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
