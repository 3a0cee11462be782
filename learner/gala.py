"""GALA, the symmetric graph auto-encoder (Park et al. 2019; paper section 4, "Using Generative Models").

    encoder, Laplacian smoothing:   X' = relu(S X W + b),   S = Dt^-1/2 (A + I) Dt^-1/2,   Dt = deg(A + I)
    decoder, Laplacian sharpening:  X' = relu(P X W + b),   P = Dh^-1/2 (2I - A) Dh^-1/2,  Dh = deg(A) + 2I

The nodes are the agents. The graph is complete with edge weight 1/N (ours). With weight 1, A + I would
be all ones: one layer of smoothing would give every node the same vector, and no decoder could tell the
agents apart again. With 1/N every degree is the same, and both operators reduce to a mix of a node's own
features and the sum over nodes, which for small graphs costs no N x N product. They commute with W, so each
is applied on the narrower side of it (a bias is left as it is: the operators' rows sum to 1).

Shapes: any leading ones, N nodes, F features, Z code.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from learner.reconstruction import linear_mse

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
        return _mix(x_NF, own, shared)

    @staticmethod
    def backward(ctx: Any, grad_NF: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        return _mix(grad_NF, *ctx.weights), None, None


def _mix(x_NF: Tensor, own: float, shared: float) -> Tensor:
    nodes, features = x_NF.shape[-2:]
    if nodes * nodes * features < BATCHED_PRODUCT_SIZE:
        return torch.add(x_NF.sum(dim=-2, keepdim=True).mul_(shared), x_NF, alpha=own)
    matrix_NN = x_NF.new_full((nodes, nodes), shared)
    matrix_NN.diagonal().add_(own)
    flat = x_NF.reshape(-1, nodes, features)
    mixed = torch.empty_like(flat)
    torch.bmm(matrix_NN.expand(len(flat), -1, -1), flat, out=mixed)
    return mixed.unflatten(0, x_NF.shape[:-2]) if x_NF.dim() != 3 else mixed


class GalaEncoder(nn.Module):
    """Two smoothing layers over node features that may come in several parts.

    The first layer's product with a concatenation is the sum of products with its parts, so a part that
    is known for all times (an obs) can be projected at once while another (a latent) recurs.
    """

    def __init__(self, part_sizes: tuple[int, ...], hidden_size: int, out_size: int) -> None:
        super().__init__()
        self.first = nn.ModuleList(
            nn.Linear(size, hidden_size, bias=i == 0) for i, size in enumerate(part_sizes)
        )
        self.last = nn.Linear(hidden_size, out_size)

    def project(self, part: int, x_NF: Tensor) -> Tensor:
        """What one part adds to the first layer."""
        first = self.first[part]
        assert isinstance(first, nn.Linear)
        if first.in_features <= first.out_features:
            return F.linear(smooth(x_NF), first.weight, first.bias)
        return smooth(first(x_NF))

    def finish(self, projected_NH: Tensor) -> Tensor:
        """The code [.., N, Z] from the sum of the projected parts."""
        return smooth(self.last(torch.relu(projected_NH)))

    def forward(self, *parts_NF: Tensor) -> Tensor:
        """The code [.., N, Z]."""
        projected = self.project(0, parts_NF[0])
        for i, part in enumerate(parts_NF[1:], start=1):
            projected = projected + self.project(i, part)
        return self.finish(projected)

    def encode_decoded(self, decoder: "GalaDecoder", code_NZ: Tensor, part: slice) -> Tensor:
        """The code of these features of what `decoder` makes of another code.

        The decoder's last and this encoder's first layer are linear, so their product stands for both, and
        the features in between, which may be many, are never computed.
        """
        weight, bias = decoder.last_layer(part)
        both = compose(self.first[0], weight, bias)
        return self.finish(F.linear(sharpen_and_smooth(decoder.hidden(code_NZ)), *both))


class GalaDecoder(nn.Module):
    """Two sharpening layers, the last one linear."""

    def __init__(self, code_size: int, hidden_size: int, out_size: int) -> None:
        super().__init__()
        self.first = nn.Linear(code_size, hidden_size)
        self.last = nn.Linear(hidden_size, out_size)

    def hidden(self, code_NZ: Tensor) -> Tensor:
        """The first layer [.., N, H]."""
        # A product in three dimensions gives a view, and relu in place on a view is slow.
        sharpened = sharpen(code_NZ)
        hidden = torch.relu_(self.first(sharpened.flatten(0, -2)))
        return hidden.view(*sharpened.shape[:-1], -1)

    def before_last(self, code_NZ: Tensor) -> Tensor:
        """What the last layer sees [.., N, H]."""
        return sharpen(self.hidden(code_NZ))

    def last_layer(self, part: slice) -> tuple[Tensor, Tensor]:
        """Weight and bias of these features."""
        return self.last.weight[part], self.last.bias[part]

    def features(self, before_last_NH: Tensor, part: slice) -> Tensor:
        """These features [.., N, F]."""
        return F.linear(before_last_NH, *self.last_layer(part))

    def error(self, before_last_NH: Tensor, part: slice, target_NF: Tensor) -> Tensor:
        """The mean squared error of these features against data."""
        return linear_mse(before_last_NH, *self.last_layer(part), target_NF)

    def forward(self, code_NZ: Tensor) -> Tensor:
        """All features [.., N, F]."""
        features: Tensor = self.last(self.before_last(code_NZ))
        return features


def compose(first: nn.Module, weight_FH: Tensor, bias_F: Tensor) -> tuple[Tensor, Tensor]:
    """Weight and bias of the linear layer that does first(weight x + bias)."""
    assert isinstance(first, nn.Linear)
    return first.weight @ weight_FH, first.bias + first.weight @ bias_F
